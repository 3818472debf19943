//! Phones that enrol, as many at a time as asked for, each one again as the next device as soon as it is through.

use std::{
    fs,
    ops::Range,
    sync::{
        Arc, Barrier, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use casemate_harness::{Lab, Ports};
use casemate_phone::{
    capf::{Enrolment, Outcome, Premade, enrol},
    identity::{DeviceKey, KeySpec},
    tls::Endpoint,
    trust::TrustList,
};

use crate::{BenchError, operator, processor::Used};

/// How long one enrolment may take before it counts as not served.
const LIMIT: Duration = Duration::from_secs(60);

/// What a load saw.
pub(crate) struct Served {
    elapsed: Duration,
    /// Of every enrolment, shortest first.
    latencies: Vec<Duration>,
    used: Vec<(&'static str, Duration)>,
}

impl Served {
    /// Enrolments a second, from the first one's begin to the last one's end.
    pub(crate) fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// Processor time of one enrolment, by who used it.
    pub(crate) fn processor_time(&self) -> impl Iterator<Item = (&'static str, Duration)> {
        let enrolments = u32::try_from(self.latencies.len()).unwrap_or(u32::MAX).max(1);
        self.used.iter().map(move |(name, time)| (*name, *time / enrolments))
    }

    /// The time in which this many per mille of the enrolments were through (nearest rank).
    pub(crate) fn within(&self, per_mille: usize) -> Duration {
        let rank = (self.latencies.len() * per_mille).div_ceil(1000).max(1);
        self.latencies.get(rank - 1).copied().unwrap_or_default()
    }
}

/// Keys that phones made beforehand: one for each phone in flight.
pub(crate) struct Keys(Vec<Arc<DeviceKey>>);

impl Keys {
    /// Makes `count` keys.
    pub(crate) fn make(spec: KeySpec, count: usize) -> Result<Self, BenchError> {
        let keys = (0..count).map(|_| DeviceKey::generate(spec).map(Arc::new));
        keys.collect::<Result<_, _>>().map(Self).map_err(|error| BenchError::Load(Box::new(error)))
    }
}

/// The enrolment service of a lab, as phones with its trust list know it.
pub(crate) struct Door<'a> {
    lab: &'a Lab,
    enrolment: Enrolment,
}

impl<'a> Door<'a> {
    pub(crate) fn of(lab: &'a Lab) -> Result<Self, BenchError> {
        let path = lab.published("ctlprovider", "ITLFile.tlv");
        let bytes = fs::read(&path).map_err(BenchError::file(path))?;
        let endpoint = Endpoint {
            service: "CAPF",
            host: lab.address(Ports::CAPF).ip().to_string(),
            port: Ports::CAPF,
            limit: LIMIT,
        };
        TrustList::read(&bytes)
            .and_then(|list| Enrolment::new(endpoint, &list, "", None))
            .map(|enrolment| Self { lab, enrolment })
            .map_err(|error| BenchError::Load(Box::new(error)))
    }

    /// Enrols every device of `numbers` once, a phone in flight for each of `keys`.
    pub(crate) fn load(&self, keys: &Keys, numbers: Range<usize>) -> Result<Served, BenchError> {
        let next = AtomicUsize::new(numbers.start);
        let latencies = Mutex::new(Vec::with_capacity(numbers.len()));
        let before = Used::now(self.lab);
        let ready = Barrier::new(keys.0.len() + 1);
        let phone = |key| {
            ready.wait();
            let own = self.take_turns(key, &next, numbers.end)?;
            latencies.lock().unwrap_or_else(PoisonError::into_inner).extend(own);
            Ok::<_, BenchError>(())
        };
        let phone = &phone;
        let started = thread::scope(|scope| {
            let phones: Vec<_> = keys.0.iter().map(|key| scope.spawn(move || phone(key))).collect();
            ready.wait();
            let started = Instant::now();
            let failed = phones.into_iter().filter_map(|phone| phone.join().ok()).find_map(Result::err);
            failed.map_or(Ok(started), Err)
        })?;
        let elapsed = started.elapsed();
        let mut latencies = latencies.into_inner().unwrap_or_else(PoisonError::into_inner);
        latencies.sort_unstable();
        Ok(Served { elapsed, latencies, used: Used::now(self.lab).since(&before) })
    }

    fn take_turns(&self, key: &Arc<DeviceKey>, next: &AtomicUsize, end: usize) -> Result<Vec<Duration>, BenchError> {
        let mut latencies = Vec::new();
        let mut enrolment = self.enrolment.clone();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= end {
                return Ok(latencies);
            }
            enrolment.device = operator::device(number);
            let started = Instant::now();
            // Once one was not served there is no number any more, and nobody else needs to go on.
            installed(&enrolment, key).inspect_err(|_| next.store(end, Ordering::Relaxed))?;
            latencies.push(started.elapsed());
        }
    }
}

/// Enrols once, and not before the phone holds a certificate that it checked is it through.
fn installed(enrolment: &Enrolment, key: &Arc<DeviceKey>) -> Result<(), BenchError> {
    let outcome = enrol(enrolment, &mut Premade(Arc::clone(key))).map_err(BenchError::phone(&enrolment.device))?;
    match outcome {
        Outcome::Installed(_) => Ok(()),
        Outcome::NothingToDo | Outcome::Silent(_) => Err(BenchError::NotInstalled { device: enrolment.device.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let latencies = (1..=200).map(Duration::from_millis).collect();
        let served =
            Served { elapsed: Duration::from_secs(4), latencies, used: vec![("keyd", Duration::from_secs(1))] };
        assert_eq!(served.within(500), Duration::from_millis(100));
        assert_eq!(served.within(990), Duration::from_millis(198));
        assert_eq!(served.within(1000), Duration::from_millis(200));
        assert!((served.per_second() - 50.0).abs() < 1e-9);
        assert_eq!(served.processor_time().collect::<Vec<_>>(), [("keyd", Duration::from_millis(5))]);
    }
}
