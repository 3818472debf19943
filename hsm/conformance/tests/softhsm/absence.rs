use std::{fs, ops::ControlFlow, time::Duration};

use casemate_hsm_api::{Backup, HsmError, KeyAlgorithm, KeyId, KeySpec, KeyState, KeyStore, SignatureScheme};
use casemate_hsm_pkcs11::{Backoff, Pkcs11Error, Pkcs11Store, TokenName, wait_for_token};

use crate::lab::{Lab, in_lab, init_token};

const SPEC: KeySpec = KeySpec { algorithm: KeyAlgorithm::P256, backup: Backup::None };
const SCHEME: SignatureScheme = SignatureScheme::EcdsaP256Sha256;
const ID: KeyId = KeyId([9; 16]);

fn pull(lab: &Lab) {
    fs::rename(lab.tokens(), lab.folder.join("drawer")).unwrap();
    fs::create_dir(lab.tokens()).unwrap();
}

fn put_back(lab: &Lab) {
    fs::remove_dir(lab.tokens()).unwrap();
    fs::rename(lab.folder.join("drawer"), lab.tokens()).unwrap();
}

#[test]
fn a_pulled_token_is_absent_and_never_empty() {
    in_lab("absence::a_pulled_token_is_absent_and_never_empty", |lab| {
        let store = Pkcs11Store::open(lab.settings()).unwrap();
        store.generate(ID, "k", SPEC).unwrap();
        store.sign(ID, SCHEME, b"m").unwrap();
        pull(lab);
        let signed = store.sign(ID, SCHEME, b"m");
        println!("signed: {signed:?}");
        let unknown = store.inspect(KeyId([8; 16]), Some(SPEC));
        assert!(matches!(unknown, Err(HsmError::TokenAbsent { .. })), "{unknown:?}");
        let known = store.inspect(ID, Some(SPEC));
        assert!(matches!(known, Err(HsmError::TokenAbsent { .. })), "{known:?}");
        let listed = store.keys();
        assert!(matches!(listed, Err(HsmError::TokenAbsent { .. })), "{listed:?}");
        let made = store.generate(KeyId([8; 16]), "k", SPEC);
        assert!(made.is_err(), "{made:?}");
        let still = store.reconnect();
        assert!(matches!(still, Err(HsmError::TokenAbsent { .. })), "{still:?}");
        let signed = store.sign(ID, SCHEME, b"m");
        assert!(matches!(signed, Err(HsmError::TokenAbsent { .. })), "{signed:?}");
        put_back(lab);
        store.reconnect().unwrap();
        assert!(matches!(store.inspect(ID, Some(SPEC)).unwrap(), KeyState::Whole(_)));
        store.sign(ID, SCHEME, b"m").unwrap();
        store.reconnect().unwrap();
        assert_eq!(store.keys().unwrap().len(), 1);
        assert_eq!(fs::read_dir(lab.folder.join("state")).unwrap().count(), 0, "no PIN was left marked");
    });
}

/// Until the store has connected again, a token that is back may hide its private keys: that must not look like a half.
#[test]
fn a_token_that_is_back_is_not_taken_for_one_with_half_a_key() {
    in_lab("absence::a_token_that_is_back_is_not_taken_for_one_with_half_a_key", |lab| {
        let store = Pkcs11Store::open(lab.settings()).unwrap();
        store.generate(ID, "k", SPEC).unwrap();
        pull(lab);
        let away = store.inspect(ID, Some(SPEC));
        assert!(matches!(away, Err(HsmError::TokenAbsent { .. })), "{away:?}");
        put_back(lab);
        match store.inspect(ID, Some(SPEC)) {
            Ok(KeyState::Whole(_)) | Err(HsmError::TokenAbsent { .. }) => {}
            other => panic!("{other:?}"),
        }
        store.reconnect().unwrap();
        assert!(matches!(store.inspect(ID, Some(SPEC)).unwrap(), KeyState::Whole(_)));
    });
}

#[test]
fn a_token_that_comes_late_is_waited_for() {
    in_lab("absence::a_token_that_comes_late_is_waited_for", |lab| {
        pull(lab);
        let mut pauses = 0;
        let store = wait_for_token(
            Backoff { first_ms: 1, limit_ms: 5 },
            || Pkcs11Store::open(lab.settings()),
            |error, _| {
                assert!(matches!(error, HsmError::TokenAbsent { .. }), "{error:?}");
                pauses += 1;
                if pauses == 2 {
                    put_back(lab);
                }
                std::thread::sleep(Duration::from_millis(1));
                if pauses > 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            },
        )
        .unwrap();
        assert_eq!(pauses, 2);
        assert!(store.keys().unwrap().is_empty());
    });
}

#[test]
fn a_label_on_two_tokens_names_neither_and_a_serial_names_one() {
    in_lab("absence::a_label_on_two_tokens_names_neither_and_a_serial_names_one", |lab| {
        init_token(lab, crate::lab::LABEL);
        let opened = Pkcs11Store::open(lab.settings()).map(|_| ());
        assert!(matches!(opened, Err(Pkcs11Error::Hsm(HsmError::Device { .. }))), "{opened:?}");
        let folder = crate::lab::token_folder(&lab.tokens());
        let name = folder.file_name().unwrap().to_str().unwrap().replace('-', "");
        // SoftHSM names the folder by the token's UUID, of which the serial number is the last part.
        let serial = name[name.len() - 16..].to_owned();
        let mut settings = lab.settings();
        settings.token = TokenName::Serial(serial.clone());
        assert_eq!(Pkcs11Store::open(settings).unwrap().token().unwrap().serial, serial);
    });
}
