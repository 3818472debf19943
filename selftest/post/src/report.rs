//! `post.json`: what the power-on self-test found.

use std::{collections::BTreeMap, fmt, fs, path::Path, time::Duration};

use casemate_entropy::{Cutoffs, NoiseSource};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{CertificateClaim, PostError, file};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The part of the power-on self-test that a test belongs to, in the order in which they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// The installed binaries against the manifest.
    Integrity,
    /// Each daemon's own `--self-test`, as a process of its own.
    Daemons,
    /// The module's tests in the process of the power-on self-test.
    Module,
    /// Published answers.
    KnownAnswers,
    /// The start-up test of the noise source.
    Entropy,
}

impl Group {
    /// All of them: a report that lacks one has not passed.
    pub const ALL: [Self; 5] = [Self::Integrity, Self::Daemons, Self::Module, Self::KnownAnswers, Self::Entropy];

    /// Whether the time it takes is that of this process's own tests, and not that of the disk or of other processes.
    #[must_use]
    pub const fn is_own(self) -> bool {
        matches!(self, Self::Module | Self::KnownAnswers | Self::Entropy)
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Integrity => "integrity",
            Self::Daemons => "daemon",
            Self::Module => "module",
            Self::KnownAnswers => "known answer",
            Self::Entropy => "entropy",
        })
    }
}

/// How a test ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum Outcome {
    /// As it must.
    Passed,
    /// Not as it must.
    Failed {
        /// Why.
        reason: String,
    },
    /// Something before it failed. Counts as failed.
    NotRun {
        /// What.
        reason: String,
    },
}

/// One test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TestRecord {
    /// Which part.
    pub group: Group,
    /// What was tested.
    pub name: String,
    /// Against what: a URL, a file, a section of a standard.
    pub source: String,
    /// How long it took, in microseconds.
    pub duration_us: u64,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
}

impl TestRecord {
    pub(crate) fn new(
        group: Group,
        name: impl Into<String>,
        source: impl Into<String>,
        elapsed: Duration,
        result: Result<(), PostError>,
    ) -> Self {
        let outcome = match result {
            Ok(()) => Outcome::Passed,
            Err(error) => Outcome::Failed { reason: error.to_string() },
        };
        Self { group, name: name.into(), source: source.into(), duration_us: micros(elapsed), outcome }
    }

    /// Why it did not pass; nothing if it did.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Passed => None,
            Outcome::Failed { reason } | Outcome::NotRun { reason } => Some(reason),
        }
    }
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// What the noise source is, what it claims, and what it is for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct EntropyStatement {
    /// The source.
    pub source: String,
    /// What it seeds and what it does not.
    pub seeds: String,
    /// Claimed min-entropy, in bits a sample.
    pub min_entropy: f64,
    /// n in a false-positive probability of 2^-n.
    pub alpha_exponent: u8,
    /// The cutoffs that follow from these two; none where the claim allows no test, which then fails.
    pub repetition_count_cutoff: Option<u32>,
    /// The same for the adaptive proportion test.
    pub adaptive_proportion_cutoff: Option<u32>,
    /// How many samples the start-up test demanded.
    pub samples: usize,
}

impl EntropyStatement {
    pub(crate) fn of(source: &dyn NoiseSource, samples: usize) -> Self {
        let claim = source.claim();
        let cutoffs = Cutoffs::of(&claim).ok();
        Self {
            source: source.name().to_owned(),
            seeds: source.seeds().to_owned(),
            min_entropy: claim.min_entropy(),
            alpha_exponent: claim.alpha_exponent(),
            repetition_count_cutoff: cutoffs.map(|cutoffs| cutoffs.repetition_count),
            adaptive_proportion_cutoff: cutoffs.map(|cutoffs| cutoffs.adaptive_proportion),
            samples,
        }
    }
}

/// The report of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Report {
    /// The kernel's id of this boot.
    pub boot_id: String,
    /// 16 random bytes in hexadecimal: which run of this boot.
    pub run_id: String,
    /// When it began.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// What the module calls itself.
    pub module_version: String,
    /// How that stands to the certificate.
    pub certificate: CertificateClaim,
    /// The noise source.
    pub entropy: EntropyStatement,
    /// Every test, in order.
    pub tests: Vec<TestRecord>,
    /// How long the tests of this process took together ([`Group::is_own`]), in microseconds.
    pub own_tests_us: u64,
    /// How long everything took, in microseconds.
    pub total_us: u64,
    /// SHA-256 of each installed binary that was proven, by file name.
    pub binaries: BTreeMap<String, String>,
    /// Whether every part ran and every test passed.
    pub passed: bool,
}

impl Report {
    /// Reads a report, if nobody but root and this process's user could have written it. Whether it says that the tests
    /// passed is not asked here.
    ///
    /// # Errors
    /// [`PostError::NoReport`] where there is none; [`PostError::File`], [`PostError::NotTrusted`],
    /// [`PostError::NotAFile`], [`PostError::Damaged`].
    pub fn read(path: &Path) -> Result<Self, PostError> {
        if let Err(error) = fs::symlink_metadata(path)
            && error.kind() == std::io::ErrorKind::NotFound
        {
            return Err(PostError::NoReport { path: path.to_owned() });
        }
        serde_json::from_slice(&file::read_trusted(path)?)
            .map_err(|source| PostError::Damaged { path: path.to_owned(), source })
    }

