use std::{
    fmt,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

/// How fast a token signs, one signature after the other: a count and the time that it took.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SignatureRate {
    /// Signatures that the token made.
    pub signatures: u64,
    /// Microseconds that they took together.
    pub micros: u64,
}

impl SignatureRate {
    /// Has `sign` sign again and again until `duration` is over, at least once.
    ///
    /// # Errors
    /// The first one of `sign`.
    pub fn measure<E>(duration: Duration, mut sign: impl FnMut() -> Result<(), E>) -> Result<Self, E> {
        let begin = Instant::now();
        let mut signatures = 0;
        loop {
            sign()?;
            signatures += 1;
            let elapsed = begin.elapsed();
            if elapsed >= duration {
                // Never zero, by which nobody could divide; no measurement takes 500,000 years.
                let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX).max(1);
                return Ok(Self { signatures, micros });
            }
        }
    }

    /// Whole signatures a second.
    #[must_use]
    pub fn per_second(self) -> u64 {
        let whole = u128::from(self.signatures) * 1_000_000 / u128::from(self.micros.max(1));
        u64::try_from(whole).unwrap_or(u64::MAX)
    }

    /// Whether so many signatures a second are no more than this.
    #[must_use]
    pub fn carries(self, per_second: u32) -> bool {
        u128::from(self.signatures) * 1_000_000 >= u128::from(per_second) * u128::from(self.micros)
    }
}

impl fmt::Display for SignatureRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = u128::from(self.signatures) * 10_000_000 / u128::from(self.micros.max(1));
        write!(f, "{}.{} signatures/s", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_counted_shown_and_compared_without_rounding_up() {
        let slow = SignatureRate { signatures: 2, micros: 400_001 };
        assert_eq!(slow.to_string(), "4.9 signatures/s");
        assert_eq!(slow.per_second(), 4);
        assert!(slow.carries(4) && !slow.carries(5));
        assert!(SignatureRate { signatures: 2, micros: 400_000 }.carries(5));
        assert!(SignatureRate { signatures: 1, micros: u64::MAX }.carries(0));
        let measured = SignatureRate::measure(Duration::from_millis(20), || {
            std::thread::sleep(Duration::from_millis(4));
            Ok::<_, ()>(())
        });
        let measured = measured.unwrap();
        assert!((1..=5).contains(&measured.signatures) && measured.micros >= 20_000, "{measured:?}");
        let once = SignatureRate::measure(Duration::ZERO, || Ok::<_, ()>(())).unwrap();
        assert_eq!(once.signatures, 1);
        assert_eq!(SignatureRate::measure(Duration::MAX, || Err("gone")), Err("gone"));
    }
}
