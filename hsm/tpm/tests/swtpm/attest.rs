use std::time::Duration;

use casemate_hsm_api::{Backup, HsmError, KeyAlgorithm, KeyId, KeySpec, KeyStore, SignatureScheme};
use casemate_hsm_attest::{AttestError, Enrolled, QUOTED_PCRS, Statement, challenge};
use casemate_hsm_tpm::TpmStore;
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::lab::Lab;

const SPEC: KeySpec = KeySpec { algorithm: KeyAlgorithm::Rsa2048, backup: Backup::None };
const ID: KeyId = KeyId([9; 16]);
const NONCE: &[u8] = b"an auditor's thirty-two bytes...";

fn now() -> UnixTime {
    UnixTime::now()
}

/// What an auditor does once with a TPM.
fn enrol(store: &TpmStore, maker: &[u8]) -> Enrolled {
    let key = store.attestation_key().unwrap();
    let (challenge, expected) = challenge(&key, &[CertificateDer::from(maker)], &[], now()).unwrap();
    expected.enrol(&store.answer(&challenge).unwrap()).unwrap()
}

#[test]
fn a_true_statement_is_proven_and_a_changed_one_is_not() {
    let (lab, maker) = Lab::certified();
    let store = TpmStore::open(lab.settings()).unwrap();
    let spki = store.generate(ID, "CAPF", SPEC).unwrap().spki_der;
    let other = store.generate(KeyId([10; 16]), "TVS", SPEC).unwrap().spki_der;
    let enrolled = enrol(&store, &maker);
    let statement = store.attest(ID, NONCE).unwrap();
    // The key signs on, beside the attestation.
    store.sign(ID, SignatureScheme::RsaPkcs1Sha256, b"m").unwrap();
    let proof = statement.prove(&enrolled, NONCE, &spki).unwrap();
    let firmware = proof.firmware.expect("the attestation key is of the endorsement hierarchy");
    let (major, minor) = (firmware >> 48, firmware >> 32 & 0xffff);
    assert_eq!(format!("{major}.{minor}"), store.token().unwrap().firmware, "not disguised");
    let text = serde_json::to_string(&statement).unwrap();
    let read: Statement = serde_json::from_str(&text).unwrap();
    read.prove(&enrolled, NONCE, &spki).unwrap();
    let as_other = statement.prove(&enrolled, NONCE, &other);
    assert!(matches!(as_other, Err(AttestError::OtherKey { .. })), "{as_other:?}");
    let old = statement.prove(&enrolled, b"another nonce", &spki);
    assert!(matches!(old, Err(AttestError::Nonce)), "{old:?}");
    let fields: [fn(&mut Statement) -> &mut Vec<u8>; 6] = [
        |s| &mut s.public,
        |s| &mut s.certify,
        |s| &mut s.signature,
        |s| &mut s.quote.quoted,
        |s| &mut s.quote.signature,
        |s| &mut s.by.public,
    ];
    for field in fields {
        for bit in 0..field(&mut statement.clone()).len() * 8 {
            let mut changed = statement.clone();
            field(&mut changed)[bit / 8] ^= 1 << (bit % 8);
            assert!(changed.prove(&enrolled, NONCE, &spki).is_err(), "bit {bit}");
        }
    }
    // The other key's public area under this key's certification.
    let mut mixed = statement;
    mixed.public = store.attest(KeyId([10; 16]), NONCE).unwrap().public;
    let mixed = mixed.prove(&enrolled, NONCE, &other);
    assert!(matches!(mixed, Err(AttestError::OtherKey { .. })), "{mixed:?}");
}

#[test]
fn a_statement_by_a_key_that_nobody_endorsed_is_nothing() {
    let (lab, maker) = Lab::certified();
    let store = TpmStore::open(lab.settings()).unwrap();
    let enrolled = enrol(&store, &maker);
    let (other, other_maker) = Lab::certified();
    let stranger = TpmStore::open(other.settings()).unwrap();
    let spki = stranger.generate(ID, "CAPF", SPEC).unwrap().spki_der;
    let statement = stranger.attest(ID, NONCE).unwrap();
    let proven = statement.prove(&enrolled, NONCE, &spki);
    assert!(matches!(proven, Err(AttestError::Unendorsed)), "{proven:?}");
    // Its maker is not one that the auditor named, and a challenge for one TPM is opened by no other.
    let key = stranger.attestation_key().unwrap();
    let unnamed = challenge(&key, &[CertificateDer::from(maker.as_slice())], &[], now());
    assert!(matches!(unnamed, Err(AttestError::Certificate { .. })), "{unnamed:?}");
    let (for_stranger, expected) =
        challenge(&key, &[CertificateDer::from(other_maker.as_slice())], &[], now()).unwrap();
    let answered = store.answer(&for_stranger);
    assert!(matches!(answered, Err(HsmError::Device { .. })), "{answered:?}");
    enrol(&store, &maker);
    let guessed = expected.enrol(&[0; 32]);
    assert!(matches!(guessed, Err(AttestError::WrongAnswer)), "{guessed:?}");
}

