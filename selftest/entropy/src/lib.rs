#![forbid(unsafe_code)]
//! Health tests of a noise source, after NIST SP 800-90B (January 2018), section 4.
//!
//! Two tests are the gate: the Repetition Count Test (RCT, 4.4.1) finds a source that is stuck, the Adaptive
//! Proportion Test (APT, 4.4.2) one that prefers a value. Both cutoffs are computed from what the source claims
//! ([`Claim`]), never written down. [`startup_test`] is 4.3 requirement 4: at least [`STARTUP_SAMPLES`] samples in a
//! row before anything else happens.
//!
//! [`CpuJitter`] is the source that this machine can offer without hardware of its own. **It seeds nothing**
//! ([`CpuJitter::SEEDS`]): it is a monitor that fails the start when the clock of the processor stands still or
//! repeats itself.

mod claim;
mod cutoff;
mod health;
mod jitter;
mod source;
mod startup;

pub use claim::{Claim, SampleSpace};
pub use cutoff::{Cutoffs, critical_binomial};
pub use health::{Failure, HealthTest, TestName};
pub use jitter::CpuJitter;
pub use source::NoiseSource;
pub use startup::{STARTUP_SAMPLES, Verdict, startup_test};

/// What a caller may have asked wrongly. A source that fails its test is not an error but a [`Verdict`].
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum EntropyError {
    /// The claimed min-entropy is not a number above 0 and at most 8 bits a sample (samples are bytes; 1 bit for a
    /// binary source).
    #[error(
        "the noise source claims {0} bits of min-entropy a sample; a claim lies above 0 and at most at the sample's size"
    )]
    ClaimOutOfRange(f64),
    /// The false-positive probability is outside the range that SP 800-90B 4.4 recommends (2^-20 to 2^-40), or
    /// jitterentropy's permanent level (2^-60).
    #[error("a false-positive probability of 2^-{0} is outside 2^-20 to 2^-60")]
    AlphaOutOfRange(u8),
    /// The claim is so low that a source which repeats one value for a whole window would still pass: the adaptive
    /// proportion test could never fail, so there would be no test.
    #[error(
        "with {min_entropy} bits of claimed min-entropy a sample the adaptive proportion test cannot fail in a window of {window}"
    )]
    TestCannotFail {
        /// The claim, in bits a sample.
        min_entropy: f64,
        /// The window of the adaptive proportion test, in samples.
        window: u32,
    },
    /// SP 800-90B 4.3 requirement 4 demands at least 1,024 consecutive samples.
    #[error("a start-up test over {0} samples is too short, at least {STARTUP_SAMPLES} are demanded")]
    TooFewSamples(usize),
}
