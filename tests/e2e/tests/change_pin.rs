//! `casemate hsm change-pin` as an operator uses it, on a PKCS#11 token and on a TPM: the daemons serve before, after, and when keyd
//! is killed and comes back.
#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use casemate_harness::{DAEMONS, Lab, LabSettings, Tokens};
use serde_json::{Value, json};

const NEW: &str = "8642097531864";

/// What the console made of a line on its standard input.
fn change(lab: &Lab, arguments: &[&str], line: &str) -> Output {
    let mut command = lab.console();
    command.args(["hsm", "change-pin"]).args(arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It may have ended without a look at it.
    let _ = child.stdin.take().unwrap().write_all(line.as_bytes());
    child.wait_with_output().unwrap()
}

fn refused(lab: &Lab, arguments: &[&str], line: &str, what: &str) {
    let output = change(lab, arguments, line);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && text.contains(what), "{what:?} is not in {text:?}");
    let repeated = !line.trim().is_empty() && text.contains(line.trim());
    assert!(text.lines().count() == 1 && !repeated, "{text:?}");
}

fn state(lab: &Lab) -> Value {
    let listed: Value = serde_json::from_str(&lab.casemate(&["hsm", "list", "--json"]).unwrap()).unwrap();
    assert!(listed["keys"].as_array().unwrap().iter().all(|key| key["on-token"] == true), "{listed}");
    listed["state"].clone()
}

fn enrol(lab: &Lab, phone: &str) {
    lab.add_phone(phone, &["--string", "4711"]).unwrap();
    let tomcat = lab.published("certmgr", "tomcat.pem");
    lab.phone(phone).play(&["--string", "4711", "--ask-about", tomcat.to_str().unwrap()]).unwrap();
}

/// Files under `folder` in which the PIN stands.
fn holding(folder: &Path, pin: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().filter_map(Result::ok) {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(holding(&entry.path(), pin));
        } else if kind.is_file() {
            let content = fs::read(entry.path()).unwrap_or_default();
            if content.windows(pin.len()).any(|window| window == pin.as_bytes()) {
                found.push(entry.path());
            }
        }
    }
    found
}

fn a_pin_is_changed(name: &str, tokens: Tokens, place: &str, file: fn(&Lab) -> PathBuf) {
    let lab = Lab::start(LabSettings { tokens, ..LabSettings::for_test(name) }).unwrap();
    let old = fs::read_to_string(file(&lab)).unwrap();
    refused(&lab, &[], "\n", "no PIN was taken");
    refused(&lab, &["--token", "another"], "86420975\n", place);
    assert_eq!(fs::read_to_string(file(&lab)).unwrap(), old);

    let output = change(&lab, &["--token", place, "--json"], &format!("{NEW}\n"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let shown: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(shown["token"], place);
    let changed = lab.wait_for_events("PinChanged", 1).unwrap();
    assert_eq!((&changed[0]["CASEMATE_TOKEN"], &changed[0]["CASEMATE_PLACE"]), (&shown["serial"], &json!(place)));
    assert_eq!(lab.audited("PinNotChanged").unwrap().len(), 1, "the console asked for no PIN that it had not");
    assert_eq!(holding(&lab.layout.root, NEW), [file(&lab)], "the PIN is in its file alone");
    assert!(holding(&lab.layout.root, old.trim()).is_empty(), "and the old one nowhere");

    // The login that holds goes on, and the next one is with the new PIN.
    enrol(&lab, "SEP001122334455");
    let starts = lab.starts("keyd");
    assert!(lab.kill("keyd").unwrap());
    lab.wait_for("keyd to serve again", Duration::from_secs(60), || {
        lab.starts("keyd") > starts && lab.casemate(&["hsm", "list"]).is_ok()
    })
    .unwrap();
    assert_eq!(state(&lab), "serving");
    enrol(&lab, "SEP001122334466");
    // And back, where the name of the only token may be left out.
    let output = change(&lab, &[], &old);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains(place), "{text}{}", String::from_utf8_lossy(&output.stderr));
    for (daemon, _) in DAEMONS {
        lab.stop_daemon(daemon).unwrap();
    }
    assert!(holding(&lab.layout.root, NEW).is_empty());
    assert_eq!(lab.audited("TokenRefused").unwrap(), [] as [Value; 0], "no PIN was tried in vain");
}

#[test]
fn the_pin_of_softhsm_is_changed() {
    a_pin_is_changed("pin-softhsm", Tokens::SoftHsm, "pkcs11:token=casemate-lab", |lab| lab.layout.pin());
}

#[test]
fn the_pin_of_a_tpm_is_changed() {
    a_pin_is_changed("pin-tpm", Tokens::Tpm, "tpm", |lab| lab.layout.tpm_pin());
}
