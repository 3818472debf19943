use std::fs;

use casemate_hsm_api::HsmError;
use casemate_hsm_pkcs11::{Pkcs11Error, Pkcs11Store};

use crate::lab::{Lab, PIN, in_lab, token_folder};

/// `CK_TOKEN_INFO.flags` (PKCS#11 v2.40, table 9).
const FINAL_TRY: u64 = 0x0002_0000;
const LOCKED: u64 = 0x0004_0000;
/// RNG, login required, PIN initialised, restore key not needed, token initialised: what SoftHSM gives a new token.
const FRESH: u64 = 0x0000_042d;

pub(crate) fn flags(lab: &Lab) -> String {
    let slots = lab.pkcs11_tool(&["--list-token-slots"]).unwrap();
    slots.lines().find(|line| line.contains("token flags")).unwrap().to_owned()
}

pub(crate) fn records(lab: &Lab) -> usize {
    fs::read_dir(lab.folder.join("state")).unwrap().count()
}

#[test]
fn a_wrong_pin_is_not_tried_twice_across_processes() {
    in_lab("pin::a_wrong_pin_is_not_tried_twice_across_processes", |lab| {
        lab.write_pin("000000");
        assert_eq!(lab.probe(&lab.settings(), &["login"]), "PinIncorrect");
        assert!(flags(lab).contains("user PIN count low"), "{}", flags(lab));
        // A good login by somebody else takes the flag away: if it comes back, the PIN was tried again.
        lab.as_user(&["--list-objects"]).unwrap();
        assert!(!flags(lab).contains("count low"), "{}", flags(lab));
        for _ in 0..3 {
            assert_eq!(lab.probe(&lab.settings(), &["login"]), "PinRefusedBefore");
        }
        assert!(!flags(lab).contains("count low"), "the wrong PIN was tried again: {}", flags(lab));
        assert_eq!(records(lab), 1);
        lab.write_pin(PIN);
        assert_eq!(lab.probe(&lab.settings(), &["login"]), "ok");
        assert_eq!(records(lab), 0);
        assert!(!flags(lab).contains("final") && !flags(lab).contains("locked"), "{}", flags(lab));
    });
}

#[test]
fn a_wrong_pin_is_not_tried_twice_within_a_process() {
    in_lab("pin::a_wrong_pin_is_not_tried_twice_within_a_process", |lab| {
        lab.write_pin("000000");
        let open = || Pkcs11Store::open(lab.settings(), lab.files()).map(|_| ());
        assert!(matches!(open(), Err(Pkcs11Error::Hsm(HsmError::PinIncorrect { .. }))));
        assert!(matches!(open(), Err(Pkcs11Error::Hsm(HsmError::PinRefusedBefore { .. }))));
        lab.write_pin(PIN);
        open().unwrap();
    });
}

/// Sets the flags in SoftHSM's token file, where they stand as a big-endian number of eight bytes.
fn set_flags(lab: &Lab, from: u64, to: u64) {
    let path = token_folder(&lab.tokens()).join("token.object");
    let mut content = fs::read(&path).unwrap();
    let places: Vec<usize> =
        content.windows(8).enumerate().filter(|(_, bytes)| *bytes == from.to_be_bytes()).map(|(at, _)| at).collect();
    let [place] = places[..] else { panic!("flags {from:x} stand at {places:?}") };
    content[place..place + 8].copy_from_slice(&to.to_be_bytes());
    fs::write(path, content).unwrap();
}

#[test]
fn a_token_with_one_try_left_or_none_is_not_tried() {
    in_lab("pin::a_token_with_one_try_left_or_none_is_not_tried", |lab| {
        set_flags(lab, FRESH, FRESH | FINAL_TRY);
        assert_eq!(lab.probe(&lab.settings(), &["login"]), "PinLastTry");
        set_flags(lab, FRESH | FINAL_TRY, FRESH | LOCKED);
        assert_eq!(lab.probe(&lab.settings(), &["login"]), "PinLocked");
        assert_eq!(records(lab), 0, "nothing was marked as tried");
        set_flags(lab, FRESH | LOCKED, FRESH);
        assert_eq!(lab.probe(&lab.settings(), &["login"]), "ok");
    });
}

#[test]
fn without_a_place_for_the_record_no_pin_is_tried() {
    in_lab("pin::without_a_place_for_the_record_no_pin_is_tried", |lab| {
        lab.write_pin("000000");
        fs::remove_dir(lab.files().state).unwrap();
        assert_eq!(lab.probe(&lab.settings(), &["login"]), "Record");
        assert!(!flags(lab).contains("count low"), "{}", flags(lab));
    });
}
