//! A locked PIN. That a wrong one is tried once is in `token.rs` beside this program, and for a TPM in the end to end tests.

use std::{fs, path::PathBuf, thread};

use casemate_harness::{Lab, LabError, Tokens};

use crate::stage::{SOON, Stage, count, prepared, start};

/// SoftHSM's flags of a token that is well, and `CKF_USER_PIN_LOCKED` beside them (PKCS#11 v2.40, table 9). SoftHSM locks no PIN by
/// itself, but obeys the flag.
const WELL: u64 = 0x0000_042d;
const LOCKED: u64 = WELL | 0x0004_0000;

fn set_flags(lab: &Lab, from: u64, to: u64) {
    let folders = fs::read_dir(lab.layout.token()).unwrap().map(|entry| entry.unwrap().path().join("token.object"));
    let path = folders.into_iter().find(|path| path.exists()).unwrap();
    let mut content = fs::read(&path).unwrap();
    let places: Vec<_> = (0..content.len() - 7).filter(|at| content[*at..*at + 8] == from.to_be_bytes()).collect();
    let [place] = places[..] else { panic!("flags {from:x} stand at {places:?}") };
    content[place..place + 8].copy_from_slice(&to.to_be_bytes());
    fs::write(path, content).unwrap();
}

/// keyd starts on a token whose PIN is locked, says so once, tries no PIN, and serves when the security officer unlocked it.
fn locked(name: &str, tokens: Tokens, lock: impl FnOnce(&Lab), unlock: impl FnOnce(&Lab)) {
    let lab = prepared(name, tokens);
    start(&lab);
    let stage = Stage::of(&lab, name);
    lab.stop_daemon("keyd").unwrap();
    lock(&lab);
    thread::scope(|scope| {
        let start = scope.spawn(|| lab.start_daemon("keyd"));
        let told = lab.wait_for_events("TokenRefused", 1).unwrap();
        println!("{name}: {}", told[0]["MESSAGE"]);
        assert!(told[0]["MESSAGE"].as_str().unwrap().contains("locked"), "{told:?}");
        assert!(lab.casemate(&["hsm", "list"]).is_err(), "it listens");
        assert!(stage.enrols().is_err());
        unlock(&lab);
        start.join().unwrap().unwrap();
    });
    stage.serves_again(&stage.phone(), SOON);
    assert_eq!(count(&lab, "TokenRefused"), 1);
    stage.nothing_was_lost();
}

#[test]
fn the_pin_of_softhsm_is_locked() {
    locked(
        "drill-locked-softhsm",
        Tokens::SoftHsm,
        |lab| set_flags(lab, WELL, LOCKED),
        |lab| set_flags(lab, LOCKED, WELL),
    );
}

fn base(lab: &Lab) -> (PathBuf, PathBuf) {
    (lab.layout.token().join("token.sql"), lab.layout.root.join("unlocked"))
}

/// Somebody else tries wrong PINs until kryoptic takes none any more.
fn lock_kryoptic(lab: &Lab) {
    let (base, unlocked) = base(lab);
    fs::copy(base, unlocked).unwrap();
    let module = lab.module().display().to_string();
    let wrong =
        ["--module", &module, "--token-label", "casemate-lab", "--login", "--pin", "00000000", "--list-objects"];
    let is_locked = || match lab.beside_keyd("pkcs11-tool", &wrong) {
        Err(LabError::Failed { output, .. }) => output.contains("CKR_PIN_LOCKED"),
        other => panic!("{other:?}"),
    };
    assert!((0..50).any(|_| is_locked()), "kryoptic locks no PIN");
}

#[test]
fn the_pin_of_kryoptic_is_locked() {
    locked("drill-locked-kryoptic", Tokens::Kryoptic, lock_kryoptic, |lab| {
        // The security officer's work, done by the file: the lab throws the officer's PIN away.
        let (base, unlocked) = base(lab);
        fs::write(base, fs::read(unlocked).unwrap()).unwrap();
    });
}
