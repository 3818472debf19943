//! `make lab` itself, with copies of the programs, so that it is nobody's `target/lab` that is made anew.
#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    process::Command,
};

use casemate_harness::{DAEMONS, LabSettings, programs};
use nix::unistd::geteuid;
use tempfile::TempDir;

/// A user of whom the machine knows nothing.
const NOBODY: u32 = 12345;

/// A build's folder with copies of the programs, which anybody may enter.
fn copied_programs() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("debug");
    fs::create_dir(&copy).unwrap();
    let names = DAEMONS.iter().map(|(daemon, _)| *daemon).chain(["postd", "lab", "phone", "hsm-check"]);
    for name in names.map(|name| format!("casemate-{name}")).chain(["casemate".to_owned()]) {
        fs::copy(programs().join(&name), copy.join(&name)).unwrap();
    }
    for path in [folder.path(), &copy] {
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    folder
}

/// Runs `ONCE=1 casemate-lab` from the copy at the address of the test `name`: whether it exited with 0, and what it printed.
fn run(name: &str, mut command: Command) -> (bool, String) {
    command.env("ONCE", "1").env("LAB_ADDRESS", LabSettings::for_test(name).address.to_string());
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn lab(folder: &Path) -> Command {
    Command::new(folder.join("debug/casemate-lab"))
}

/// Every daemon answers its caller by `SO_PEERCRED`; without root there is one user, and the lab must say what that proves.
#[test]
fn without_root_there_is_one_user_and_the_lab_says_so() {
    let folder = copied_programs();
    let mut command = lab(folder.path());
    if geteuid().is_root() {
        chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        command = Command::new("setpriv");
        let user = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")];
        command.args(user).arg("--clear-groups").arg(folder.path().join("debug/casemate-lab"));
    }
    let (succeeded, printed) = run("lab-one-user", command);
    assert!(succeeded && printed.contains("lab: ready"), "{printed}");
    assert!(printed.contains("ONE UID FOR ALL"), "{printed}");
    assert!(printed.contains("does not prove that one daemon is refused what only another may ask"), "{printed}");
}

#[test]
fn once_the_lab_prints_its_steps_and_ends_with_success() {
    let folder = copied_programs();
    let (succeeded, printed) = run("lab-once", lab(folder.path()));
    assert!(succeeded, "{printed}");
    for said in ["power-on self-test ... done in", "daemons ... done in", "enrolment ... done in", "CAPF", "lab: ready"]
    {
        assert!(printed.contains(said), "{said} is not in: {printed}");
    }
    if geteuid().is_root() {
        assert!(printed.contains("one uid a daemon"), "{printed}");
    }
    let journal = fs::read_to_string(folder.path().join("lab/journal.jsonl")).unwrap();
    assert!(journal.contains("CertificateDelivered"));
}

/// The exit code is worth something: a phone for which something does not hold makes it another.
#[test]
fn a_phone_for_which_something_does_not_hold_fails_the_lab() {
    let folder = copied_programs();
    let phone = folder.path().join("debug/casemate-phone");
    fs::remove_file(&phone).unwrap();
    fs::copy("/bin/false", &phone).unwrap();
    let (succeeded, printed) = run("lab-failing", lab(folder.path()));
    assert!(!succeeded && printed.contains("FAILED in"), "{printed}");
    assert!(!printed.contains("lab: ready"), "{printed}");
}

#[test]
fn an_address_that_is_none_is_refused() {
    let output = Command::new(programs().join("casemate-lab")).env("LAB_ADDRESS", "nowhere").output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("LAB_ADDRESS is nowhere"));
}
