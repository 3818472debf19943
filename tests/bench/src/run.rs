use std::{path::PathBuf, time::Duration};

use casemate_harness::{DAEMONS, Lab, LabSettings, programs};
use casemate_post::Report as PostReport;

use crate::{
    BenchError,
    bare_token::BareToken,
    load,
    report::{Goal, Report},
};

/// Runs of the power-on self-test; the slowest counts.
const SELF_TESTS: usize = 5;

/// How much is measured.
pub(crate) struct Extent {
    /// Phones that are added, and so signed files.
    pub(crate) phones: usize,
    /// How long the bare token signs, each time.
    pub(crate) bare: Duration,
}

/// Takes the numbers of phones and files into `report`, saying on standard error what is being done.
pub(crate) fn run(extent: &Extent, report: &mut Report) -> Result<(), BenchError> {
    let folder = folder();
    let token = BareToken::create(folder.join("bare-token"))?;
    let lab = Lab::prepare(LabSettings::new(folder.join("lab")))?;
    say("the power-on self-test");
    let own_tests = own_tests(&lab)?;
    lab.start_daemons()?;
    lab.casemate(&["provision"])?;
    lab.wait_for_trust_list()?;
    let idle = memory(&lab);
    let measured = load::measure(&lab, extent.phones, || {
        say("the bare token");
        token.rate(extent.bare)
    })?;
    let loaded = memory(&lab);
    measured.tell(report);
    report.hold(
        format!("power-on self-test: our own tests, slowest of {SELF_TESTS}"),
        own_tests,
        "ms",
        Goal::Under(150.0),
    );
    for ((daemon, idle), (_, loaded)) in idle.iter().zip(&loaded) {
        report.note(format!("memory of {daemon}, idle"), *idle, "MiB");
        report.note(format!("memory of {daemon}, after it all"), *loaded, "MiB");
    }
    Ok(())
}

/// Where the labs lie: beside the programs, where other users can reach the daemons' folders.
pub(crate) fn folder() -> PathBuf {
    let programs = programs();
    programs.parent().map_or(PathBuf::from("target"), |target| target.join("bench"))
}

/// Says what is being done, on standard error: standard output is the table's.
pub(crate) fn say(what: &str) {
    eprintln!("bench: {what} ...");
}

/// Milliseconds that the self-test's own tests took, the slowest of several runs.
fn own_tests(lab: &Lab) -> Result<f64, BenchError> {
    let mut slowest = 0;
    for _ in 0..SELF_TESTS {
        lab.postd(&[])?;
        slowest = slowest.max(PostReport::read(&lab.layout.run().join("post.json"))?.own_tests_us);
    }
    Ok(Duration::from_micros(slowest).as_secs_f64() * 1e3)
}

/// Resident memory of every daemon in MiB.
fn memory(lab: &Lab) -> Vec<(&'static str, f64)> {
    let mebibytes = |daemon| lab.memory(daemon).map_or(f64::NAN, |bytes| bytes as f64 / f64::from(1 << 20));
    DAEMONS.iter().map(|(daemon, _)| (*daemon, mebibytes(daemon))).collect()
}
