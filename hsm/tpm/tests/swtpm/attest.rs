use std::{fs, time::Duration};

use casemate_hsm_api::{Backup, HsmError, KeyAlgorithm, KeyId, KeySpec, KeyStore, SignatureScheme};
use casemate_hsm_attest::{AttestError, AttestationKey, Enrolled, QUOTED_PCRS, Statement, challenge};
use casemate_hsm_tpm::TpmStore;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SubjectPublicKeyInfo,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::EndEntityCert;

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
fn a_true_statement_is_proven_and_one_of_another_key_or_nonce_is_not() {
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

/// Bytes of the chain in each index: fewer than a certificate has.
const PART: usize = 250;

/// Writes `content` into a new index of the TPM, as its maker does.
fn write_index(lab: &Lab, index: u32, content: &[u8]) {
    let (path, index) = (lab.path("content"), format!("{index:#x}"));
    fs::write(&path, content).unwrap();
    let attributes = "ownerread|authread|ppread|ppwrite|no_da|platformcreate";
    lab.tool("tpm2_nvdefine", &[&index, "-C", "p", "-s", &content.len().to_string(), "-a", attributes]);
    lab.tool("tpm2_nvwrite", &[&index, "-C", "p", "-i", path.to_str().unwrap()]);
}

/// An authority whose certificate is by `parent` or by itself, and that certificate in DER.
fn authority(name: &str, parent: Option<&Issuer<'_, KeyPair>>) -> (Issuer<'static, KeyPair>, Vec<u8>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = match parent {
        Some(parent) => params.signed_by(&key, parent),
        None => params.self_signed(&key),
    };
    let der = certificate.unwrap().der().to_vec();
    (Issuer::new(params, key), der)
}

/// The maker's own certificate signs another's, which signs a third's, which signs the TPM's. The two in between are in the TPM, one
/// behind the other over the ends of indices, among indices that are no use to anybody.
#[test]
fn the_certificates_between_the_makers_and_the_tpms_are_handed_over() {
    let (lab, _) = Lab::certified();
    let (root, maker) = authority("Root", None);
    let (upper, upper_der) = authority("Upper", Some(&root));
    let (lower, lower_der) = authority("Lower", Some(&upper));
    let store = TpmStore::open(lab.settings()).unwrap();
    let key = store.attestation_key().unwrap();
    assert_eq!(key.intermediates, [[0; 0]; 0]);
    drop(store);
    let der = CertificateDer::from(key.endorsement_certificate);
    let spki = EndEntityCert::try_from(&der).unwrap().subject_public_key_info().to_vec();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(vec![2, 23, 133, 8, 1])];
    let endorsed = params.signed_by(&SubjectPublicKeyInfo::from_der(&spki).unwrap(), &lower).unwrap();
    lab.tool("tpm2_nvundefine", &["0x01c00002", "-C", "p"]);
    write_index(&lab, 0x01c0_0002, endorsed.der());
    let store = TpmStore::open(lab.settings()).unwrap();
    let challenged = |store: &TpmStore| {
        let key = store.attestation_key().unwrap();
        challenge(&key, &[CertificateDer::from(maker.as_slice())], &[], now())
    };
    assert!(matches!(challenged(&store), Err(AttestError::Certificate { .. })), "without what is in between");
    drop(store);
    // Garbage, a header of more than there is, an index that was never written and one that asks for a password that nobody has.
    write_index(&lab, 0x01c0_0100, &[0x5a; 2048]);
    write_index(&lab, 0x01c0_0101, &[0x30, 0x82, 0xff, 0xff, 0x30, 0x82]);
    lab.tool(
        "tpm2_nvdefine",
        &["0x01c00102", "-C", "p", "-s", "64", "-a", "authread|ppread|ppwrite|no_da|platformcreate"],
    );
    let locked = ["0x01c00103", "-C", "p", "-s", "8", "-p", "secret", "-a", "authread|ppwrite|platformcreate"];
    lab.tool("tpm2_nvdefine", &locked);
    fs::write(lab.path("content"), [0; 8]).unwrap();
    lab.tool("tpm2_nvwrite", &["0x01c00103", "-C", "p", "-i", lab.path("content").to_str().unwrap()]);
    let chain = [&lower_der[..], &[0; 5], &upper_der].concat();
    assert!(upper_der.len() > PART && lower_der.len() > PART);
    for (index, part) in (0x01c0_0104..).zip(chain.chunks(PART)) {
        write_index(&lab, index, part);
    }
    // Beyond the range.
    write_index(&lab, 0x01c0_0200, &maker);
    let store = TpmStore::open(lab.settings()).unwrap();
    assert_eq!(store.attestation_key().unwrap().intermediates, [lower_der, upper_der]);
    let (sent, expected) = challenged(&store).unwrap();
    let enrolled = expected.enrol(&store.answer(&sent).unwrap()).unwrap();
    assert_eq!(enrolled.endorsement_certificate(), &endorsed.der()[..]);
    // Nothing was tried that counts as an attack.
    drop(store);
    let told = lab.tool("tpm2_getcap", &["properties-variable"]);
    assert!(told.contains("TPM2_PT_LOCKOUT_COUNTER: 0x0\n"), "{told}");
}

/// More than the bounds allow is left out, and the rest counts.
#[test]
fn a_tpm_with_too_many_certificates_hands_over_the_first() {
    let (lab, _) = Lab::certified();
    let (_, one) = authority("One", None);
    for index in 0..AttestationKey::MOST_INTERMEDIATES + 2 {
        write_index(&lab, 0x01c0_0100 + u32::try_from(index).unwrap(), &one);
    }
    let store = TpmStore::open(lab.settings()).unwrap();
    assert_eq!(store.attestation_key().unwrap().intermediates, vec![one; AttestationKey::MOST_INTERMEDIATES]);
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
