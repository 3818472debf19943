//! Every reader is total: whatever the bytes, an answer and no panic.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in test functions; these are their own helpers

use casemate_hsm_api::KeyAlgorithm;
use casemate_pki::{CertificateFacts, CsrFacts, PkiError, SpkiFacts, TbsFacts};
use proptest::prelude::*;
use rcgen::{CertificateParams, KeyPair, PublicKeyData, RsaKeySize};

fn certificate() -> Vec<u8> {
    static DER: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    DER.get_or_init(|| {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        CertificateParams::new(vec!["a.example".to_owned()]).unwrap().self_signed(&key).unwrap().der().to_vec()
    })
    .clone()
}

fn read_all(bytes: &[u8]) {
    let _ = CertificateFacts::parse(bytes);
    let _ = TbsFacts::parse(bytes);
    let _ = CsrFacts::parse(bytes);
    let _ = SpkiFacts::parse(bytes);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        read_all(&bytes);
    }

    #[test]
    fn a_spoiled_certificate_never_panics(at in any::<prop::sample::Index>(), value in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut der = certificate();
        let at = at.index(der.len());
        der[at] = value;
        read_all(&der);
        // The parts, too.
        for start in [4, 8] {
            read_all(&der[start..]);
        }
        let end = cut.index(der.len());
        prop_assert!(CertificateFacts::parse(&der[..end]).is_err());
    }
}

#[test]
fn every_key_that_is_used_is_read() {
    let curves = [
        (&rcgen::PKCS_ECDSA_P256_SHA256, KeyAlgorithm::P256),
        (&rcgen::PKCS_ECDSA_P384_SHA384, KeyAlgorithm::P384),
        (&rcgen::PKCS_ECDSA_P521_SHA512, KeyAlgorithm::P521),
    ];
    for (scheme, algorithm) in curves {
        let key = KeyPair::generate_for(scheme).unwrap();
        let mut spki = key.subject_public_key_info();
        let facts = SpkiFacts::parse(&spki).unwrap();
        assert_eq!((facts.algorithm, &*facts.public_key), (algorithm, key.der_bytes()));
        *spki.last_mut().unwrap() ^= 1;
        assert!(
            matches!(SpkiFacts::parse(&spki), Err(PkiError::KeyInvalid { .. })),
            "a point beside the {algorithm} curve"
        );
    }
    let sizes = [(RsaKeySize::_2048, KeyAlgorithm::Rsa2048), (RsaKeySize::_3072, KeyAlgorithm::Rsa3072)];
    for (size, algorithm) in sizes {
        let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size).unwrap();
        assert_eq!(SpkiFacts::parse(&key.subject_public_key_info()).unwrap().algorithm, algorithm);
    }
}

#[test]
fn keys_that_are_not_used_are_refused_by_their_reason() {
    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let refusal = SpkiFacts::parse(&ed25519.subject_public_key_info());
    assert!(matches!(refusal, Err(PkiError::KeyAlgorithm { .. })));

    let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let spki = key.subject_public_key_info();
    // The exponent is the last INTEGER: 02 03 01 00 01.
    let with_exponent = |last: u8, first: u8| {
        let mut spki = spki.clone();
        let end = spki.len();
        spki[end - 1] = last;
        spki[end - 3] = first;
        SpkiFacts::parse(&spki)
    };
    assert!(with_exponent(1, 1).is_ok());
    assert!(matches!(with_exponent(0, 1), Err(PkiError::KeyExponent)), "even");
    assert!(with_exponent(3, 0).is_err(), "three, in three bytes");
}
