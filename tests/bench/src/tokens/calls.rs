use std::{sync::Barrier, thread, time::Duration};

use casemate_hsm_api::TimedCalls;
use serde::{Deserialize, Serialize};

/// What several callers saw who all called again and again, as one process tells another.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Calls {
    /// Of all callers together.
    pub(crate) per_second: f64,
    /// Half of the calls took no longer, in milliseconds.
    pub(crate) p50_ms: f64,
    /// 99 of a hundred took no longer, in milliseconds.
    pub(crate) p99_ms: f64,
}

impl Calls {
    /// Has `callers` threads call at once, each after the others are ready too. `caller` makes one; its calls are made for the
    /// time that it is given, first for a tenth of `duration` that does not count: processor and token are warm when it does.
    pub(crate) fn of<C, E: Send>(
        callers: usize,
        duration: Duration,
        caller: impl Fn() -> Result<C, E> + Sync,
    ) -> Result<Self, E>
    where
        C: FnMut(Duration) -> Result<TimedCalls, E>,
    {
        let ready = Barrier::new(callers);
        let one = || {
            let made = caller();
            ready.wait();
            let mut call = made?;
            call(duration / 10)?;
            call(duration)
        };
        let series: Result<Vec<TimedCalls>, E> = thread::scope(|scope| {
            let threads: Vec<_> = (0..callers).map(|_| scope.spawn(one)).collect();
            let joined = threads.into_iter().map(thread::ScopedJoinHandle::join);
            joined.map(|joined| joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        });
        series.map(|series| Self::among(&series))
    }

    fn among(series: &[TimedCalls]) -> Self {
        let mut each: Vec<Duration> = series.iter().flat_map(|calls| &calls.each).copied().collect();
        each.sort_unstable();
        let within = |per_cent: usize| {
            let rank = (each.len() * per_cent).div_ceil(100).max(1);
            each.get(rank - 1).map_or(0.0, |time| time.as_secs_f64() * 1e3)
        };
        let per_second = series.iter().map(TimedCalls::per_second).sum();
        Self { per_second, p50_ms: within(50), p99_ms: within(99) }
    }

    /// In the middle between two, for the machine is not as fast all the time.
    pub(crate) fn between(self, other: Self) -> Self {
        Self {
            per_second: f64::midpoint(self.per_second, other.per_second),
            p50_ms: f64::midpoint(self.p50_ms, other.p50_ms),
            p99_ms: f64::midpoint(self.p99_ms, other.p99_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(30);

    #[test]
    fn callers_are_counted_together_and_percentiles_are_of_the_nearest_rank() {
        let ms = Duration::from_millis;
        let series = |each: &[u64]| TimedCalls {
            each: each.iter().map(|time| ms(*time)).collect(),
            elapsed: ms(each.iter().sum()),
        };
        let calls = Calls::among(&[series(&[4, 1]), series(&[3, 2])]);
        assert!((calls.per_second - 800.0).abs() < 1e-9, "{calls:?}");
        assert!((calls.p50_ms - 2.0).abs() < 1e-9 && (calls.p99_ms - 4.0).abs() < 1e-9, "{calls:?}");
        let between = calls.between(Calls { per_second: 1000.0, p50_ms: 4.0, p99_ms: 4.0 });
        assert!((between.per_second - 900.0).abs() < 1e-9 && (between.p50_ms - 3.0).abs() < 1e-9);
    }

    #[test]
    fn who_cannot_call_ends_the_measurement() {
        let caller = || Err::<fn(Duration) -> Result<TimedCalls, &'static str>, _>("no connection");
        assert_eq!(Calls::of(3, SHORT, caller).map(|calls| calls.per_second), Err("no connection"));
        let call = || {
            thread::sleep(Duration::from_millis(1));
            Ok(())
        };
        let calls = Calls::of(2, SHORT, || Ok::<_, ()>(move |duration| TimedCalls::make(duration, call)));
        assert!(calls.unwrap().per_second <= 2000.0);
    }
}
