//! The self-tests come first: what is broken starts nothing.
#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use std::{fs, path::Path};

use casemate_harness::{DAEMONS, Lab, LabSettings};

fn report(lab: &Lab) -> serde_json::Value {
    serde_json::from_slice(&fs::read(lab.layout.run().join("post.json")).unwrap()).unwrap()
}

fn flip_a_byte(program: &Path) {
    let mut content = fs::read(program).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    // A program that runs cannot be written to, so it is replaced, as an attacker would.
    fs::remove_file(program).unwrap();
    fs::write(program, content).unwrap();
    fs::set_permissions(program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

#[test]
fn a_flipped_byte_in_a_daemon_stops_everything_and_is_named() {
    let lab = Lab::prepare(LabSettings { restart: false, ..LabSettings::for_test("post-flipped") }).unwrap();
    lab.postd(&[]).unwrap();
    flip_a_byte(&lab.layout.bin().join("casemate-tvs"));
    let error = lab.postd(&[]).unwrap_err().to_string();
    assert!(error.contains("casemate-tvs"), "{error}");
    let failed = lab.audited("PostFailed").unwrap();
    assert_eq!(failed.len(), 1);
    assert!(failed[0].to_string().contains("casemate-tvs"), "{failed:?}");
    for (daemon, _) in DAEMONS {
        assert!(lab.start_daemon(daemon).is_err(), "casemate-{daemon} starts after a failed self-test");
    }
}

#[test]
fn no_daemon_starts_without_a_report_of_this_boot() {
    let lab = Lab::prepare(LabSettings { restart: false, ..LabSettings::for_test("post-report") }).unwrap();
    assert!(lab.start_daemon("keyd").is_err(), "without a report");
    lab.postd(&[]).unwrap();
    let path = lab.layout.run().join("post.json");
    let good = fs::read_to_string(&path).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    fs::write(&path, good.replace(boot.trim(), "00000000-0000-4000-8000-000000000000")).unwrap();
    assert!(lab.start_daemon("keyd").is_err(), "with the report of another boot");
    fs::write(&path, &good).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    assert!(lab.start_daemon("keyd").is_err(), "with a report that anybody may write");
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    lab.start_daemon("keyd").unwrap();
}

#[test]
fn a_daemon_that_was_exchanged_after_the_self_test_does_not_start() {
    let lab = Lab::prepare(LabSettings { restart: false, ..LabSettings::for_test("post-exchanged") }).unwrap();
    lab.postd(&[]).unwrap();
    let program = lab.layout.bin().join("casemate-keyd");
    let mut content = fs::read(&program).unwrap();
    content.push(0);
    fs::remove_file(&program).unwrap();
    fs::write(&program, content).unwrap();
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    assert!(lab.start_daemon("keyd").is_err());
}

#[test]
fn the_report_names_its_sources_and_claims_no_certificate_that_it_does_not_have() {
    let lab = Lab::start(LabSettings::for_test("post-status")).unwrap();
    let report = report(&lab);
    let tests = report["tests"].as_array().unwrap();
    assert!(tests.len() > 20);
    for test in tests {
        assert!(test["name"].is_string() && test["source"].is_string() && test["duration-us"].is_u64(), "{test}");
    }
    let status = lab.casemate(&["selftest", "status"]).unwrap();
    for said in ["3.1.0", "#5314", "Unvalidated"] {
        assert!(status.contains(said), "{said} is not in: {status}");
    }
}
