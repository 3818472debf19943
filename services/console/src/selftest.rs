use std::process::{Command, Stdio};

use casemate_hsm_api::TokenInfo;
use casemate_keyring::Status;
use casemate_post::{FipsStanding, FipsStatus, Outcome, Report, TokenStanding, boot_id};
use nix::unistd::geteuid;
use serde::Serialize;

use crate::{ConsoleError, Out, hsm, json, node::Node, table::Table, text::plain};

/// `casemate selftest run`: has `casemate-postd` run, which leaves a new report.
pub(crate) fn run(node: &Node, as_json: bool, out: Out<'_>) -> Result<(), ConsoleError> {
    let uid = geteuid().as_raw();
    // A developer's lab without root runs every daemon, and so this too, under one user.
    if uid != 0 && node.config.daemons_of(uid).next().is_none() {
        return Err(ConsoleError::NotRoot);
    }
    let program = node.config.paths.bin.join("casemate-postd");
    let mut command = Command::new(&program);
    command.arg("--config").arg(&node.path).stdin(Stdio::null());
    if as_json {
        command.stdout(Stdio::null());
    }
    let status = command.status().map_err(|source| ConsoleError::Program { program: program.clone(), source })?;
    if as_json {
        json::print(&Report::read(&node.config.paths.post_report())?, out)?;
    }
    if status.success() { Ok(()) } else { Err(ConsoleError::ProgramFailed { program, status }) }
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Shown {
    passed: bool,
    /// Why it does not count as passed now.
    reason: Option<String>,
    report: Report,
    broker: Option<String>,
    fips: FipsStatus,
}

/// `casemate selftest status`.
pub(crate) fn status(node: &Node, as_json: bool, out: Out<'_>) -> Result<(), ConsoleError> {
    let report = Report::read(&node.config.paths.post_report())?;
    let broker = hsm::status(node);
    let shown = Shown::of(report, &boot_id()?, broker.as_ref().ok());
    if as_json {
        json::print(&shown, out)?;
    } else {
        write!(out, "{}", shown.render())?;
        if let Err(error) = &broker {
            writeln!(out, "\nthe token could not be asked: {error}")?;
        }
    }
    shown.reason.map_or(Ok(()), |reason| Err(ConsoleError::NotPassed(reason)))
}

impl Shown {
    fn of(report: Report, boot_id: &str, broker: Option<&Status>) -> Self {
        let reason = match report.failure() {
            Some((test, reason)) => Some(format!("{test}: {reason}")),
            None if report.boot_id != boot_id => Some("the report is of an earlier boot".to_owned()),
            None => None,
        };
        let fips = FipsStatus::of(report.certificate.clone(), tokens(broker));
        Self { passed: reason.is_none(), reason, broker: broker.map(|status| hsm::state(&status.state)), report, fips }
    }

    fn render(&self) -> String {
        let result = self.reason.as_ref().map_or("passed".to_owned(), |reason| format!("FAILED, {}", plain(reason)));
        let report = &self.report;
        let mut tests = Table::new(&["PART", "TEST", "MICROSECONDS", "RESULT"]);
        for test in &report.tests {
            let result = match &test.outcome {
                Outcome::Passed => "passed".to_owned(),
                Outcome::Failed { reason } => format!("FAILED: {reason}"),
                Outcome::NotRun { reason } => format!("not run: {reason}"),
            };
            let part = serde_json::to_value(test.group).ok();
            let part = part.as_ref().and_then(|part| part.as_str()).unwrap_or_default();
            tests.row(&[part, &test.name, &test.duration_us.to_string(), &result]);
        }
        format!(
            "power-on self-test  {result}\nrun                 {} at {}, own tests {} us, all {} us\n\n{tests}\n{}",
            report.run_id,
            report.started_at,
            report.own_tests_us,
            report.total_us,
            render_fips(&self.fips, self.broker.as_deref()),
        )
    }
}

/// The standing of all tokens together: the lowest.
fn tokens(broker: Option<&Status>) -> TokenStanding {
    let tokens = broker.map(|status| status.tokens.as_slice()).unwrap_or_default();
    let each = tokens.iter().map(|token| {
        let of = |info: &TokenInfo| TokenStanding::of(&info.manufacturer, &info.model);
        token.info.as_ref().map_or_else(TokenStanding::unknown, of)
    });
    let together = |one: TokenStanding, next: TokenStanding| TokenStanding {
        token: format!("{}, {}", one.token, next.token),
        standing: one.standing.min(next.standing),
        reason: format!("{}; {}", one.reason, next.reason),
    };
    each.reduce(together).unwrap_or_else(TokenStanding::unknown)
}

fn render_fips(fips: &FipsStatus, broker: Option<&str>) -> String {
    let module = &fips.module;
    let matches = if module.version_matches { "yes" } else { "no" };
    let lines = [
        ("module", module.reported_version.clone()),
        (
            "certificate",
            format!("#{} {}, {}", module.certificate, module.certificate_module, module.certificate_version),
        ),
        ("published at", module.certificate_url.clone()),
        ("versions match", matches.to_owned()),
        ("version", standing(module.version).to_owned()),
        ("build", standing(module.build).to_owned()),
        ("environment", standing(module.operating_environment).to_owned()),
        ("key broker", broker.unwrap_or("not reached").to_owned()),
        ("token", format!("{}: {} ({})", fips.token.token, standing(fips.token.standing), fips.token.reason)),
        ("whole", standing(fips.whole).to_owned()),
    ];
    lines.map(|(name, value)| format!("{name:<14}  {}\n", plain(&value))).concat()
}

const fn standing(standing: FipsStanding) -> &'static str {
    match standing {
        FipsStanding::Unvalidated => "Unvalidated",
        FipsStanding::NotAsCertified => "not as certified",
        FipsStanding::Certified => "certified",
    }
}

