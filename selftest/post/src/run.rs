//! The power-on self-test itself.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use casemate_entropy::{NoiseSource, STARTUP_SAMPLES, Verdict, startup_test};
use casemate_kat::Vector;
use time::OffsetDateTime;

use crate::{
    CertificateClaim, EntropyStatement, Group, MANIFEST_FILE, Manifest, Outcome, PostError, Report, TestRecord, daemon,
    module,
    report::{boot_id, micros},
};

/// What a run needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The folder of the installed binaries and their manifest.
    pub bin: PathBuf,
    /// How long a daemon's `--self-test` may take.
    pub self_test_timeout: Duration,
    /// How many daemons test themselves at the same time; at least one.
    pub parallel: usize,
    /// Over how many samples the start-up test of the noise source runs.
    pub samples: usize,
}

impl Settings {
    /// The defaults, for the binaries in `bin`: 10 s, two at a time, 1,024 samples.
    #[must_use]
    pub fn new(bin: impl Into<PathBuf>) -> Self {
        Self { bin: bin.into(), self_test_timeout: Duration::from_secs(10), parallel: 2, samples: STARTUP_SAMPLES }
    }
}

/// Runs every part and returns what was found, whatever was found. Neither prints nor writes.
///
/// A part that fails does not keep the next from running, so that the report names all that is broken, with two exceptions:
/// a binary that the manifest does not vouch for is not executed, and answers of a module that failed its own tests are not
/// asked for.
///
/// # Errors
/// Only where there can be no report: [`PostError::File`] (boot id), [`PostError::NoRandom`] (run id).
pub fn run(settings: &Settings, vectors: &[Vector], source: &mut dyn NoiseSource) -> Result<Report, PostError> {
    let started_at = OffsetDateTime::now_utc();
    let start = Instant::now();
    let boot_id = boot_id()?;
    let mut run_id = [0; 16];
    aws_lc_rs::rand::fill(&mut run_id).map_err(|_| PostError::NoRandom)?;

    let (mut tests, proven) = integrity(settings);
    tests.extend(daemons(settings, &proven));
    tests.extend(of_module());
    let healthy = tests.iter().all(|test| test.group != Group::Module || test.failure().is_none());
    tests.extend(if healthy { known_answers(vectors) } else { vec![not_run(Group::KnownAnswers)] });
    tests.push(entropy(settings, source));

    let own = tests.iter().filter(|test| test.group.is_own()).map(|test| test.duration_us).sum();
    let passed = tests.iter().all(|test| test.failure().is_none());
    Ok(Report {
        boot_id,
        run_id: hex::encode(run_id),
        started_at,
        module_version: module::module_version(),
        certificate: CertificateClaim::of_this_process(),
        entropy: EntropyStatement::of(source, settings.samples),
        tests,
        own_tests_us: own,
        total_us: micros(start.elapsed()),
        binaries: proven.into_iter().map(|(name, binary)| (name, binary.sha256)).collect(),
        passed,
    })
}

fn timed(
    group: Group,
    name: impl Into<String>,
    source: impl Into<String>,
    test: impl FnOnce() -> Result<(), PostError>,
) -> TestRecord {
    let start = Instant::now();
    let result = test();
    TestRecord::new(group, name, source, start.elapsed(), result)
}

fn not_run(group: Group) -> TestRecord {
    TestRecord {
        group,
        name: group.to_string(),
        source: String::new(),
        duration_us: 0,
        outcome: Outcome::NotRun { reason: "what it rests on failed".to_owned() },
    }
}

/// The installed binaries, and those of them that are what the manifest says.
fn integrity(settings: &Settings) -> (Vec<TestRecord>, BTreeMap<String, crate::Binary>) {
    let bin = &settings.bin;
    let manifest_path = bin.join(MANIFEST_FILE);
    let start = Instant::now();
    let read = Manifest::read(bin).and_then(|manifest| Ok((manifest.names(bin)?, manifest)));
    let (names, manifest) = match read {
        Ok(read) => read,
        Err(error) => {
            let source = manifest_path.display().to_string();
            let record = TestRecord::new(Group::Integrity, "manifest", source, start.elapsed(), Err(error));
            return (vec![record], BTreeMap::new());
        }
    };
    let mut records = Vec::new();
    let mut proven = BTreeMap::new();
    for name in names {
        let source = manifest_path.display().to_string();
        let record = timed(Group::Integrity, &*name, source, || manifest.check(bin, &name));
        if record.failure().is_none()
            && let Some(binary) = manifest.binaries.get(&name)
        {
            proven.insert(name, binary.clone());
        }
        records.push(record);
    }
    (records, proven)
}

/// Runs the `--self-test` of each proven daemon, a few at a time.
fn daemons(settings: &Settings, proven: &BTreeMap<String, crate::Binary>) -> Vec<TestRecord> {
    let names: Vec<_> = proven.iter().filter(|(_, binary)| binary.self_test).map(|(name, _)| name).collect();
    if names.is_empty() {
        return vec![not_run(Group::Daemons)];
    }
    let next = AtomicUsize::new(0);
    let records = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..settings.parallel.clamp(1, names.len()) {
            scope.spawn(|| {
                while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let record = timed(Group::Daemons, name.as_str(), "--self-test", || {
                        daemon::self_test(&settings.bin, name, settings.self_test_timeout)
                    });
                    records.lock().unwrap_or_else(PoisonError::into_inner).push(record);
                }
            });
        }
    });
    let mut records = records.into_inner().unwrap_or_else(PoisonError::into_inner);
    records.sort_by(|a: &TestRecord, b| a.name.cmp(&b.name));
    records
}

fn of_module() -> Vec<TestRecord> {
    let test = |name: &str, source: &str, test: fn() -> Result<(), PostError>| timed(Group::Module, name, source, test);
    vec![
        test("FIPS build", "FIPS_mode", || module::is_fips().then_some(()).ok_or(PostError::ModuleNotFips)),
        test("module integrity", "BORINGSSL_integrity_test (FIPS 140-3 IG 10.2.A)", module::integrity_test),
        test("module self-test", "BORINGSSL_self_test (FIPS 140-3 IG 10.3.A)", module::self_test_of_module),
    ]
}

fn known_answers(vectors: &[Vector]) -> Vec<TestRecord> {
    if vectors.is_empty() {
        return vec![timed(Group::KnownAnswers, "vectors", "casemate-kat", || Err(PostError::NothingToTest))];
    }
    casemate_kat::run(vectors)
        .into_iter()
        .map(|outcome| {
            let result = outcome.result.map_err(PostError::from);
            TestRecord::new(Group::KnownAnswers, outcome.name, outcome.source, outcome.elapsed, result)
        })
        .collect()
}

fn entropy(settings: &Settings, source: &mut dyn NoiseSource) -> TestRecord {
    timed(Group::Entropy, source.name(), "NIST SP 800-90B, 4.3 and 4.4 (start-up RCT and APT)", || match startup_test(
        source,
        settings.samples,
    )? {
        Verdict::Passed { .. } => Ok(()),
        Verdict::Failed(failure) => Err(failure.into()),
    })
}
