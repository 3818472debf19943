use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    thread,
    time::Duration,
};

use casemate_hsm_api::{Backup, HsmError, KeyAlgorithm, KeyId, KeySpec, KeyState, KeyStore, SignatureScheme};
use casemate_hsm_pkcs11::Pkcs11Store;

use crate::lab::{Lab, in_lab};

const SPEC: KeySpec = KeySpec { algorithm: KeyAlgorithm::Rsa2048, backup: Backup::None };

/// Starts a generation in another process and kills it `after` it began.
fn interrupt(lab: &Lab, id: KeyId, after: Duration) {
    let mut child =
        lab.probe_command(&lab.settings(), &["generate", &id.to_string()]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line.trim(), "generating");
    thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// What the owner of a recorded identifier does after a crash, in the trait's words.
fn finish(store: &Pkcs11Store, id: KeyId) -> (KeyState, Result<(), HsmError>) {
    let found = store.inspect(id, Some(SPEC)).unwrap();
    let finished = match found {
        KeyState::Whole(_) => Ok(()),
        KeyState::Absent => store.generate(id, "probe", SPEC).map(drop),
        KeyState::Half => store.remove_half(id).and_then(|()| store.generate(id, "probe", SPEC).map(drop)),
    };
    (found, finished)
}

#[test]
fn a_generation_killed_anywhere_ends_with_one_key() {
    in_lab("generation::a_generation_killed_anywhere_ends_with_one_key", |lab| {
        let ids: Vec<KeyId> = (0..24).map(|number| KeyId([number; 16])).collect();
        for (number, id) in ids.iter().enumerate() {
            // An RSA-2048 key takes SoftHSM between 20 ms and 400 ms; the steps reach from before to after.
            interrupt(lab, *id, Duration::from_millis(number as u64 * 17));
        }
        let store = Pkcs11Store::open(lab.settings()).unwrap();
        for id in &ids {
            let (found, finished) = finish(&store, *id);
            let found = match found {
                KeyState::Whole(_) => "whole".to_owned(),
                other => format!("{other:?}"),
            };
            println!("{id}: found {found}");
            finished.unwrap();
            store.sign(*id, SignatureScheme::RsaPkcs1Sha256, b"m").unwrap();
        }
        assert_eq!(store.keys().unwrap().len(), ids.len());
        let listed = lab.as_user(&["--list-objects", "--type", "privkey"]).unwrap();
        assert_eq!(listed.matches("Private Key Object").count(), ids.len(), "{listed}");
    });
}

/// An object that was begun and not filled: SoftHSM stores a key pair in several steps.
#[test]
fn a_pair_without_numbers_is_a_half() {
    in_lab("generation::a_pair_without_numbers_is_a_half", |lab| {
        let id = KeyId([0x11; 16]);
        let other = KeyId([0x12; 16]);
        let store = Pkcs11Store::open(lab.settings()).unwrap();
        store.generate(id, "k", SPEC).unwrap();
        let signed = store.sign(other, SignatureScheme::RsaPkcs1Sha256, b"m");
        assert!(matches!(signed, Err(HsmError::KeyMissing { .. })), "{signed:?}");
        lab.as_user(&["--delete-object", "--type", "pubkey", "--id", &id.to_string()]).unwrap();
        // The cached handle of the private half still works in the token; a fresh look must not call it a key.
        assert_eq!(store.inspect(id, Some(SPEC)).unwrap(), KeyState::Half);
    });
}
