use std::{fs, os::fd::AsRawFd, time::Duration};

use aws_lc_rs::hmac;
use casemate_hsm_api::{Backup, HsmError, KeyAlgorithm, KeyId, KeySpec, KeyStore, Pin, SignatureScheme, Unlock};
use casemate_hsm_pin::PinError;
use casemate_hsm_tpm::{TpmAddress, TpmError, TpmStore};

use crate::{
    cut::Cut,
    lab::{Lab, PIN},
};

const SPEC: KeySpec = KeySpec { algorithm: KeyAlgorithm::P256, backup: Backup::None };
const SCHEME: SignatureScheme = SignatureScheme::EcdsaP256Sha256;
const ID: KeyId = KeyId([9; 16]);
const NEW: &str = "864209";

fn open(lab: &Lab) -> Result<TpmStore, TpmError> {
    TpmStore::open(lab.settings())
}

/// Refusals that the TPM counts, by another program.
fn counted(lab: &Lab) -> u32 {
    let listed = lab.tool("tpm2_getcap", &["properties-variable"]);
    let line = listed.lines().find(|line| line.starts_with("TPM2_PT_LOCKOUT_COUNTER")).unwrap();
    u32::from_str_radix(line.rsplit_once("0x").unwrap().1, 16).unwrap()
}

fn set_tries(lab: &Lab, tries: u32) {
    lab.tool(
        "tpm2_dictionarylockout",
        &["--setup-parameters", "--max-tries", &tries.to_string(), "--recovery-time", "1000"],
    );
}

#[test]
fn a_wrong_pin_counts_once_and_is_never_tried_again() {
    let lab = Lab::new();
    set_tries(&lab, 10);
    lab.write_pin("000000");
    assert!(matches!(open(&lab), Err(TpmError::Hsm(HsmError::PinIncorrect { .. }))));
    assert_eq!(counted(&lab), 1);
    for _ in 0..3 {
        assert!(matches!(open(&lab), Err(TpmError::Hsm(HsmError::PinRefusedBefore { .. }))));
    }
    assert_eq!(counted(&lab), 1, "the wrong PIN was tried again");
    assert_eq!(fs::read_dir(lab.path("state")).unwrap().count(), 1);
    lab.write_pin(PIN);
    open(&lab).unwrap();
    assert_eq!(counted(&lab), 1);
    assert_eq!(fs::read_dir(lab.path("state")).unwrap().count(), 0);
}

/// As [`set_tries`] has it.
const UNLOCK: Unlock = Unlock::DictionaryLockout { forgets_one_in: Some(Duration::from_secs(1000)) };

#[test]
fn no_pin_is_tried_that_could_lock_the_tpm_nor_on_one_that_is_locked() {
    let lab = Lab::new();
    set_tries(&lab, 3);
    for wrong in ["000000", "111111"] {
        lab.write_pin(wrong);
        assert!(matches!(open(&lab), Err(TpmError::Hsm(HsmError::PinIncorrect { .. }))));
    }
    for pin in ["222222", PIN] {
        lab.write_pin(pin);
        let last = open(&lab).map(drop).unwrap_err();
        assert!(matches!(last, TpmError::Hsm(HsmError::PinLastTry { unlock: UNLOCK, .. })), "{pin}: {last:?}");
    }
    assert_eq!(counted(&lab), 2, "nothing was tried");
    set_tries(&lab, 2);
    let locked = open(&lab).map(drop);
    assert!(matches!(locked, Err(TpmError::Hsm(HsmError::PinLocked { unlock: UNLOCK, .. }))), "{locked:?}");
    lab.tool("tpm2_dictionarylockout", &["--clear-lockout"]);
    open(&lab).unwrap();
}

