//! What the trust list says, and when it is signed.
#![allow(clippy::unwrap_used, clippy::panic)] // a step that fails is a test that fails
#![allow(dead_code)] // the support is shared

mod support;

use std::sync::atomic::Ordering;

use casemate_ctlprovider::{CtlproviderError, Identities, TrustListPlan};
use casemate_phonefile::{
    Content, Digest, Limits, Modulus, PhoneFileError, Role, Sha1, SignedFile, SignerKey, SignerVersion,
};
use casemate_runtime::config::NodeSection;
use support::identities;

/// The list of phones that hold none.
fn first_list(identities: &Identities, node: &NodeSection, https: bool) -> TrustListPlan {
    TrustListPlan::following(None, None, identities, node, https).unwrap()
}

#[test]
fn the_list_has_two_sast_and_every_service_and_a_phone_takes_it() {
    let (identities, signer, _) = identities();
    let plan = first_list(&identities, &NodeSection::default(), true);
    let list = plan.sign(&signer, 1_700_000_000, &Limits::default()).unwrap();
    let file = SignedFile::parse(&list.bytes, &Limits::default()).unwrap();
    assert_eq!((file.digest, file.modulus), (Digest::Sha512, Modulus::Bits2048));
    file.verify(&[SignerKey::of_certificate(&identities.recovery)], Sha1::Refused).unwrap();
    let Content::TrustList(content) = &file.content else { panic!("no list") };
    assert_eq!(content.signer_version(), Some(SignerVersion::V1_1));
    let records: Vec<_> = content.records().iter().map(|record| (record.role, &*record.certificate)).collect();
    assert_eq!(
        records,
        [
            (Role::Sast, &*identities.recovery.der),
            (Role::Sast, &*identities.call_manager.der),
            (Role::CcmTftp, &*identities.call_manager.der),
            (Role::Tftp, &*identities.call_manager_ecdsa.der),
            (Role::Capf, &*identities.capf.der),
            (Role::Tvs, &*identities.tvs.der),
        ]
    );
    assert_eq!((list.records, list.certificates), (6, 5));
}

#[test]
fn without_https_no_curve_is_offered() {
    let (identities, signer, _) = identities();
    let plan = first_list(&identities, &NodeSection::default(), false);
    let list = plan.sign(&signer, 1, &Limits::default()).unwrap();
    let file = SignedFile::parse(&list.bytes, &Limits::default()).unwrap();
    let Content::TrustList(content) = &file.content else { panic!("no list") };
    assert_eq!(content.signer_version(), Some(SignerVersion::V1_0));
    assert!(content.records().iter().all(casemate_phonefile::Record::is_rsa));
}

#[test]
fn a_list_is_current_until_a_certificate_or_setting_changes_or_a_byte_flips() {
    let (identities, signer, _) = identities();
    let (node, limits) = (NodeSection::default(), Limits::default());
    let plan = first_list(&identities, &node, true);
    let list = plan.sign(&signer, 1, &limits).unwrap();
    // Another second, as after a restart.
    assert!(plan.is_in(&list.bytes, &limits));
    let mut other = identities.clone();
    other.tvs = support::rsa(casemate_hsm_api::KeyRole::Tvs).1;
    assert!(!first_list(&other, &node, true).is_in(&list.bytes, &limits));
    assert!(!first_list(&identities, &node, false).is_in(&list.bytes, &limits));
    let moved = NodeSection { address: [192, 0, 2, 7].into(), ..node };
    assert!(!first_list(&identities, &moved, true).is_in(&list.bytes, &limits));
    for at in (0..list.bytes.len()).step_by(97) {
        let mut flipped = list.bytes.clone();
        flipped[at] ^= 1;
        assert!(!plan.is_in(&flipped, &limits), "byte {at}");
    }
}

#[test]
fn a_signature_by_another_key_is_never_published() {
    let (identities, _, other) = identities();
    let plan = first_list(&identities, &NodeSection::default(), true);
    let error = plan.sign(&other, 1, &Limits::default()).unwrap_err();
    assert!(matches!(error, CtlproviderError::Content { source: PhoneFileError::BadSignature { .. }, .. }), "{error}");
}

#[test]
fn a_list_that_phones_cannot_hold_is_not_even_signed() {
    let (identities, signer, _) = identities();
    let plan = first_list(&identities, &NodeSection::default(), true);
    let small = Limits { list_bytes: 4096, ..Limits::default() };
    let error = plan.sign(&signer, 1, &small).unwrap_err();
    assert!(matches!(error, CtlproviderError::Content { source: PhoneFileError::TooLarge { .. }, .. }), "{error}");
    assert_eq!(signer.signed.load(Ordering::Relaxed), 0);
}
