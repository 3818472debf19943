//! A statement of a TPM that is no more (tests/vectors), judged where there is no TPM.
#![forbid(unsafe_code)]
// Clippy allows it in test functions, and not in what they share.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use casemate_hsm_attest::{Answer, AttestError, Enrolled, Expected, QUOTED_PCRS, Statement, challenge};
use rustls_pki_types::{CertificateDer, UnixTime};
use serde::Deserialize;

/// 2026-12-01, a week after the certificates were made.
const THEN: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(1_796_083_200));

#[derive(Deserialize)]
struct Vector {
    #[serde(with = "hex::serde")]
    maker: Vec<u8>,
    #[serde(with = "hex::serde")]
    nonce: Vec<u8>,
    #[serde(with = "hex::serde")]
    spki: Vec<u8>,
    enrolled: Enrolled,
    statement: Statement,
}

fn vector() -> Vector {
    serde_json::from_str(include_str!("vectors/swtpm.json")).unwrap()
}

#[test]
fn the_statement_is_true_for_its_key_and_nonce() {
    let Vector { nonce, spki, enrolled, statement, .. } = vector();
    let proof = statement.prove(&enrolled, &nonce, &spki).unwrap();
    assert_eq!(proof.firmware, Some(0x2019_1023_0016_3636), "libtpms 0.9 tells the date of its specification");
    assert_eq!(proof.pcrs, statement.quote.pcrs);
    assert_eq!(proof.pcrs.iter().map(|pcr| pcr.index).collect::<Vec<_>>(), QUOTED_PCRS);
    assert!(matches!(statement.prove(&enrolled, b"", &spki), Err(AttestError::Nonce)));
    assert!(matches!(statement.prove(&enrolled, &nonce, b""), Err(AttestError::OtherKey { .. })));
}

#[test]
fn any_flipped_bit_makes_it_nothing() {
    let Vector { nonce, spki, enrolled, statement, .. } = vector();
    let fields: [fn(&mut Statement) -> &mut Vec<u8>; 7] = [
        |s| &mut s.public,
        |s| &mut s.certify,
        |s| &mut s.signature,
        |s| &mut s.quote.quoted,
        |s| &mut s.quote.signature,
        |s| &mut s.by.public,
        |s| &mut s.by.endorsement_certificate,
    ];
    for field in fields {
        for bit in 0..field(&mut statement.clone()).len() * 8 {
            let mut changed = statement.clone();
            field(&mut changed)[bit / 8] ^= 1 << (bit % 8);
            assert!(changed.prove(&enrolled, &nonce, &spki).is_err(), "bit {bit}");
        }
    }
}

/// Whatever is said of a register that the TPM did not say: another value, fewer of them, others, another order.
#[test]
fn other_registers_than_the_quoted_ones_are_not_believed() {
    let Vector { nonce, spki, enrolled, statement, .. } = vector();
    let refused = |change: &dyn Fn(&mut Statement)| {
        let mut changed = statement.clone();
        change(&mut changed);
        let proven = changed.prove(&enrolled, &nonce, &spki);
        assert!(matches!(proven, Err(AttestError::Pcrs { .. })), "{proven:?}");
    };
    for place in 0..QUOTED_PCRS.len() {
        for bit in 0..256 {
            refused(&|changed| changed.quote.pcrs[place].sha256[bit / 8] ^= 1 << (bit % 8));
        }
        refused(&|changed| changed.quote.pcrs.truncate(place));
        refused(&|changed| changed.quote.pcrs[place].index ^= 16);
    }
    refused(&|changed| changed.quote.pcrs.reverse());
    refused(&|changed| changed.quote.pcrs.clear());
    // The certification in the place of the quote, and the other way: each is only what it is.
    let mut swapped = statement.clone();
    (swapped.quote.quoted, swapped.quote.signature) = (swapped.certify.clone(), swapped.signature.clone());
    assert!(matches!(swapped.prove(&enrolled, &nonce, &spki), Err(AttestError::Malformed { .. })));
    let mut swapped = statement.clone();
    (swapped.certify, swapped.signature) = (swapped.quote.quoted.clone(), swapped.quote.signature.clone());
    assert!(matches!(swapped.prove(&enrolled, &nonce, &spki), Err(AttestError::Malformed { .. })));
}

/// A statement whose public area is made to allow more is about another key: the TPM signed the area's hash.
#[test]
fn a_loosened_key_is_another_key() {
    let Vector { nonce, spki, enrolled, mut statement, .. } = vector();
    // The attributes are bytes 4 to 7; fixedTPM is bit 1.
    statement.public[7] &= !2;
    assert!(matches!(statement.prove(&enrolled, &nonce, &spki), Err(AttestError::OtherKey { .. })));
}

/// What the auditor keeps between challenge and answer survives its file, and a file without a secret enrols nothing.
#[test]
fn what_was_kept_of_a_challenge_enrols_by_its_secret_alone() {
    let Vector { maker, statement, enrolled, .. } = vector();
    let (_, expected) = challenge(&statement.by, &[CertificateDer::from(maker)], &[], THEN).unwrap();
    let mut kept = serde_json::to_value(&expected).unwrap();
    let answer: Answer = serde_json::from_value(serde_json::json!({ "secret": kept["secret"] })).unwrap();
    let read = |kept: &serde_json::Value| serde_json::from_value::<Expected>(kept.clone()).unwrap();
    assert_eq!(read(&kept).enrol(&answer.secret).unwrap(), enrolled);
    assert!(matches!(read(&kept).enrol(&[0; 32]), Err(AttestError::WrongAnswer)));
    assert!(!format!("{answer:?}{expected:?}").contains(kept["secret"].as_str().unwrap()));
    kept["secret"] = "".into();
    assert!(matches!(read(&kept).enrol(&[]), Err(AttestError::Malformed { .. })));
}

#[test]
fn a_challenge_needs_a_certificate_of_a_named_maker_in_its_time() {
    let Vector { maker, statement, .. } = vector();
    let maker = CertificateDer::from(maker);
    let (one, _) = challenge(&statement.by, std::slice::from_ref(&maker), &[], THEN).unwrap();
    let (other, expected) = challenge(&statement.by, std::slice::from_ref(&maker), &[], THEN).unwrap();
    assert_ne!(one, other, "each challenge has a secret of its own");
    assert!(matches!(expected.enrol(&other.credential), Err(AttestError::WrongAnswer)));
    let nobody = challenge(&statement.by, &[], &[], THEN);
    assert!(matches!(nobody, Err(AttestError::Certificate { .. })));
    let before = UnixTime::since_unix_epoch(Duration::from_secs(1_000_000_000));
    assert!(matches!(challenge(&statement.by, &[maker], &[], before), Err(AttestError::Certificate { .. })));
    let mut mixed = statement.by.clone();
    mixed.public = statement.public;
    let ordinary = challenge(&mixed, &[], &[], THEN);
    assert!(matches!(ordinary, Err(AttestError::NoAttestationKey { .. })), "{ordinary:?}");
}