/// The TPM cannot know that no wrong PIN was lost with the power, so it counts one (TPM 2.0 part 1, 19.8.6): whoever sets its tries
/// has to think of that.
#[test]
fn a_power_failure_after_a_login_counts_as_one_wrong_pin() {
    let mut lab = Lab::new();
    set_tries(&lab, 10);
    open(&lab).unwrap();
    assert_eq!(counted(&lab), 0);
    lab.tpm.restart();
    assert_eq!(counted(&lab), 1);
    lab.tpm.restart();
    assert_eq!(counted(&lab), 1, "nobody logged in meanwhile");
}

/// The same that hsm/pkcs11 tells: nobody knows whether the PIN was refused, and a person who looked says so by writing its file.
#[test]
fn logins_that_never_end_are_told_as_such_until_the_pin_file_is_written_again() {
    let lab = Lab::new();
    set_tries(&lab, 10);
    let cut = Cut::before_unseal(lab.tpm.port);
    let mut settings = lab.settings();
    settings.address = TpmAddress::Swtpm(cut.port);
    for _ in 0..settings.unresolved_logins {
        let lost = TpmStore::open(settings.clone()).map(drop);
        assert!(matches!(lost, Err(TpmError::Hsm(HsmError::TokenAbsent { .. }))), "{lost:?}");
    }
    drop(cut);
    for _ in 0..2 {
        let unresolved = open(&lab).map(drop);
        assert!(matches!(unresolved, Err(TpmError::Hsm(HsmError::PinUnresolved { logins: 3, .. }))), "{unresolved:?}");
    }
    assert_eq!(counted(&lab), 0, "no login reached the TPM");
    lab.write_pin(PIN);
    open(&lab).unwrap();
    assert_eq!(fs::read_dir(lab.path("state")).unwrap().count(), 0);
}

#[test]
fn without_a_place_for_the_record_no_pin_is_tried() {
    let lab = Lab::new();
    lab.write_pin("000000");
    let mut settings = lab.settings();
    settings.state = lab.path("nowhere");
    assert!(matches!(TpmStore::open(settings), Err(TpmError::Pin(PinError::Record { .. }))));
    assert_eq!(counted(&lab), 0);
}

#[test]
fn the_pin_changes_and_the_keys_stay() {
    let lab = Lab::new();
    set_tries(&lab, 10);
    let store = open(&lab).unwrap();
    store.generate(ID, "k", SPEC).unwrap();
    store.change_pin(&Pin::new(NEW).unwrap()).unwrap();
    store.sign(ID, SCHEME, b"m").unwrap();
    drop(store);
    assert_eq!(fs::read_to_string(lab.path("pin")).unwrap(), NEW);
    open(&lab).unwrap().sign(ID, SCHEME, b"m").unwrap();
    assert_eq!(counted(&lab), 0);
    lab.write_pin(PIN);
    assert!(matches!(open(&lab), Err(TpmError::Hsm(HsmError::PinIncorrect { .. }))), "the old one");
}

/// A folder in which not even root may write.
#[test]
fn a_pin_whose_file_cannot_be_replaced_stays() {
    let lab = Lab::new();
    let file = fs::File::open(lab.path("pin")).unwrap();
    let mut settings = lab.settings();
    settings.pin_file = format!("/proc/self/fd/{}", file.as_raw_fd()).into();
    for _ in 0..2 {
        let store = TpmStore::open(settings.clone()).unwrap();
        let refused = store.change_pin(&Pin::new(NEW).unwrap()).unwrap_err().to_string();
        assert!(refused.contains("may write"), "{refused}");
        assert!(!lab.path("token").join("token.next").exists());
        store.generate(ID, "k", SPEC).map_or_else(|_| store.sign(ID, SCHEME, b"m").map(drop), |_| Ok(())).unwrap();
    }
}

