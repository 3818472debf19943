//! The report for a person.

use std::io::{self, Write};

use casemate_post::{Outcome, Report};

/// One line a test, then what the noise source is for, how the module stands to its certificate, and the result.
pub(crate) fn report(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    for test in &report.tests {
        let millis = millis(test.duration_us);
        let (group, name) = (test.group, &test.name);
        match &test.outcome {
            Outcome::Passed => writeln!(out, "ok       {millis:>10}  {group:12}  {name}")?,
            Outcome::Failed { reason } => writeln!(out, "FAILED   {millis:>10}  {group:12}  {name}: {reason}")?,
            Outcome::NotRun { reason } => writeln!(out, "not run  {:>10}  {group:12}  {name}: {reason}", "")?,
        }
    }
    let claim = &report.certificate;
    writeln!(out, "{}", report.entropy.seeds)?;
    writeln!(
        out,
        "module reports {}, certificate #{} validates {}: {}",
        claim.reported_version,
        claim.certificate,
        claim.certificate_version,
        if claim.version_matches { "the same version" } else { "not the same version" }
    )?;
    let count = report.tests.len();
    match report.failure() {
        None => writeln!(
            out,
            "power-on self-test passed: {count} tests, {} of our own, {} in all",
            millis(report.own_tests_us),
            millis(report.total_us)
        ),
        Some((test, reason)) => writeln!(out, "power-on self-test FAILED at {test}: {reason}"),
    }
}

/// Microseconds as milliseconds with two digits.
fn millis(micros: u64) -> String {
    format!("{}.{:02} ms", micros / 1000, micros % 1000 / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn microseconds_read_as_milliseconds() {
        assert_eq!(millis(0), "0.00 ms");
        assert_eq!(millis(9), "0.00 ms");
        assert_eq!(millis(1_234), "1.23 ms");
        assert_eq!(millis(150_050), "150.05 ms");
    }
}