/// The certificate of a good TPM with an attestation key from elsewhere: the good TPM does not open the challenge.
#[test]
fn a_borrowed_certificate_enrols_no_key() {
    let (lab, maker) = Lab::certified();
    let (other, _) = Lab::certified();
    let store = TpmStore::open(lab.settings()).unwrap();
    let stranger = TpmStore::open(other.settings()).unwrap();
    let mut mixed = stranger.attestation_key().unwrap();
    mixed.endorsement_certificate = store.attestation_key().unwrap().endorsement_certificate;
    let (challenge, _) = challenge(&mixed, &[CertificateDer::from(maker.as_slice())], &[], now()).unwrap();
    for store in [&store, &stranger] {
        let answered = store.answer(&challenge);
        assert!(matches!(answered, Err(HsmError::Device { .. })), "{answered:?}");
    }
}

/// A key that signs anything could sign a forged attestation: it is refused as an attestation key before any challenge.
#[test]
fn an_ordinary_key_is_no_attestation_key() {
    let (lab, maker) = Lab::certified();
    let store = TpmStore::open(lab.settings()).unwrap();
    store.generate(ID, "k", KeySpec { algorithm: KeyAlgorithm::P256, backup: Backup::None }).unwrap();
    let mut key = store.attestation_key().unwrap();
    key.public = store.attest(ID, NONCE).unwrap().public;
    let made = challenge(&key, &[CertificateDer::from(maker.as_slice())], &[], now());
    assert!(matches!(made, Err(AttestError::NoAttestationKey { .. })), "{made:?}");
}

#[test]
fn an_expired_certificate_and_a_tpm_without_one_enrol_nothing() {
    let (lab, maker) = Lab::certified();
    let store = TpmStore::open(lab.settings()).unwrap();
    let key = store.attestation_key().unwrap();
    let long_ago = UnixTime::since_unix_epoch(Duration::from_secs(1_000_000_000));
    let made = challenge(&key, &[CertificateDer::from(maker.as_slice())], &[], long_ago);
    assert!(matches!(made, Err(AttestError::Certificate { .. })), "{made:?}");
    let bare = Lab::new();
    let store = TpmStore::open(bare.settings()).unwrap();
    let none = store.attestation_key();
    assert!(matches!(none, Err(HsmError::Unproven { .. })), "{none:?}");
    store.generate(ID, "k", SPEC).unwrap();
    store.sign(ID, SignatureScheme::RsaPkcs1Sha256, b"m").unwrap();
}

/// The quoted registers are the ones that another program reads; what is measured later is another statement, and no half of one
/// goes with a half of the other.
#[test]
fn the_start_of_the_machine_is_quoted_as_another_program_reads_it() {
    let (lab, maker) = Lab::certified();
    let store = TpmStore::open(lab.settings()).unwrap();
    let spki = store.generate(ID, "CAPF", SPEC).unwrap().spki_der;
    let enrolled = enrol(&store, &maker);
    let before = store.attest(ID, NONCE).unwrap();
    drop(store);
    // Of the package tpm2-tools: what firmware does when it measures something.
    for index in [4, 11] {
        lab.tool("tpm2_pcrextend", &[&format!("{index}:sha256={}", "5a".repeat(32))]);
    }
    let read = lab.tool("tpm2_pcrread", &["sha256:0,1,2,3,4,5,6,7,11"]).to_lowercase();
    let store = TpmStore::open(lab.settings()).unwrap();
    let after = store.attest(ID, NONCE).unwrap();
    let pcrs = after.prove(&enrolled, NONCE, &spki).unwrap().pcrs;
    assert_eq!(pcrs.iter().map(|pcr| pcr.index).collect::<Vec<_>>(), QUOTED_PCRS);
    for pcr in &pcrs {
        let value = format!("{:<2}: 0x{}", pcr.index, hex::encode(pcr.sha256));
        assert!(read.contains(&value), "{value}: {read}");
    }
    let changed: Vec<_> = pcrs.iter().zip(&before.quote.pcrs).filter(|(now, then)| now != then).collect();
    assert_eq!(changed.len(), 2);
    let mut mixed = after.clone();
    mixed.quote.pcrs.clone_from(&before.quote.pcrs);
    let proven = mixed.prove(&enrolled, NONCE, &spki);
    assert!(matches!(proven, Err(AttestError::Pcrs { .. })), "{proven:?}");
    // With another nonce's quote it is no answer to this one.
    mixed.quote = store.attest(ID, b"another nonce").unwrap().quote;
    let proven = mixed.prove(&enrolled, NONCE, &spki);
    assert!(matches!(proven, Err(AttestError::Nonce)), "{proven:?}");
}

/// What was said of the key before the machine was started again, and what was said of the machine afterwards.
#[test]
fn halves_of_two_starts_are_no_statement() {
    let (mut lab, maker) = Lab::certified();
    let store = TpmStore::open(lab.settings()).unwrap();
    let spki = store.generate(ID, "CAPF", SPEC).unwrap().spki_der;
    let enrolled = enrol(&store, &maker);
    let before = store.attest(ID, NONCE).unwrap();
    lab.tpm.restart();
    store.reconnect().unwrap();
    let mut mixed = store.attest(ID, NONCE).unwrap();
    mixed.prove(&enrolled, NONCE, &spki).unwrap();
    mixed.quote = before.quote;
    let proven = mixed.prove(&enrolled, NONCE, &spki);
    assert!(matches!(proven, Err(AttestError::StartedBetween)), "{proven:?}");
}
