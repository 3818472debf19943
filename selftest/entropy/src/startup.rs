//! The start-up test of SP 800-90B 4.3, requirement 4.

use crate::{Cutoffs, EntropyError, Failure, HealthTest, NoiseSource};

/// The fewest consecutive samples that a start-up test may look at (SP 800-90B 4.3, requirement 4).
pub const STARTUP_SAMPLES: usize = 1024;

/// How a start-up test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every sample was taken and neither test failed.
    Passed {
        /// How many samples were looked at.
        samples: usize,
        /// The cutoffs that were in force.
        cutoffs: Cutoffs,
    },
    /// A test failed; no further sample was taken.
    Failed(Failure),
}

/// Takes `samples` consecutive samples of `source` and tests them against what it claims.
///
/// The samples are thrown away: nothing that was seen here is used for anything else.
///
/// # Errors
/// [`EntropyError::TooFewSamples`] below [`STARTUP_SAMPLES`], [`EntropyError::TestCannotFail`].
pub fn startup_test(source: &mut dyn NoiseSource, samples: usize) -> Result<Verdict, EntropyError> {
    if samples < STARTUP_SAMPLES {
        return Err(EntropyError::TooFewSamples(samples));
    }
    let mut health = HealthTest::new(&source.claim())?;
    for _ in 0..samples {
        if let Err(failure) = health.feed(source.sample()) {
            return Ok(Verdict::Failed(failure));
        }
    }
    Ok(Verdict::Passed { samples, cutoffs: health.cutoffs() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Claim, CpuJitter, SampleSpace, TestName};

    /// Repeats one value.
    struct Stuck;

    impl NoiseSource for Stuck {
        fn name(&self) -> &'static str {
            "stuck"
        }

        fn claim(&self) -> Claim {
            claim()
        }

        fn seeds(&self) -> &'static str {
            "nothing"
        }

        fn sample(&mut self) -> u8 {
            0x5a
        }
    }

    /// Gives one value for 90 samples of 100, spread so that no run is long.
    struct Biased(u32);

    impl NoiseSource for Biased {
        fn name(&self) -> &'static str {
            "biased"
        }

        fn claim(&self) -> Claim {
            claim()
        }

        fn seeds(&self) -> &'static str {
            "nothing"
        }

        fn sample(&mut self) -> u8 {
            self.0 += 1;
            if self.0.is_multiple_of(10) { self.0 as u8 } else { 0 }
        }
    }

    fn claim() -> Claim {
        Claim::new(SampleSpace::NonBinary, 0.5, 30).unwrap()
    }

    #[test]
    fn a_stuck_source_fails_the_repetition_count_test() {
        let verdict = startup_test(&mut Stuck, STARTUP_SAMPLES).unwrap();
        assert_eq!(verdict, Verdict::Failed(Failure { test: TestName::RepetitionCount, sample: 61, cutoff: 61 }));
    }

    #[test]
    fn a_biased_source_fails_the_adaptive_proportion_test() {
        let Verdict::Failed(failure) = startup_test(&mut Biased(0), STARTUP_SAMPLES).unwrap() else {
            panic!("a source with 90 % of one value passed");
        };
        assert_eq!(failure.test, TestName::AdaptiveProportion);
    }

    #[test]
    fn the_processors_jitter_passes() {
        let verdict = startup_test(&mut CpuJitter::new(), 4 * STARTUP_SAMPLES).unwrap();
        assert!(matches!(verdict, Verdict::Passed { samples: 4096, .. }), "{verdict:?}");
    }

    #[test]
    fn a_shorter_test_than_the_standard_demands_is_refused() {
        assert_eq!(startup_test(&mut Stuck, 1023), Err(EntropyError::TooFewSamples(1023)));
    }
}