    /// Writes the report with mode 0644, as a whole or not at all.
    ///
    /// # Errors
    /// [`PostError::File`].
    pub fn write(&self, path: &Path) -> Result<(), PostError> {
        let mut json =
            serde_json::to_vec_pretty(self).map_err(|source| PostError::Damaged { path: path.to_owned(), source })?;
        json.push(b'\n');
        file::write_atomic(path, &json)
    }

    /// Removes a report; the first thing that a new run does.
    ///
    /// # Errors
    /// [`PostError::File`], but not where there was none.
    pub fn remove(path: &Path) -> Result<(), PostError> {
        file::remove(path)
    }

    /// The first thing that keeps this report from having passed, as (test, reason).
    #[must_use]
    pub fn failure(&self) -> Option<(String, String)> {
        // A part that was not run has its cause elsewhere in the list; that is named first.
        let failed = self.tests.iter().find(|test| matches!(test.outcome, Outcome::Failed { .. }));
        let failed = failed.or_else(|| self.tests.iter().find(|test| test.failure().is_some()));
        if let Some(test) = failed {
            return Some((test.name.clone(), test.failure().unwrap_or_default().to_owned()));
        }
        let missing = Group::ALL.into_iter().find(|group| self.tests.iter().all(|test| test.group != *group));
        if let Some(group) = missing {
            return Some((group.to_string(), "this part was left out".to_owned()));
        }
        (!self.passed).then(|| ("the whole".to_owned(), "the report says that it did not pass".to_owned()))
    }
}

/// The kernel's id of this boot.
///
/// # Errors
/// [`PostError::File`] where `/proc` is not mounted.
pub fn boot_id() -> Result<String, PostError> {
    let text = fs::read_to_string(BOOT_ID).map_err(PostError::file(BOOT_ID))?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A report of this boot in which everything passed.
    pub(crate) fn passed() -> Report {
        let test =
            |group| TestRecord::new(group, group.to_string(), "https://example.org", Duration::from_micros(5), Ok(()));
        Report {
            boot_id: boot_id().unwrap(),
            run_id: "00".repeat(16),
            started_at: time::macros::datetime!(2026-01-02 03:04:05 UTC),
            module_version: crate::module_version(),
            certificate: CertificateClaim::of(&crate::module_version(), true),
            entropy: EntropyStatement::of(&casemate_entropy::CpuJitter::new(), 1024),
            tests: Group::ALL.map(test).to_vec(),
            own_tests_us: 15,
            total_us: 25,
            binaries: BTreeMap::from([("casemate-keyd".to_owned(), "00".repeat(32))]),
            passed: true,
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/post.json");
        let mut report = passed();
        report.tests[1].outcome = Outcome::Failed { reason: "a \"reason\"\n".into() };
        report.tests[2].outcome = Outcome::NotRun { reason: "x".into() };
        report.write(&path).unwrap();
        assert_eq!(Report::read(&path).unwrap(), report);
        Report::remove(&path).unwrap();
        Report::remove(&path).unwrap();
        assert!(matches!(Report::read(&path), Err(PostError::NoReport { .. })));
    }

    #[test]
    fn one_test_is_named_with_its_result_in_the_file() {
        let mut report = passed();
        report.tests[4].outcome = Outcome::Failed { reason: "stuck".into() };
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(
            json["tests"][4],
            serde_json::json!({
                "group": "entropy", "name": "entropy", "source": "https://example.org", "duration-us": 5,
                "result": "failed", "reason": "stuck"
            })
        );
        assert_eq!(json["started-at"], "2026-01-02T03:04:05Z");
        // H = 0.5 and 2^-30: 1 + 30 / 0.5, and what casemate-entropy's own tests hold against published numbers.
        assert_eq!(json["entropy"]["repetition-count-cutoff"], 61);
    }

    #[test]
    fn a_report_that_passed_has_every_part_and_no_failure() {
        assert_eq!(passed().failure(), None);
        for index in 0..Group::ALL.len() {
            let mut report = passed();
            report.tests.remove(index);
            assert!(report.failure().is_some_and(|(name, _)| name == Group::ALL[index].to_string()));
            let mut report = passed();
            report.tests[index].outcome = Outcome::NotRun { reason: "because".into() };
            assert_eq!(report.failure().unwrap().1, "because");
        }
        let mut report = passed();
        report.passed = false;
        assert!(report.failure().is_some());
    }

    #[test]
    fn a_failure_is_named_before_what_was_not_run_because_of_it() {
        let mut report = passed();
        report.tests[0].outcome = Outcome::NotRun { reason: "not run".into() };
        report.tests[1].outcome = Outcome::Failed { reason: "the cause".into() };
        assert_eq!(report.failure().unwrap().1, "the cause");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = serde_json::from_slice::<Report>(&bytes);
        }
    }
}
