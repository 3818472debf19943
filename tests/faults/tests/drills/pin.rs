//! A locked PIN. That a wrong one is tried once is in `token.rs` beside this program, and for a TPM in the end to end tests.

use std::{fs, thread, time::Instant};

use casemate_faults::Bus;
use casemate_harness::{Lab, LabError, Tokens};

use crate::stage::{SOON, Stage, count, prepared, start, state, with_bus};

const LABEL: &str = "casemate-lab";

/// SoftHSM's flags of a token that is well, and `CKF_USER_PIN_LOCKED` beside them (PKCS#11 v2.40, table 9). SoftHSM locks no PIN by
/// itself, but obeys the flag.
const WELL: u64 = 0x0000_042d;
const LOCKED: u64 = WELL | 0x0004_0000;

/// The security officer's PIN, which the lab throws away where the token is not made anew here.
const OFFICER: &str = "97531000";

/// OpenSC's tool, under keyd's uid.
fn tool(lab: &Lab, arguments: &[&str]) -> Result<String, LabError> {
    let module = lab.module().display().to_string();
    lab.beside_keyd("pkcs11-tool", &[&["--module", &module], arguments].concat())
}

/// Makes the token anew, by the commands of PKCS#11, with an officer whom this drill knows.
fn make_anew(lab: &Lab) {
    tool(lab, &["--init-token", "--slot-index", "0", "--label", LABEL, "--so-pin", OFFICER]).unwrap();
    give_pin(lab);
}

/// The officer gives the user the PIN of keyd's file, which takes the lock away.
fn give_pin(lab: &Lab) {
    let pin = fs::read_to_string(lab.layout.pin()).unwrap();
    let officer = ["--token-label", LABEL, "--login", "--login-type", "so", "--so-pin", OFFICER];
    tool(lab, &[&officer[..], &["--init-pin", "--pin", pin.trim()]].concat()).unwrap();
}

/// Somebody else tries wrong PINs until the token takes none any more.
fn lock(lab: &Lab) {
    let wrong = ["--token-label", LABEL, "--login", "--pin", "00000000", "--list-objects"];
    let is_locked = || match tool(lab, &wrong) {
        Err(LabError::Failed { output, .. }) => output.contains("CKR_PIN_LOCKED"),
        other => panic!("{other:?}"),
    };
    assert!((0..50).any(|_| is_locked()), "it locks no PIN");
}

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
fn locked(name: &str, tokens: Tokens, lock: impl FnOnce(&Lab)) {
    let lab = prepared(name, tokens);
    if tokens == Tokens::SoftHsm {
        // SoftHSM makes a token anew in a slot that has one only for its officer.
        fs::remove_dir_all(lab.layout.token()).unwrap();
        fs::create_dir(lab.layout.token()).unwrap();
        lab.layout.own(&lab.layout.token(), 0o700, Some(lab.layout.owner.uid("keyd"))).unwrap();
    } else {
        fs::remove_file(lab.layout.token().join("token.sql")).unwrap();
    }
    make_anew(&lab);
    start(&lab);
    let stage = Stage::of(&lab, name);
    lab.stop_daemon("keyd").unwrap();
    lock(&lab);
    thread::scope(|scope| {
        let start = scope.spawn(|| lab.start_daemon("keyd"));
        let told = lab.wait_for_events("TokenRefused", 1).unwrap();
        println!("{name}: {}", told[0]["MESSAGE"]);
        let message = told[0]["MESSAGE"].as_str().unwrap();
        assert!(message.contains("locked; the security officer must unlock it"), "{message}");
        assert!(lab.casemate(&["hsm", "list"]).is_err(), "it listens");
        assert!(stage.phone().enrol().is_err());
        give_pin(&lab);
        let unlocked = Instant::now();
        start.join().unwrap().unwrap();
        println!("{name}: keyd listens {:.2} s after it was unlocked", unlocked.elapsed().as_secs_f64());
    });
    stage.serves_again(&stage.phone(), SOON);
    assert_eq!(count(&lab, "TokenRefused"), 1);
    stage.nothing_was_lost();
}