/// Every state of the disk that a kill within a change can leave, made by hand. No PIN is tried in vain.
#[test]
fn whatever_a_kill_left_the_next_store_serves_with_the_pin_that_is_the_tokens() {
    let lab = Lab::new();
    set_tries(&lab, 10);
    open(&lab).unwrap().generate(ID, "k", SPEC).unwrap();
    let (token, staged, next) =
        (lab.path("token").join("token"), lab.path("token").join("token.next"), lab.path("pin.new"));
    let old = fs::read(&token).unwrap();
    open(&lab).unwrap().change_pin(&Pin::new(NEW).unwrap()).unwrap();
    let new = fs::read(&token).unwrap();
    // The new record staged, the new PIN staged, the new record in its place, the PIN in its place.
    let states = [(false, false, false), (true, false, false), (true, true, false), (false, true, true)];
    for (has_staged, has_next, is_new) in states {
        lab.write_pin(NEW);
        if has_next {
            fs::rename(lab.path("pin"), &next).unwrap();
        }
        lab.write_pin(PIN);
        // What a kill within the writing of either leaves besides.
        fs::write(lab.path("pin.new.part"), "86").unwrap();
        fs::write(lab.path("token").join(".token.next.new"), "casemate").unwrap();
        fs::write(&token, if is_new { &new } else { &old }).unwrap();
        if has_staged {
            fs::write(&staged, &new).unwrap();
        }
        let state = format!("record staged {has_staged}, PIN staged {has_next}, record new {is_new}");
        let store = open(&lab).unwrap_or_else(|error| panic!("{state}: {error}"));
        store.sign(ID, SCHEME, b"m").unwrap();
        let held = fs::read_to_string(lab.path("pin")).unwrap();
        assert_eq!(held.trim(), if is_new { NEW } else { PIN }, "{state}");
        assert!(!staged.exists() && !next.exists(), "{state}");
        // A change after it is like any other.
        store.change_pin(&Pin::new("975310").unwrap()).unwrap();
        drop(store);
        open(&lab).unwrap_or_else(|error| panic!("{state}: {error}"));
        assert_eq!(counted(&lab), 0, "{state}");
        assert!(!lab.path("pin.new.part").exists(), "{state}");
    }
}

/// The value that stands for the PIN goes to the TPM when the token is made; who listens on the bus must not see it. swtpm logs
/// every byte that it is sent.
#[test]
fn the_authorization_does_not_cross_the_bus_in_the_clear() {
    let lab = Lab::logging();
    TpmStore::initialize(&lab.settings(), "k").unwrap();
    open(&lab).unwrap();
    let record = fs::read_to_string(lab.path("token").join("token")).unwrap();
    let field = |name: &str| {
        let value = record.split(&format!("\"{name}\":\"")).nth(1).unwrap();
        hex::decode(value.split('"').next().unwrap()).unwrap()
    };
    let key = hmac::Key::new(hmac::HMAC_SHA256, &field("salt"));
    let tag = hmac::sign(&key, PIN.as_bytes());
    let value = &tag.as_ref()[..31];
    let sent = lab.traffic();
    let crossed = |bytes: &[u8]| sent.windows(bytes.len()).any(|window| window == bytes);
    assert!(crossed(&field("private")), "the log holds what was sent");
    assert!(!crossed(value) && !crossed(PIN.as_bytes()));
}

/// Neither the PIN nor what it opens may stand in the token's files.
#[test]
fn the_token_is_made_once_and_does_not_hold_its_pin() {
    let lab = Lab::new();
    let token = fs::read(lab.path("token").join("token")).unwrap();
    assert!(!token.windows(PIN.len()).any(|window| window == PIN.as_bytes()));
    let again = TpmStore::initialize(&lab.settings(), "another");
    assert!(matches!(again, Err(TpmError::AlreadyInitialized { .. })), "{again:?}");
    assert_eq!(fs::read(lab.path("token").join("token")).unwrap(), token);
    let mut settings = lab.settings();
    settings.folder = lab.path("elsewhere");
    assert!(matches!(TpmStore::open(settings), Err(TpmError::NotInitialized { .. })));
}
