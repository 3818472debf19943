use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use casemate_hsm_api::{Backup, HsmError, KeyAlgorithm, KeyId, KeySpec, KeyState, KeyStore, SignatureScheme};
use casemate_hsm_tpm::{TpmError, TpmStore};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::lab::{Lab, Swtpm};

const SPEC: KeySpec = KeySpec { algorithm: KeyAlgorithm::P256, backup: Backup::None };
const SCHEME: SignatureScheme = SignatureScheme::EcdsaP256Sha256;
const ID: KeyId = KeyId([9; 16]);

#[test]
fn a_tpm_that_is_gone_is_absent_and_never_empty_and_is_used_again_when_it_is_back() {
    let mut lab = Lab::new();
    let store = TpmStore::open(lab.settings()).unwrap();
    let public = store.generate(ID, "k", SPEC).unwrap();
    let serial = store.token().unwrap().serial;
    store.sign(ID, SCHEME, b"m").unwrap();
    lab.tpm.kill();
    let begin = Instant::now();
    for _ in 0..2 {
        let signed = store.sign(ID, SCHEME, b"m");
        assert!(matches!(signed, Err(HsmError::TokenAbsent { .. })), "{signed:?}");
        let unknown = store.inspect(KeyId([8; 16]), Some(SPEC));
        assert!(matches!(unknown, Err(HsmError::TokenAbsent { .. })), "{unknown:?}");
        let listed = store.keys();
        assert!(matches!(listed, Err(HsmError::TokenAbsent { .. })), "{listed:?}");
        let made = store.generate(KeyId([8; 16]), "k", SPEC);
        assert!(matches!(made, Err(HsmError::TokenAbsent { .. })), "{made:?}");
        let still = store.reconnect();
        assert!(matches!(still, Err(HsmError::TokenAbsent { .. })), "{still:?}");
    }
    assert!(begin.elapsed() < Duration::from_secs(5), "absence is told at once");
    lab.tpm.restart();
    assert!(matches!(store.sign(ID, SCHEME, b"m"), Err(HsmError::TokenAbsent { .. })), "nobody logged in");
    store.reconnect().unwrap();
    assert_eq!(store.inspect(ID, Some(SPEC)).unwrap(), KeyState::Whole(public));
    store.sign(ID, SCHEME, b"m").unwrap();
    store.reconnect().unwrap();
    assert_eq!(store.keys().unwrap().len(), 1);
    assert_eq!(store.token().unwrap().serial, serial);
}

/// As a TPM that lost its power for a moment, while the connection to it stayed: keys and session are gone, and its firmware has
/// to start it.
#[test]
fn a_tpm_that_was_reset_under_the_connection_is_absent_until_it_is_started() {
    let lab = Lab::new();
    let store = TpmStore::open(lab.settings()).unwrap();
    store.generate(ID, "k", SPEC).unwrap();
    store.sign(ID, SCHEME, b"m").unwrap();
    let control = format!("127.0.0.1:{}", lab.tpm.port + 1);
    let reset = Command::new("swtpm_ioctl").args(["--tcp", &control, "-i"]).status();
    assert!(reset.expect("swtpm_ioctl, of the package swtpm-tools, is installed").success());
    for _ in 0..2 {
        let signed = store.sign(ID, SCHEME, b"m");
        assert!(matches!(signed, Err(HsmError::TokenAbsent { .. })), "{signed:?}");
        let still = store.reconnect();
        assert!(matches!(still, Err(HsmError::TokenAbsent { .. })), "{still:?}");
    }
    lab.tool("tpm2_startup", &["-c"]);
    store.reconnect().unwrap();
    store.sign(ID, SCHEME, b"m").unwrap();
}

