//! The two continuous tests, one sample at a time.

use std::fmt;

use crate::{Claim, Cutoffs, EntropyError};

/// Which of the two tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TestName {
    /// SP 800-90B 4.4.1.
    RepetitionCount,
    /// SP 800-90B 4.4.2.
    AdaptiveProportion,
}

impl fmt::Display for TestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RepetitionCount => "repetition count test",
            Self::AdaptiveProportion => "adaptive proportion test",
        })
    }
}

/// A test that failed. It holds no sample: what a noise source said is nobody's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the {test} failed at sample {sample}: the cutoff of {cutoff} was reached")]
pub struct Failure {
    /// The test.
    pub test: TestName,
    /// The sample at which it failed, counted from 1.
    pub sample: u64,
    /// The cutoff that was reached, in samples.
    pub cutoff: u32,
}

/// Both tests over one stream of samples. Once failed it stays failed: a source does not become good again by going on.
#[derive(Debug, Clone)]
pub struct HealthTest {
    cutoffs: Cutoffs,
    seen: u64,
    /// RCT: the last sample (A) and how often in a row it came (B).
    last: Option<u8>,
    repetitions: u32,
    /// APT: the window's first sample (A), how often it came (B), and how much of the window is done.
    first: u8,
    occurrences: u32,
    position: u32,
    failed: Option<Failure>,
}

impl HealthTest {
    /// A fresh test of a source that makes `claim`.
    ///
    /// # Errors
    /// [`EntropyError::TestCannotFail`].
    pub fn new(claim: &Claim) -> Result<Self, EntropyError> {
        Ok(Self {
            cutoffs: Cutoffs::of(claim)?,
            seen: 0,
            last: None,
            repetitions: 0,
            first: 0,
            occurrences: 0,
            position: 0,
            failed: None,
        })
    }

    /// The cutoffs in force.
    #[must_use]
    pub const fn cutoffs(&self) -> Cutoffs {
        self.cutoffs
    }

    /// Takes the next sample.
    ///
    /// # Errors
    /// The first [`Failure`], at the sample that caused it and at every later one.
    pub fn feed(&mut self, sample: u8) -> Result<(), Failure> {
        if let Some(failure) = self.failed {
            return Err(failure);
        }
        self.seen += 1;
        let outcome = self.repetition_count(sample).and_then(|()| self.adaptive_proportion(sample));
        self.failed = outcome.err();
        outcome
    }

    fn repetition_count(&mut self, sample: u8) -> Result<(), Failure> {
        if self.last == Some(sample) {
            self.repetitions += 1;
        } else {
            self.last = Some(sample);
            self.repetitions = 1;
        }
        self.check(TestName::RepetitionCount, self.repetitions, self.cutoffs.repetition_count)
    }

    fn adaptive_proportion(&mut self, sample: u8) -> Result<(), Failure> {
        if self.position == 0 {
            self.first = sample;
            self.occurrences = 0;
        }
        self.position = (self.position + 1) % self.cutoffs.window;
        if sample == self.first {
            self.occurrences += 1;
        }
        self.check(TestName::AdaptiveProportion, self.occurrences, self.cutoffs.adaptive_proportion)
    }

    fn check(&self, test: TestName, count: u32, cutoff: u32) -> Result<(), Failure> {
        if count >= cutoff { Err(Failure { test, sample: self.seen, cutoff }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SampleSpace;

    fn health() -> HealthTest {
        HealthTest::new(&Claim::new(SampleSpace::NonBinary, 0.5, 20).unwrap()).unwrap()
    }

    fn first_failure(samples: impl Iterator<Item = u8>) -> Option<Failure> {
        let mut health = health();
        samples.map(|sample| health.feed(sample)).find_map(Result::err)
    }

    #[test]
    fn a_stuck_source_fails_at_exactly_the_cutoff() {
        let failure = first_failure(std::iter::repeat_n(7, 41)).unwrap();
        assert_eq!(failure, Failure { test: TestName::RepetitionCount, sample: 41, cutoff: 41 });
        assert_eq!(first_failure(std::iter::repeat_n(7, 40)), None);
    }

    #[test]
    fn a_run_that_is_interrupted_in_time_passes() {
        assert_eq!(first_failure((0..1024_u32).map(|i| u8::from(i % 40 == 0) + (i % 3 == 0) as u8)), None);
    }

    #[test]
    fn a_biased_source_fails_by_proportion_not_by_repetition() {
        // Nine of ten samples are the same, and no run reaches 41.
        let failure = first_failure((1..=1024_u32).map(|i| u8::from(i % 10 == 0))).unwrap();
        assert_eq!(failure.test, TestName::AdaptiveProportion);
        assert_eq!(failure.cutoff, 410);
        // The 410th zero: 9 zeros in 10 samples, so sample 455.
        assert_eq!(failure.sample, 455);
    }

    #[test]
    fn proportion_is_counted_a_window_at_a_time() {
        // Two of three samples are zero: 341 in each window of 512, 682 in both together, and the cutoff is 410.
        assert_eq!(first_failure((0..1024_u32).map(|i| u8::from(i % 3 == 2))), None);
    }

    #[test]
    fn a_failure_is_final() {
        let mut health = health();
        let failure = std::iter::repeat_n(1, 41).map(|s| health.feed(s)).find_map(Result::err).unwrap();
        assert_eq!(health.feed(2), Err(failure));
        assert_eq!(health.feed(3), Err(failure));
    }
}
