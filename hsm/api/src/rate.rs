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

/// Calls made one after the other for a while, each timed: what a token does with nothing around it, and what everything above it
/// is held against.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TimedCalls {
    /// How long each took, in their order.
    pub each: Vec<Duration>,
    /// How long all took together.
    pub elapsed: Duration,
}

impl TimedCalls {
    /// Makes `call` again and again until `duration` is over, at least once.
    ///
    /// # Errors
    /// The first one of `call`.
    pub fn make<E>(duration: Duration, mut call: impl FnMut() -> Result<(), E>) -> Result<Self, E> {
        let begin = Instant::now();
        let (mut each, mut elapsed) = (Vec::new(), Duration::ZERO);
        loop {
            call()?;
            let now = begin.elapsed();
            each.push(now - elapsed);
            elapsed = now;
            if elapsed >= duration {
                return Ok(Self { each, elapsed });
            }
        }
    }

    /// Calls in a second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        // Counts of calls are far below 2^52.
        #[allow(clippy::cast_precision_loss)]
        let calls = self.each.len() as f64;
        calls / self.elapsed.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_timed_and_the_first_failure_ends_them() {
        let calls = TimedCalls::make(Duration::from_millis(20), || {
            std::thread::sleep(Duration::from_millis(4));
            Ok::<_, ()>(())
        });
        let calls = calls.unwrap();
        assert!((1..=5).contains(&calls.each.len()) && calls.each.iter().all(|call| *call >= Duration::from_millis(4)));
        assert_eq!(calls.each.iter().sum::<Duration>(), calls.elapsed);
        assert!(calls.per_second() <= 250.0, "{calls:?}");
        assert_eq!(TimedCalls::make(Duration::ZERO, || Ok::<_, ()>(())).unwrap().each.len(), 1);
        assert_eq!(TimedCalls::make(Duration::MAX, || Err("gone")), Err("gone"));
    }

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
