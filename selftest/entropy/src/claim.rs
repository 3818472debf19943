//! What a noise source claims of itself.

use crate::EntropyError;

/// How many values a sample can take; decides the window of the adaptive proportion test (SP 800-90B 4.4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SampleSpace {
    /// Two values: window of 1,024 samples.
    Binary,
    /// More than two values: window of 512 samples.
    NonBinary,
}

impl SampleSpace {
    /// The window W of the adaptive proportion test, in samples.
    #[must_use]
    pub const fn window(self) -> u32 {
        match self {
            Self::Binary => 1024,
            Self::NonBinary => 512,
        }
    }

    const fn bits(self) -> f64 {
        match self {
            Self::Binary => 1.0,
            Self::NonBinary => 8.0,
        }
    }
}

/// A claim: so much min-entropy a sample, tested with so rare a false alarm.
///
/// The lower the claim, the later the tests fire: a source that claims less is trusted with less, and is allowed to be
/// worse.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Claim {
    space: SampleSpace,
    min_entropy: f64,
    alpha_exponent: u8,
}

impl Claim {
    /// A claim of `min_entropy` bits a sample, with a false-positive probability of 2^-`alpha_exponent`.
    ///
    /// # Errors
    /// [`EntropyError::ClaimOutOfRange`] and [`EntropyError::AlphaOutOfRange`].
    pub fn new(space: SampleSpace, min_entropy: f64, alpha_exponent: u8) -> Result<Self, EntropyError> {
        if !(min_entropy > 0.0 && min_entropy <= space.bits()) {
            return Err(EntropyError::ClaimOutOfRange(min_entropy));
        }
        if !(20..=60).contains(&alpha_exponent) {
            return Err(EntropyError::AlphaOutOfRange(alpha_exponent));
        }
        Ok(Self { space, min_entropy, alpha_exponent })
    }

    /// The sample space.
    #[must_use]
    pub const fn space(&self) -> SampleSpace {
        self.space
    }

    /// H, in bits a sample.
    #[must_use]
    pub const fn min_entropy(&self) -> f64 {
        self.min_entropy
    }

    /// n in a false-positive probability of 2^-n.
    #[must_use]
    pub const fn alpha_exponent(&self) -> u8 {
        self.alpha_exponent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_claims_are_refused() {
        for claim in [0.0, -1.0, 8.5, f64::NAN, f64::INFINITY] {
            assert!(Claim::new(SampleSpace::NonBinary, claim, 20).is_err(), "{claim}");
        }
        assert!(Claim::new(SampleSpace::Binary, 1.5, 20).is_err());
        assert_eq!(Claim::new(SampleSpace::NonBinary, 1.0, 19), Err(EntropyError::AlphaOutOfRange(19)));
        assert_eq!(Claim::new(SampleSpace::NonBinary, 1.0, 61), Err(EntropyError::AlphaOutOfRange(61)));
    }
}