#[test]
fn a_tpm_that_comes_late_is_absent_until_it_is_there() {
    let mut lab = Lab::new();
    lab.tpm.kill();
    let store = TpmStore::prepare(lab.settings()).unwrap();
    assert!(matches!(store.token(), Err(HsmError::TokenAbsent { .. })), "nobody looked for it");
    for _ in 0..2 {
        assert!(matches!(store.reconnect(), Err(HsmError::TokenAbsent { .. })));
    }
    lab.tpm.restart();
    assert!(matches!(store.keys(), Err(HsmError::TokenAbsent { .. })), "nobody logged in");
    store.reconnect().unwrap();
    assert!(store.keys().unwrap().is_empty());
}

#[test]
fn a_device_that_is_not_there_is_absent() {
    let lab = Lab::new();
    let mut settings = lab.settings();
    settings.address = casemate_hsm_tpm::TpmAddress::Device(lab.path("tpmrm0"));
    let opened = TpmStore::open(settings).map(drop);
    assert!(matches!(opened, Err(TpmError::Hsm(HsmError::TokenAbsent { .. }))), "{opened:?}");
}

#[test]
fn keys_are_found_by_their_labels_after_a_restart() {
    let mut lab = Lab::new();
    let store = TpmStore::open(lab.settings()).unwrap();
    let public = store.generate(ID, "CallManager", SPEC).unwrap();
    let other = KeySpec { algorithm: KeyAlgorithm::Rsa2048, backup: Backup::None };
    store.generate(KeyId([10; 16]), "CAPF", other).unwrap();
    drop(store);
    lab.tpm.restart();
    let store = TpmStore::open(lab.settings()).unwrap();
    let found: Vec<_> = store.keys().unwrap().into_iter().filter(|key| key.label == "CallManager").collect();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].id, &found[0].public), (ID, &public));
    let signature = store.sign(ID, SCHEME, b"m").unwrap();
    assert!(casemate_hsm_conformance::verifies(&public, SCHEME, b"m", &signature));
}

/// The right keys and the right PIN, and another TPM: nothing is tried on it.
#[test]
fn another_tpm_in_its_place_is_its_absence() {
    let mut lab = Lab::new();
    let store = TpmStore::open(lab.settings()).unwrap();
    store.generate(ID, "k", SPEC).unwrap();
    let other = Swtpm::start(&lab.path("other"));
    let own = std::mem::replace(&mut lab.tpm, other);
    drop(store);
    let opened = TpmStore::open(lab.settings()).map(drop);
    assert!(matches!(opened, Err(TpmError::OtherTpm { .. })), "{opened:?}");
    let store = TpmStore::prepare(lab.settings()).unwrap();
    let connected = store.reconnect();
    assert!(matches!(connected, Err(HsmError::TokenAbsent { .. })), "{connected:?}");
    drop(store);
    lab.tpm = own;
    TpmStore::open(lab.settings()).unwrap().sign(ID, SCHEME, b"m").unwrap();
}

#[test]
fn a_tpm_that_hangs_costs_no_caller_and_goes_on_when_it_answers() {
    let lab = Lab::new();
    let mut settings = lab.settings();
    // Long enough for a login on a busy machine: its PBKDF2 takes a quarter of a second twice.
    settings.call_timeout_ms = 3_000;
    let store = TpmStore::open(settings).unwrap();
    store.generate(ID, "k", SPEC).unwrap();
    let process = Pid::from_raw(lab.tpm.id());
    kill(process, Signal::SIGSTOP).unwrap();
    let begin = Instant::now();
    let slow = store.sign(ID, SCHEME, b"m");
    assert!(matches!(slow, Err(HsmError::Timeout { .. })), "{slow:?}");
    let queued = store.sign(ID, SCHEME, b"m");
    assert!(matches!(queued, Err(HsmError::Busy { .. })), "{queued:?}");
    assert!(begin.elapsed() < Duration::from_secs(8));
    kill(process, Signal::SIGCONT).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Err(error) = store.sign(ID, SCHEME, b"m") {
        assert!(error.is_absence() && Instant::now() < deadline, "{error:?}");
        thread::sleep(Duration::from_millis(20));
    }
}
