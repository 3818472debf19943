use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    thread,
    time::Duration,
};

use casemate_hsm_api::{Backup, HsmError, KeyAlgorithm, KeyId, KeySpec, KeyState, KeyStore, SignatureScheme};
use casemate_hsm_pkcs11::Pkcs11Store;

use crate::lab::{Lab, in_lab};

const SPEC: KeySpec = KeySpec { algorithm: KeyAlgorithm::P256, backup: Backup::None };

/// Starts a generation in another process and kills it `after` it began.
fn interrupt(lab: &Lab, id: KeyId, after: Duration) {
    let mut child =
        lab.probe_command(&lab.settings(), &["generate", &id.to_string()]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    // Kept to the end: the child must not die of a closed pipe instead.
    let mut output = BufReader::new(child.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
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
            // Most of the time of a P-256 generation goes into storing its halves; the steps reach from before to after.
            interrupt(lab, *id, Duration::from_millis(number as u64 * 12));
        }
        let left = lab.as_user(&["--list-objects"]).unwrap();
        let count = |kind: &str| left.matches(kind).count();
        println!("left: {} private, {} public", count("Private Key Object"), count("Public Key Object"));
        let store = Pkcs11Store::open(lab.settings(), lab.files()).unwrap();
        for id in &ids {
            let (found, finished) = finish(&store, *id);
            let found = match found {
                KeyState::Whole(_) => "whole".to_owned(),
                other => format!("{other:?}"),
            };
            println!("{id}: found {found}");
            finished.unwrap();
            store.sign(*id, SignatureScheme::EcdsaP256Sha256, b"m").unwrap();
        }
        assert_eq!(store.keys().unwrap().len(), ids.len());
        let listed = lab.as_user(&["--list-objects", "--type", "privkey"]).unwrap();
        for id in &ids {
            assert_eq!(listed.matches(&id.to_string()).count(), 1, "{listed}");
        }
        // What else is left are SoftHSM's empty shells, objects that got neither identifier nor key.
        assert_eq!(listed.matches("local").count(), ids.len(), "{listed}");
    });
}

#[test]
fn a_key_that_loses_a_half_is_no_key_to_who_looks_again() {
    in_lab("generation::a_key_that_loses_a_half_is_no_key_to_who_looks_again", |lab| {
        let id = KeyId([0x11; 16]);
        let store = Pkcs11Store::open(lab.settings(), lab.files()).unwrap();
        store.generate(id, "k", SPEC).unwrap();
        lab.as_user(&["--delete-object", "--type", "pubkey", "--id", &id.to_string()]).unwrap();
        assert_eq!(store.inspect(id, Some(SPEC)).unwrap(), KeyState::Half);
        assert!(store.keys().unwrap().is_empty());
        drop(store);
        let store = Pkcs11Store::open(lab.settings(), lab.files()).unwrap();
        let signed = store.sign(id, SignatureScheme::EcdsaP256Sha256, b"m");
        assert!(matches!(signed, Err(HsmError::KeyMissing { .. })), "{signed:?}");
    });
}
