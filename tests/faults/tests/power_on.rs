//! What is broken is found at power-on, is named, and starts nothing.
#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use std::{fs, mem::discriminant, os::unix::fs::PermissionsExt, path::Path, process::Command};

use casemate_harness::{DAEMONS, Lab, LabSettings, programs};
use casemate_kat::Vector;
use serde_json::Value;

/// A lab with everything installed and nothing started; a daemon that ends stays ended.
fn lab(name: &str) -> Lab {
    Lab::prepare(LabSettings { restart: false, ..LabSettings::for_test(name) }).unwrap()
}

/// Runs the power-on self-test with a fault: whether it passed, and what it printed.
fn power_on(lab: &Lab, fault: &[&str]) -> (bool, String) {
    let mut command = Command::new(programs().join("casemate-postd-with-fault"));
    let output = command.arg(lab.layout.config()).args(fault).output().unwrap();
    assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn report(lab: &Lab) -> Value {
    serde_json::from_slice(&fs::read(lab.layout.run().join("post.json")).unwrap()).unwrap()
}

/// The names of the tests in the report that did not pass, each with its reason.
fn failures(lab: &Lab) -> Vec<(String, String)> {
    let report = report(lab);
    assert_eq!(report["passed"], false, "a report with a failed test says that it passed");
    let text = |test: &Value, field: &str| test[field].as_str().unwrap_or_default().to_owned();
    let tests = report["tests"].as_array().unwrap();
    let failed = tests.iter().filter(|test| test["result"] != "passed");
    failed.map(|test| (text(test, "name"), text(test, "reason"))).collect()
}

/// That the last run was audited as failed at `test`, once.
fn audited_failure(lab: &Lab, run: usize, test: &str) {
    let failed = lab.audited("PostFailed").unwrap();
    assert_eq!(failed.len(), run, "one event a run: {failed:?}");
    assert_eq!(failed[run - 1]["CASEMATE_TEST"], test);
    assert_eq!(failed[run - 1]["CASEMATE_RUN_ID"], report(lab)["run-id"]);
}

fn nothing_starts(lab: &Lab) {
    for (daemon, _) in DAEMONS {
        assert!(lab.start_daemon(daemon).is_err(), "casemate-{daemon} starts after a failed self-test");
        assert!(!lab.layout.run().join(format!("{daemon}.sock")).exists(), "casemate-{daemon} listens");
    }
    assert_eq!(lab.audited("ServiceRefused").unwrap().len(), DAEMONS.len());
    assert!(lab.audited("ServiceStarted").unwrap().is_empty());
}

/// One vector of each kind of test.
fn one_of_each() -> Vec<Vector> {
    let mut kinds = Vec::new();
    casemate_kat::published()
        .into_iter()
        .filter(|vector| {
            let kind = discriminant(&vector.test);
            let is_new = !kinds.contains(&kind);
            kinds.push(kind);
            is_new
        })
        .collect()
}

#[test]
fn a_flipped_vector_of_any_kind_is_named_and_starts_nothing() {
    let lab = lab("power-on-vector");
    let vectors = one_of_each();
    assert_eq!(vectors.len(), 9, "a kind of test has no vector, or this test does not know it");
    for (run, vector) in vectors.iter().enumerate() {
        let (passed, printed) = power_on(&lab, &["vector", vector.name]);
        assert!(!passed && printed.contains(&format!("FAILED at {}", vector.name)), "{printed}");
        let failed: Vec<_> = failures(&lab).into_iter().map(|(name, _)| name).collect();
        assert_eq!(failed, [vector.name], "that test fails and no other");
        audited_failure(&lab, run + 1, vector.name);
    }
    nothing_starts(&lab);
}

#[test]
fn a_stuck_and_a_biased_noise_source_are_named_and_start_nothing() {
    let lab = lab("power-on-noise");
    for (run, (fault, health_test)) in
        [("stuck", "repetition count"), ("biased", "adaptive proportion")].iter().enumerate()
    {
        let (passed, printed) = power_on(&lab, &[fault]);
        assert!(!passed && printed.contains("FAILED at CPU jitter"), "{fault}: {printed}");
        let failed = failures(&lab);
        let [(name, reason)] = &failed[..] else { panic!("{fault}: {failed:?}") };
        assert!(name.starts_with("CPU jitter") && reason.contains(health_test), "{fault}: {name}: {reason}");
        audited_failure(&lab, run + 1, name);
    }
    nothing_starts(&lab);
}

/// The test program refuses because of its faults and for no other reason.
#[test]
fn the_same_program_without_a_fault_passes_and_clears_a_failure() {
    let lab = lab("power-on-none");
    assert!(!power_on(&lab, &["stuck"]).0);
    let (passed, printed) = power_on(&lab, &["none"]);
    assert!(passed, "{printed}");
    assert_eq!(report(&lab)["passed"], true);
    assert_eq!(lab.audited("PostPassed").unwrap().len(), 1);
    lab.start_daemon("keyd").unwrap();
}

/// Changes one bit of a constant inside the FIPS module of `program`, so that the module's integrity test fails.
fn break_module(program: &Path) {
    let mut content = fs::read(program).unwrap();
    // The first two of SHA-512's round constants (FIPS 180-4, 4.2.3), little-endian, as they lie in the module.
    let constants = [0x428a_2f98_d728_ae22_u64, 0x7137_4491_23ef_65cd].map(u64::to_le_bytes).concat();
    let at = content.windows(constants.len()).position(|window| window == constants).unwrap();
    content[at] ^= 1;
    fs::remove_file(program).unwrap();
    fs::write(program, content).unwrap();
    fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The manifest vouches for the broken program, so only running it tells.
#[test]
fn a_daemon_whose_module_is_broken_aborts_and_its_signal_is_recorded() {
    let lab = lab("power-on-module");
    break_module(&lab.layout.bin().join("casemate-tvs"));
    lab.postd(&["--write-manifest"]).unwrap();
    let refused = lab.postd(&[]).unwrap_err().to_string();
    assert!(refused.contains("FAILED at casemate-tvs"), "{refused}");
    let failed = failures(&lab);
    let [(name, reason)] = &failed[..] else { panic!("{failed:?}") };
    assert!(name == "casemate-tvs" && reason.contains("SIGABRT"), "{name}: {reason}");
    audited_failure(&lab, 1, "casemate-tvs");
    // The broken one cannot even say why it does not start.
    for (daemon, _) in DAEMONS {
        assert!(lab.start_daemon(daemon).is_err(), "casemate-{daemon} starts after a failed self-test");
    }
    assert_eq!(lab.audited("ServiceRefused").unwrap().len(), DAEMONS.len() - 1);
}