#[test]
fn the_pin_of_softhsm_is_locked() {
    locked("drill-locked-softhsm", Tokens::SoftHsm, |lab| set_flags(lab, WELL, LOCKED));
}

#[test]
fn the_pin_of_kryoptic_is_locked() {
    locked("drill-locked-kryoptic", Tokens::Kryoptic, lock);
}

/// Something of another process in the same TPM, with an authorization of its own, which is under the protection from guessing that
/// the PIN is under too.
const STRANGERS: &str = "0x1500016";

/// Another process guesses wrong, so many times.
fn guess(bus: &Bus, times: usize) {
    for _ in 0..times {
        let read = bus.tool("tpm2_nvread", &[STRANGERS, "-C", STRANGERS, "-P", "wrong", "-s", "8"]);
        assert!(read.is_err(), "{read:?}");
    }
}

/// Restarts keyd on a TPM that takes no PIN, or takes one more wrong one: it says so, tries none, and serves when the officer has
/// cleared the lockout.
fn waits_for_the_officer(stage: &Stage<'_>, bus: &Bus, says: &str, before: usize) {
    let lab = stage.lab;
    lab.stop_daemon("keyd").unwrap();
    thread::scope(|scope| {
        let start = scope.spawn(|| lab.start_daemon("keyd"));
        let told = lab.wait_for_events("TokenRefused", before + 1).unwrap();
        println!("the lockout of a TPM: {}", told[before]["MESSAGE"]);
        let message = told[before]["MESSAGE"].as_str().unwrap();
        assert!(message.contains(says), "{message}");
        assert!(
            message.contains("run 1000 s, or") && message.contains("tpm2_dictionarylockout --clear-lockout"),
            "{message}"
        );
        assert!(lab.casemate(&["hsm", "list"]).is_err(), "it listens");
        assert!(stage.phone().enrol().is_err());
        bus.tool("tpm2_dictionarylockout", &["--clear-lockout"]).unwrap();
        let unlocked = Instant::now();
        start.join().unwrap().unwrap();
        println!("{says}: keyd listens {:.2} s after the officer cleared it", unlocked.elapsed().as_secs_f64());
    });
    stage.serves_again(&stage.phone(), SOON);
    assert_eq!(count(lab, "TokenRefused"), before + 1);
}

/// Wrong guesses of another process count for the whole TPM. They stop no daemon that is logged in; one that has to log in leaves
/// the last tries alone, and waits for the officer.
#[test]
fn another_process_locks_a_tpm() {
    with_bus("drill-locked-tpm", |stage, bus| {
        let limits = ["--setup-parameters", "--max-tries=4", "--recovery-time=1000", "--lockout-recovery-time=1000"];
        bus.tool("tpm2_dictionarylockout", &limits).unwrap();
        let attributes = ["-C", "o", "-s", "8", "-p", "right", "-a", "authread|authwrite|ownerwrite"];
        bus.tool("tpm2_nvdefine", &[&[STRANGERS], &attributes[..]].concat()).unwrap();
        // A few are nothing.
        guess(bus, 2);
        stage.lab.stop_daemon("keyd").unwrap();
        stage.lab.start_daemon("keyd").unwrap();
        stage.serves_again(&stage.phone(), SOON);
        assert_eq!(count(stage.lab, "TokenRefused"), 0);
        // One is left.
        guess(bus, 1);
        stage.enrols().unwrap();
        waits_for_the_officer(stage, bus, "one PIN try left", 0);
        // None is left.
        guess(bus, 5);
        let counted = bus.tool("tpm2_getcap", &["properties-variable"]).unwrap();
        assert!(counted.contains("inLockout:                 1"), "{counted}");
        stage.enrols().unwrap();
        assert_eq!(state(stage.lab), "serving", "who is logged in stays so");
        waits_for_the_officer(stage, bus, "locked", 1);
        stage.nothing_was_lost();
    });
}
