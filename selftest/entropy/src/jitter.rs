//! Raw differences of the processor's clock.

use std::hint::black_box;
use std::time::Instant;

use crate::{Claim, NoiseSource, SampleSpace};

/// How many bytes the measured loop walks through: more than a second-level cache holds.
const MEMORY: usize = 4 * 1024 * 1024;
/// How many accesses are timed for one sample, so that it takes some hundred nanoseconds even where the clock ticks in tens.
const ACCESSES: usize = 128;
/// The distance of two accesses: seven pages and some lines, so that each access meets another line and another page.
const STRIDE: usize = 7 * (4096 + 65);

/// The time that a short walk through memory takes, in nanoseconds of the monotonic clock, its lowest eight bits.
///
/// Raw: nothing is mixed, whitened or thrown away, for a health test must see what the source says. What varies is the
/// state of caches, of the translation buffer and of the pipeline, and interrupts; a processor that a debugger or a
/// hypervisor steps evenly, or a clock that stands still, does not vary, and that is what the tests find.
#[derive(Debug, Clone)]
pub struct CpuJitter {
    memory: Box<[u8]>,
    position: usize,
}

impl CpuJitter {
    /// What this source seeds, word for word for the report.
    pub const SEEDS: &str = "CPU jitter seeds nothing: it is a monitor, its samples are thrown away. The AWS-LC module \
        seeds its own CTR_DRBG from the processor (RDRAND) with the kernel (getrandom) as additional input, or from the \
        kernel alone where the processor offers no RDRAND; its self-test covers the DRBG. The token has a generator of \
        its own, which this machine cannot test.";

    /// Claimed min-entropy, in bits a sample: half of the 1 bit that jitterentropy claims with its oversampling rate 1,
    /// and what the Go module claims.
    pub const MIN_ENTROPY: f64 = 0.5;

    /// False-positive exponent: 2^-30 a sample, jitterentropy's intermittent level.
    pub const ALPHA_EXPONENT: u8 = 30;

    /// A source with memory of its own.
    #[must_use]
    pub fn new() -> Self {
        // Not zero: the pages are made here and not during the measurement.
        Self { memory: vec![1; MEMORY].into_boxed_slice(), position: 0 }
    }

    fn walk(&mut self) {
        for _ in 0..ACCESSES {
            self.position = (self.position + STRIDE) % MEMORY;
            if let Some(cell) = self.memory.get_mut(self.position) {
                *cell = black_box(cell.wrapping_add(1));
            }
        }
    }
}

impl Default for CpuJitter {
    fn default() -> Self {
        Self::new()
    }
}

impl NoiseSource for CpuJitter {
    fn name(&self) -> &'static str {
        "CPU jitter (memory access time, raw)"
    }

    fn claim(&self) -> Claim {
        Claim::new(SampleSpace::NonBinary, Self::MIN_ENTROPY, Self::ALPHA_EXPONENT).expect(
            "both constants are within the ranges that Claim::new checks; the start-up test's test makes the claim",
        )
    }

    fn seeds(&self) -> &'static str {
        Self::SEEDS
    }

    fn sample(&mut self) -> u8 {
        let start = Instant::now();
        self.walk();
        // The low byte is the sample: the high ones hardly change.
        start.elapsed().as_nanos() as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_takes_more_than_its_claimed_share() {
        let mut source = CpuJitter::new();
        let mut counts = [0_u32; 256];
        for _ in 0..8192 {
            counts[usize::from(source.sample())] += 1;
        }
        let most = counts.iter().copied().max().unwrap();
        let share = f64::from(most) / 8192.0;
        // p_max = 2^-H: the claim of 0.5 bits allows 70.7 %.
        assert!(-share.log2() >= CpuJitter::MIN_ENTROPY, "most common value: {share}");
    }
}
