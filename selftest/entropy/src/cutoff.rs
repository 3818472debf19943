//! The cutoffs of SP 800-90B 4.4.1 and 4.4.2, computed.

use crate::{Claim, EntropyError};

/// From how many samples on a test fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cutoffs {
    /// Repetition count: this many equal samples in a row fail.
    pub repetition_count: u32,
    /// Adaptive proportion: this many occurrences of a window's first sample within the window fail.
    pub adaptive_proportion: u32,
    /// The window of the adaptive proportion test, in samples.
    pub window: u32,
}

impl Cutoffs {
    /// The cutoffs that belong to `claim`.
    ///
    /// RCT: C = 1 + ⌈−log2 α / H⌉ (4.4.1). APT: C = 1 + CRITBINOM(W, 2^−H, 1 − α) (4.4.2).
    ///
    /// # Errors
    /// [`EntropyError::TestCannotFail`] when the APT cutoff would exceed the window.
    pub fn of(claim: &Claim) -> Result<Self, EntropyError> {
        let window = claim.space().window();
        let repetition_count = 1 + (f64::from(claim.alpha_exponent()) / claim.min_entropy()).ceil() as u32;
        let most_likely = (-claim.min_entropy()).exp2();
        let alpha = (-f64::from(claim.alpha_exponent())).exp2();
        let adaptive_proportion = 1 + critical_binomial(window, most_likely, alpha);
        if adaptive_proportion > window {
            return Err(EntropyError::TestCannotFail { min_entropy: claim.min_entropy(), window });
        }
        Ok(Self { repetition_count, adaptive_proportion, window })
    }
}

/// The smallest k for which P(X > k) ≤ `alpha`, X being binomial with `trials` and probability `p`: the spreadsheet's
/// CRITBINOM(trials, p, 1 − alpha) that SP 800-90B 4.4.2 names.
///
/// 1 − α is not formed: with α = 2^−60 it is 1 in a double. The upper tail is summed instead, from its thin end, each
/// term from its logarithm, so that neither the factorials nor p^n leave the range of a double.
///
/// `p` must lie strictly between 0 and 1; a [`Claim`] sees to that.
#[must_use]
pub fn critical_binomial(trials: u32, p: f64, alpha: f64) -> u32 {
    let log_p = p.ln();
    let log_q = (-p).ln_1p();
    // ln C(trials, k), walked from k = trials (where it is 0) downwards: C(n, k−1) = C(n, k) · k / (n − k + 1).
    let mut log_choose = 0.0_f64;
    let mut tail = 0.0_f64;
    let mut k = trials;
    while k > 0 {
        let term = (log_choose + f64::from(k) * log_p + f64::from(trials - k) * log_q).exp();
        if tail + term > alpha {
            return k;
        }
        tail += term;
        log_choose += f64::from(k).ln() - f64::from(trials - k + 1).ln();
        k -= 1;
    }
    0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::SampleSpace::{Binary, NonBinary};

    fn cutoffs(space: crate::SampleSpace, h: f64, alpha: u8) -> Cutoffs {
        Cutoffs::of(&Claim::new(space, h, alpha).unwrap()).unwrap()
    }

    #[test]
    fn the_go_modules_published_cutoffs() {
        // Go Cryptographic Module, crypto/internal/entropy/v1.0.0: H = 0.5, α = 2^-20 give RCT 41 and APT 410 in 512.
        let found = cutoffs(NonBinary, 0.5, 20);
        assert_eq!(found, Cutoffs { repetition_count: 41, adaptive_proportion: 410, window: 512 });
    }

    #[test]
    fn jitterentropys_published_cutoffs() {
        // smuellerDD/jitterentropy-library @4436c53, src/jitterentropy-health.c: H = 1/osr, W = 512, and the form of comment
        // #10b on SP 800-90B, C = 2 + qbinom(1 − α, 511, 2^-H), computed there with arbitrary precision.
        let intermittent = [325, 422, 459, 477, 488, 494, 499, 502, 505, 507, 508, 509, 510, 511];
        let permanent = [355, 447, 479, 494, 502, 507, 510, 512];
        let cutoff =
            |osr: usize, exponent: f64| 2 + critical_binomial(511, (-1.0 / (osr as f64)).exp2(), (-exponent).exp2());
        for (index, published) in intermittent.into_iter().enumerate() {
            assert_eq!(cutoff(index + 1, 30.0), published, "osr {}, 2^-30", index + 1);
        }
        for (index, published) in permanent.into_iter().enumerate() {
            assert_eq!(cutoff(index + 1, 60.0), published, "osr {}, 2^-60", index + 1);
        }
    }

    #[test]
    fn sp_800_90b_example_cutoffs() {
        // NIST SP 800-90B 4.4.2, Table 2 (page 27): example cutoffs for α = 2^-20.
        for (h, published) in [(0.2, 941), (0.4, 840), (0.6, 748), (0.8, 664), (1.0, 589)] {
            assert_eq!(cutoffs(Binary, h, 20).adaptive_proportion, published, "binary, H = {h}");
        }
        for (h, published) in [(0.5, 410), (1.0, 311), (2.0, 177), (4.0, 62), (8.0, 13)] {
            assert_eq!(cutoffs(NonBinary, h, 20).adaptive_proportion, published, "non-binary, H = {h}");
        }
    }

    #[test]
    fn repetition_counts_follow_the_formula() {
        for (h, alpha, expected) in [(1.0, 20, 21), (8.0, 20, 4), (0.5, 30, 61), (0.3, 30, 101), (2.0, 40, 21)] {
            assert_eq!(cutoffs(NonBinary, h, alpha).repetition_count, expected, "H = {h}, alpha 2^-{alpha}");
        }
    }

    #[test]
    fn a_claim_under_which_the_test_cannot_fail_is_refused() {
        let claim = Claim::new(NonBinary, 0.05, 30).unwrap();
        assert_eq!(Cutoffs::of(&claim), Err(EntropyError::TestCannotFail { min_entropy: 0.05, window: 512 }));
    }

    proptest! {
        /// The definition, checked by summing from the other end in plain doubles: P(X > k) ≤ α < P(X > k − 1).
        #[test]
        fn the_critical_value_satisfies_its_definition(trials in 1_u32..80, p in 0.01_f64..0.99, exponent in 2_i32..20) {
            let alpha = f64::from(-exponent).exp2();
            let mut pmf = vec![(1.0 - p).powi(trials as i32)];
            for k in 0..trials {
                let last = pmf[k as usize];
                pmf.push(last * f64::from(trials - k) / f64::from(k + 1) * p / (1.0 - p));
            }
            let above = |k: u32| pmf.iter().skip(k as usize + 1).rev().sum::<f64>();
            let k = critical_binomial(trials, p, alpha);
            prop_assert!(above(k) <= alpha * (1.0 + 1e-9));
            prop_assert!(k == 0 || above(k - 1) > alpha * (1.0 - 1e-9));
        }
    }
}
