#![forbid(unsafe_code)]
//! Runs the power-on self-test, leaves its report for the daemons, records how it ended.
//!
//! [`power_on`] takes the vectors and the noise source as arguments, so that a test-only program can run it with a flipped
//! vector or a stuck source and see that nothing else would start; the shipped program gives [`casemate_kat::published`] and
//! [`casemate_entropy::CpuJitter`].

mod print;
mod settings;

use std::io::{self, Write};

use casemate_audit::{AuditError, Auditor, Event};
use casemate_entropy::NoiseSource;
use casemate_kat::Vector;
use casemate_post::{Manifest, PostError, Report};
use casemate_runtime::config::{Config, ConfigError};

pub use settings::PostdSettings;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum PostdError {
    /// The settings cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The result could not be recorded: an installation whose self-test leaves no trace does not start.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The old report could not be removed, or the new one not made or written.
    #[error(transparent)]
    Post(#[from] PostError),
}

/// Runs the power-on self-test: removes the report of an earlier run before anything else, runs every part, writes the new
/// report whether it passed or not, audits, and prints a line a test to `out`.
///
/// # Errors
/// [`PostdError`] where there can be no report. A test that failed is not an error: it stands in the report
/// ([`Report::failure`]).
pub fn power_on(
    config: &Config,
    vectors: &[Vector],
    source: &mut dyn NoiseSource,
    out: &mut dyn Write,
) -> Result<Report, PostdError> {
    let path = config.paths.post_report();
    Report::remove(&path)?;
    let settings: PostdSettings = config.section("postd")?;
    let auditor = Auditor::open("casemate-postd", &config.audit)?;
    let report = run_and_write(config, &settings, vectors, source).inspect_err(|error| {
        auditor.record(&failed("", "power-on self-test", &error.to_string()));
    })?;
    auditor.record(&match report.failure() {
        None => Event::PostPassed {
            run_id: report.run_id.clone(),
            tests: report.tests.len(),
            own_micros: report.own_tests_us,
        },
        Some((test, reason)) => failed(&report.run_id, &test, &reason),
    });
    // The report is written and the result audited; a closed standard output takes nothing away from either.
    let _: io::Result<()> = print::report(&report, out);
    Ok(report)
}

fn run_and_write(
    config: &Config,
    settings: &PostdSettings,
    vectors: &[Vector],
    source: &mut dyn NoiseSource,
) -> Result<Report, PostError> {
    let report = casemate_post::run(&settings.of(&config.paths.bin), vectors, source)?;
    report.write(&config.paths.post_report())?;
    Ok(report)
}

fn failed(run_id: &str, test: &str, reason: &str) -> Event {
    Event::PostFailed { run_id: run_id.to_owned(), test: test.to_owned(), reason: reason.to_owned() }
}

/// Writes the manifest of the folder of binaries that `config` names; whoever installs them calls this once.
///
/// # Errors
/// The folder cannot be read or written, or holds no binary.
pub fn write_manifest(config: &Config) -> Result<Manifest, PostdError> {
    let manifest = Manifest::of(&config.paths.bin)?;
    manifest.write(&config.paths.bin)?;
    Ok(manifest)
}
