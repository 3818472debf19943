use std::{
    fs,
    path::{Path, PathBuf},
};

use aws_lc_rs::digest;
use casemate_hsm_api::{Backup, HsmError, KeyAlgorithm, KeyId, KeySpec, KeyStore, SignatureScheme};
use casemate_hsm_tpm::TpmStore;

use crate::lab::Lab;

const SPEC: KeySpec = KeySpec { algorithm: KeyAlgorithm::P256, backup: Backup::None };
const SCHEME: SignatureScheme = SignatureScheme::EcdsaP256Sha256;
const ID: KeyId = KeyId([9; 16]);

fn file(lab: &Lab, kind: &str) -> PathBuf {
    lab.path("token").join(format!("{ID}.{kind}"))
}

/// Changes a record as somebody would who knows the format: with the right checksum.
fn forge(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    let body = text.split_once('\n').unwrap().1.replace(from, to);
    let checksum = hex::encode(digest::digest(&digest::SHA256, body.as_bytes()));
    fs::write(path, format!("casemate-tpm 1 {checksum}\n{body}")).unwrap();
}

fn serial(lab: &Lab) -> String {
    TpmStore::open(lab.settings()).unwrap().token().unwrap().serial
}

fn refused(store: &TpmStore, expected: &str) {
    for answer in [
        store.sign(ID, SCHEME, b"m").map(drop),
        store.inspect(ID, None).map(drop),
        store.inspect(ID, Some(SPEC)).map(drop),
        store.remove_half(ID),
        store.generate(ID, "k", SPEC).map(drop),
    ] {
        assert!(matches!(answer, Err(HsmError::KeyNotAsSpecified { .. })), "{answer:?}");
        let text = answer.unwrap_err().to_string();
        assert!(text.contains(expected) || text.contains("whole key is not removed"), "{text}");
    }
}

#[test]
fn a_blob_of_another_tpm_is_told_and_left_alone() {
    let (own, other) = (Lab::new(), Lab::new());
    let stranger = TpmStore::open(other.settings()).unwrap();
    stranger.generate(ID, "k", SPEC).unwrap();
    drop(stranger);
    for kind in ["public", "private"] {
        fs::copy(file(&other, kind), file(&own, kind)).unwrap();
    }
    let store = TpmStore::open(own.settings()).unwrap();
    refused(&store, &format!("made by TPM {}", serial(&other)));
    assert!(matches!(store.keys(), Err(HsmError::KeyNotAsSpecified { .. })));
    let content = fs::read(file(&own, "private")).unwrap();
    assert_eq!(content, fs::read(file(&other, "private")).unwrap());
    drop(store);
    // A record that lies about its maker gets no further than the TPM.
    let (from, to) = (serial(&other), serial(&own));
    for kind in ["public", "private"] {
        forge(&file(&own, kind), &from, &to);
    }
    let store = TpmStore::open(own.settings()).unwrap();
    refused(&store, "the TPM does not take it for its own");
}

#[test]
fn a_damaged_blob_is_told_and_left_alone() {
    let lab = Lab::new();
    let store = TpmStore::open(lab.settings()).unwrap();
    store.generate(ID, "k", SPEC).unwrap();
    store.sign(ID, SCHEME, b"m").unwrap();
    for kind in ["public", "private"] {
        let good = fs::read(file(&lab, kind)).unwrap();
        let mut flipped = good.clone();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 1;
        for bad in [flipped.as_slice(), &good[..good.len() - 9], b""] {
            fs::write(file(&lab, kind), bad).unwrap();
            for answer in [
                store.sign(ID, SCHEME, b"m").map(drop),
                store.inspect(ID, Some(SPEC)).map(drop),
                store.keys().map(drop),
                store.remove_half(ID),
            ] {
                let text = answer.unwrap_err().to_string();
                assert!(text.contains("is damaged") && text.contains(kind), "{text}");
            }
            assert_eq!(fs::read(file(&lab, kind)).unwrap(), bad);
        }
        fs::write(file(&lab, kind), good).unwrap();
        store.sign(ID, SCHEME, b"m").unwrap();
    }
}

/// The public half of one key with the private half of another, each in order by itself.
#[test]
fn halves_of_two_keys_are_no_key() {
    let lab = Lab::new();
    let store = TpmStore::open(lab.settings()).unwrap();
    let second = KeyId([10; 16]);
    store.generate(ID, "k", SPEC).unwrap();
    store.generate(second, "k", SPEC).unwrap();
    fs::copy(lab.path("token").join(format!("{second}.private")), file(&lab, "private")).unwrap();
    forge(&file(&lab, "private"), &second.to_string(), &ID.to_string());
    refused(&store, "the TPM does not take it for its own");
    store.sign(second, SCHEME, b"m").unwrap();
}

/// Attributes that somebody changed in the public record do not loosen the key: the TPM refuses the pair.
#[test]
fn a_public_area_that_somebody_changed_is_refused() {
    let lab = Lab::new();
    let store = TpmStore::open(lab.settings()).unwrap();
    store.generate(ID, "k", SPEC).unwrap();
    let text = fs::read_to_string(file(&lab, "public")).unwrap();
    let area = text.split("\"public\":\"").nth(1).unwrap();
    // Type and name hash stay, and fixedTPM is taken away from the attributes.
    let attributes = u32::from_str_radix(&area[8..16], 16).unwrap();
    let (from, to) = (area[..16].to_owned(), format!("{}{:08x}", &area[..8], attributes & !(1 << 1)));
    assert_ne!(from, to);
    forge(&file(&lab, "public"), &from, &to);
    for answer in [store.sign(ID, SCHEME, b"m").map(drop), store.inspect(ID, Some(SPEC)).map(drop)] {
        assert!(matches!(answer, Err(HsmError::KeyNotAsSpecified { .. })), "{answer:?}");
    }
}

#[test]
fn a_key_for_backup_needs_a_wrapping_key_that_is_one() {
    let lab = Lab::new();
    let store = TpmStore::open(lab.settings()).unwrap();
    let made = store.generate(ID, "k", KeySpec { backup: Backup::Wrapped, ..SPEC });
    assert!(matches!(made, Err(HsmError::Unsupported { .. })), "{made:?}");
    assert!(store.keys().unwrap().is_empty());
    drop(store);
    let mut settings = lab.settings();
    settings.wrapping_key = Some(lab.path("pin"));
    assert!(TpmStore::open(settings).is_err());
}