#[cfg(test)]
mod tests {
    use casemate_keyring::BrokerState;

    use super::*;

    fn report() -> Report {
        let tests = ["integrity", "daemons", "module", "known-answers", "entropy"].map(|group| {
            serde_json::json!({ "group": group, "name": "n", "source": "s", "duration-us": 7, "result": "passed" })
        });
        serde_json::from_value(serde_json::json!({
            "boot-id": "b", "run-id": "r", "started-at": "2026-01-02T03:04:05Z", "module-version": "AWS-LC FIPS 3.6.0",
            "certificate": casemate_post::CertificateClaim::of("AWS-LC FIPS 3.6.0", true),
            "entropy": {"source": "s", "seeds": "n", "min-entropy": 0.5, "alpha-exponent": 30, "samples": 1024},
            "tests": tests,
            "own-tests-us": 21, "total-us": 35, "binaries": {}, "passed": true
        }))
        .unwrap()
    }

    fn status() -> Status {
        Status {
            state: BrokerState::Serving,
            tokens: vec![hsm::tests::serving()],
            keys: Vec::new(),
            next: Vec::new(),
            retired: Vec::new(),
            recorded: 0,
        }
    }

    #[test]
    fn a_token_in_software_makes_the_whole_unvalidated_and_versions_are_held_side_by_side() {
        let text = Shown::of(report(), "b", Some(&status())).render();
        for line in [
            "power-on self-test  passed",
            "known-answers  n     7             passed",
            "module          AWS-LC FIPS 3.6.0",
            "certificate     #5314 AWS-LC Cryptographic Module (static), AWS-LC FIPS 3.1.0",
            "versions match  no",
            "version         not as certified",
            "key broker      serving",
            "whole           Unvalidated",
        ] {
            assert!(text.lines().any(|found| found == line), "{line:?} is not in\n{text}");
        }
        assert!(text.contains("token           SoftHSM project SoftHSM v2: Unvalidated (SoftHSM"), "{text}");
    }

    #[test]
    fn no_broker_claims_nothing() {
        let shown = Shown::of(report(), "b", None);
        assert_eq!(shown.fips.whole, FipsStanding::Unvalidated);
        assert!(shown.render().contains("key broker      not reached"));
    }

    #[test]
    fn a_failure_and_a_report_of_another_boot_are_no_pass() {
        assert!(Shown::of(report(), "b", None).passed);
        assert!(!Shown::of(report(), "c", None).passed);
        let mut failed = report();
        if let Some(test) = failed.tests.last_mut() {
            test.outcome = Outcome::Failed { reason: "stuck".into() };
        }
        let shown = Shown::of(failed, "b", None);
        assert!(!shown.passed);
        assert!(shown.render().contains("FAILED: stuck"));
    }
}
