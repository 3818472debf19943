use std::time::Duration;

use casemate_hsm_api::{Backup, HsmError, KeyAlgorithm, KeyId, KeySpec, KeyStore, SignatureScheme};
use casemate_hsm_tpm::{TpmError, TpmStore};

use crate::lab::Lab;

const SPEC: KeySpec = KeySpec { algorithm: KeyAlgorithm::P256, backup: Backup::None };
const SCHEME: SignatureScheme = SignatureScheme::EcdsaP256Sha256;

/// swtpm has room for three objects, and the storage key is one of them.
#[test]
fn more_keys_than_the_tpm_has_room_for_are_used_in_turn() {
    let lab = Lab::new();
    for loaded_keys in [1, 2, 16] {
        let mut settings = lab.settings();
        settings.loaded_keys = loaded_keys;
        let store = TpmStore::open(settings).unwrap();
        for number in 0..6 {
            let id = KeyId([number; 16]);
            let public = match store.inspect(id, Some(SPEC)).unwrap() {
                casemate_hsm_api::KeyState::Whole(public) => public,
                _ => store.generate(id, "k", SPEC).unwrap(),
            };
            for known in 0..=number {
                let signature = store.sign(KeyId([known; 16]), SCHEME, b"m").unwrap();
                let own = casemate_hsm_conformance::verifies(&public, SCHEME, b"m", &signature);
                assert_eq!(own, known == number, "{loaded_keys} loaded: each key signs for itself");
            }
        }
    }
}

#[test]
fn what_another_process_left_in_the_tpm_is_flushed_only_if_nobody_else_uses_it() {
    let lab = Lab::new();
    // Without a resource manager the tools leave what they load.
    for _ in 0..3 {
        lab.tool("tpm2_createprimary", &["-C", "o", "-Q", "-c", lab.path("context").to_str().unwrap()]);
    }
    let mut shared = lab.settings();
    shared.exclusive = Some(false);
    let opened = TpmStore::open(shared.clone()).map(drop);
    assert!(matches!(opened, Err(TpmError::Hsm(HsmError::TokenFull { .. }))), "{opened:?}");
    TpmStore::open(lab.settings()).unwrap();
    // So many sessions that the TPM has no handle for one more.
    for _ in 0..64 {
        lab.tool("tpm2_startauthsession", &["-S", lab.path("session").to_str().unwrap()]);
    }
    let opened = TpmStore::open(shared).map(drop);
    assert!(matches!(opened, Err(TpmError::Hsm(HsmError::TokenFull { .. }))), "{opened:?}");
    TpmStore::open(lab.settings()).unwrap();
}

#[test]
fn a_token_takes_as_many_keys_as_the_settings_allow() {
    let lab = Lab::new();
    let mut settings = lab.settings();
    settings.keys = 2;
    let store = TpmStore::open(settings).unwrap();
    for number in 0..2 {
        store.generate(KeyId([number; 16]), "k", SPEC).unwrap();
    }
    let third = store.generate(KeyId([2; 16]), "k", SPEC);
    assert!(matches!(third, Err(HsmError::TokenFull { .. })), "{third:?}");
    assert_eq!(store.keys().unwrap().len(), 2);
}

#[test]
fn what_the_tpm_has_not_is_refused_by_name() {
    let lab = Lab::new();
    let store = TpmStore::open(lab.settings()).unwrap();
    let offered = store.token().unwrap().algorithms;
    assert!(!offered.contains(&KeyAlgorithm::Rsa4096), "libtpms 0.9 makes no RSA-4096: {offered:?}");
    let made = store.generate(KeyId([1; 16]), "k", KeySpec { algorithm: KeyAlgorithm::Rsa4096, backup: Backup::None });
    assert!(matches!(made, Err(HsmError::Unsupported { .. })), "{made:?}");
    assert!(made.unwrap_err().to_string().contains("RSA-4096"));
}

#[test]
fn one_store_a_folder() {
    let lab = Lab::new();
    let first = TpmStore::open(lab.settings()).unwrap();
    let second = TpmStore::open(lab.settings()).map(drop);
    assert!(matches!(second, Err(TpmError::InUse { .. })), "{second:?}");
    drop(first);
    TpmStore::open(lab.settings()).unwrap();
}

/// Prints the rates; `casemate-bench` is where numbers are made that count.
#[test]
fn the_bare_tpm_has_a_rate() {
    let lab = Lab::new();
    let store = TpmStore::open(lab.settings()).unwrap();
    for (number, algorithm, scheme) in
        [(1, KeyAlgorithm::Rsa2048, SignatureScheme::RsaPkcs1Sha256), (2, KeyAlgorithm::P256, SCHEME)]
    {
        let id = KeyId([number; 16]);
        store.generate(id, "k", KeySpec { algorithm, backup: Backup::None }).unwrap();
        let rate = store.raw_rate(id, scheme, Duration::from_millis(500)).unwrap().per_second();
        println!("{algorithm}: {rate:.0} signatures a second");
        assert!(rate > 1.0);
    }
}
