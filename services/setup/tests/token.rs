//! The program with SoftHSM's real tool; the seal is played by a file, for it needs a TPM and root.
#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use casemate_post::Passed;
use casemate_setup::{LABEL, Places, make_pins};

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";

struct Machine {
    root: tempfile::TempDir,
    places: Places,
}

impl Machine {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for folder in ["state/keyd/softhsm", "state/setup", "pins"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        let show = |name: &str| at(name).display().to_string();
        let softhsm = format!("directories.tokendir = {}\nlog.level = ERROR\n", show("state/keyd/softhsm"));
        fs::write(at("softhsm2.conf"), softhsm).unwrap();
        let settings = format!(
            "[paths]\nrun = \"{0}\"\nstate = \"{1}\"\n[audit]\njournal-socket = \"{0}/none\"\nfile = \"{0}/journal.jsonl\"\n",
            root.path().display(),
            show("state")
        );
        fs::write(at("casemate.toml"), settings).unwrap();
        let setup = at("state/setup");
        let places = Places {
            tokens: at("state/keyd/softhsm"),
            credential: setup.join("pin.cred"),
            unfinished: setup.join("pin.cred.new"),
            copy: setup.join("token.object"),
        };
        Self { root, places }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn setup(&self, step: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_casemate-setup"));
        command.env("SOFTHSM2_CONF", self.at("softhsm2.conf"));
        command.arg("--config").arg(self.at("casemate.toml")).args(step).output().unwrap()
    }

    fn token(&self) -> Output {
        self.setup(&["token", &self.at("pins").display().to_string()])
    }

    /// New PINs, and their seal; the user's.
    fn sealed(&self) -> String {
        make_pins(&Passed::testing(), &self.places, &self.at("pins")).unwrap();
        fs::write(&self.places.unfinished, b"sealed").unwrap();
        fs::read_to_string(self.at("pins/pin")).unwrap()
    }

    fn opens(&self, pin: &str) -> bool {
        let mut command = Command::new("pkcs11-tool");
        command.env("SOFTHSM2_CONF", self.at("softhsm2.conf")).env("PIN", pin);
        let arguments = ["--module", MODULE, "--token-label", LABEL, "--login", "--pin", "env:PIN", "--list-objects"];
        command.args(arguments).output().expect("pkcs11-tool of opensc (.ci/install)").status.success()
    }

    fn trail(&self) -> String {
        fs::read_to_string(self.at("journal.jsonl")).unwrap_or_default()
    }

    fn object(&self) -> PathBuf {
        let mut tokens = fs::read_dir(&self.places.tokens).unwrap();
        tokens.next().unwrap().unwrap().path().join("token.object")
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_token_opens_with_the_sealed_pin_which_is_forgotten() {
    let machine = Machine::new();
    let pin = machine.sealed();
    let made = machine.token();
    assert!(made.status.success(), "{}", said(&made));
    assert!(machine.opens(&pin) && !machine.opens("bcdfghjkmnpqrstvwxz23456"));
    assert_eq!(fs::read(&machine.places.credential).unwrap(), b"sealed");
    assert_eq!(fs::read_dir(machine.at("pins")).unwrap().count(), 0, "no PIN is left");
    assert!(machine.trail().contains("TokenSetUp") && !machine.trail().contains(&pin), "{}", machine.trail());

    // A second run finds the token and touches nothing.
    let again = machine.token();
    assert!(!again.status.success() && said(&again).contains("has its token"), "{}", said(&again));
    assert!(machine.opens(&pin));
}

#[test]
fn an_interrupted_run_is_done_again_and_leaves_one_token() {
    let machine = Machine::new();
    let lost = machine.sealed();
    let made = machine.token();
    assert!(made.status.success(), "{}", said(&made));
    // As if it had been killed before its last step.
    fs::rename(&machine.places.credential, &machine.places.unfinished).unwrap();
    let pin = machine.sealed();
    let made = machine.token();
    assert!(made.status.success(), "{}", said(&made));
    assert!(machine.opens(&pin) && !machine.opens(&lost));
    assert_eq!(fs::read_dir(&machine.places.tokens).unwrap().count(), 1);
}

#[test]
fn without_a_seal_no_token_is_made() {
    let machine = Machine::new();
    make_pins(&Passed::testing(), &machine.places, &machine.at("pins")).unwrap();
    let refused = machine.token();
    assert!(!refused.status.success() && said(&refused).contains("did not seal"), "{}", said(&refused));
    assert_eq!(fs::read_dir(&machine.places.tokens).unwrap().count(), 0);
}

#[test]
fn an_emptied_token_file_is_put_back_and_a_whole_one_is_left_alone() {
    let machine = Machine::new();
    let pin = machine.sealed();
    assert!(machine.token().status.success());
    let object = machine.object();
    // A login writes the file; what it holds then is newer than the copy.
    assert!(machine.opens(&pin));
    let whole = fs::read(&object).unwrap();
    assert!(machine.setup(&["mend"]).status.success());
    assert_eq!(fs::read(&object).unwrap(), whole);
    assert!(!machine.trail().contains("TokenMended"));

    fs::write(&object, b"").unwrap();
    assert!(!machine.opens(&pin), "SoftHSM has lost its token");
    let mended = machine.setup(&["mend"]);
    assert!(mended.status.success(), "{}", said(&mended));
    assert!(machine.opens(&pin) && machine.trail().contains("TokenMended"));
}

#[test]
fn a_machine_without_a_token_has_nothing_to_mend_and_a_step_must_be_named() {
    let machine = Machine::new();
    assert!(machine.setup(&["mend"]).status.success());
    assert_eq!(machine.setup(&[]).status.code(), Some(2));
}
