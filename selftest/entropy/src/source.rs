//! Where samples come from.

/// A source of raw, unconditioned samples.
pub trait NoiseSource {
    /// What it is, for the report.
    fn name(&self) -> &'static str;

    /// The next raw sample.
    fn sample(&mut self) -> u8;
}
