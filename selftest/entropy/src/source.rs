//! Where samples come from.

use crate::Claim;

/// A source of raw, unconditioned samples.
pub trait NoiseSource {
    /// What it is, for the report.
    fn name(&self) -> &'static str;

    /// What it claims of its samples; the cutoffs follow from it.
    fn claim(&self) -> Claim;

    /// What it seeds and what it does not, for the report.
    fn seeds(&self) -> &'static str;

    /// The next raw sample.
    fn sample(&mut self) -> u8;
}
