use std::{sync::Barrier, thread, time::Duration};

use casemate_hsm_api::TimedCalls;
use serde::{Deserialize, Serialize};

use super::IN_FLIGHT;
use crate::processor;

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
    /// How many were made, those included that did not count.
    pub(crate) made: u32,
}

/// What one process tells another: what its callers saw, by their number, and the processor time that it took itself.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Series {
    pub(crate) calls: [Calls; 3],
    pub(crate) used: Duration,
}

impl Series {
    /// What `measure` makes for each number of callers in [`IN_FLIGHT`].
    pub(crate) fn of<E>(measure: impl FnMut(usize) -> Result<Calls, E>) -> Result<Self, E> {
        let before = processor::of("self");
        let made: Result<Vec<Calls>, E> = IN_FLIGHT.into_iter().map(measure).collect();
        let mut calls = [Calls::default(); 3];
        calls.iter_mut().zip(made?).for_each(|(place, made)| *place = made);
        Ok(Self { calls, used: processor::of("self").saturating_sub(before) })
    }

    /// In the middle between two.
    pub(crate) fn between(mut self, other: Self) -> Self {
        self.calls.iter_mut().zip(other.calls).for_each(|(one, other)| *one = one.between(other));
        self.used += other.used;
        self
    }

    /// `used` for each call that was made, in milliseconds.
    pub(crate) fn share(&self, used: Duration) -> f64 {
        let made: u32 = self.calls.iter().map(|calls| calls.made).sum();
        used.as_secs_f64() * 1e3 / f64::from(made.max(1))
    }
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
            let warm = call(duration / 10)?.each.len();
            call(duration).map(|calls| (warm, calls))
        };
        let series: Result<Vec<(usize, TimedCalls)>, E> = thread::scope(|scope| {
            let threads: Vec<_> = (0..callers).map(|_| scope.spawn(one)).collect();
            let joined = threads.into_iter().map(thread::ScopedJoinHandle::join);
            joined.map(|joined| joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        });
        series.map(|series| Self::among(&series))
    }

    /// Of each caller how many calls did not count, and those that did.
    fn among(series: &[(usize, TimedCalls)]) -> Self {
        let mut each: Vec<Duration> = series.iter().flat_map(|(_, calls)| &calls.each).copied().collect();
        each.sort_unstable();
        let within = |per_cent: usize| {
            let rank = (each.len() * per_cent).div_ceil(100).max(1);
            each.get(rank - 1).map_or(0.0, |time| time.as_secs_f64() * 1e3)
        };
        let per_second = series.iter().map(|(_, calls)| calls.per_second()).sum();
        let made = each.len() + series.iter().map(|(warm, _)| warm).sum::<usize>();
        Self { per_second, p50_ms: within(50), p99_ms: within(99), made: u32::try_from(made).unwrap_or(u32::MAX) }
    }

    /// In the middle between two, for the machine is not as fast all the time.
    pub(crate) fn between(self, other: Self) -> Self {
        Self {
            per_second: f64::midpoint(self.per_second, other.per_second),
            p50_ms: f64::midpoint(self.p50_ms, other.p50_ms),
            p99_ms: f64::midpoint(self.p99_ms, other.p99_ms),
            made: self.made + other.made,
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
        let calls = Calls::among(&[(1, series(&[4, 1])), (2, series(&[3, 2]))]);
        assert_eq!(calls.made, 7);
        assert!((calls.per_second - 800.0).abs() < 1e-9, "{calls:?}");
        assert!((calls.p50_ms - 2.0).abs() < 1e-9 && (calls.p99_ms - 4.0).abs() < 1e-9, "{calls:?}");
        let between = calls.between(Calls { per_second: 1000.0, p50_ms: 4.0, p99_ms: 4.0, made: 1 });
        assert_eq!(between.made, 8);
        assert!((between.per_second - 900.0).abs() < 1e-9 && (between.p50_ms - 3.0).abs() < 1e-9);
    }

    #[test]
    fn processor_time_is_shared_among_all_calls_that_were_made() {
        let series =
            Series::of(|callers| Ok::<_, ()>(Calls { made: u32::try_from(callers).unwrap(), ..Calls::default() }));
        let both = series.unwrap().between(series.unwrap());
        assert!((both.share(Duration::from_millis(28)) - 2.0).abs() < 1e-9, "{both:?}");
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
