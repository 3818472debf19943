use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    signature::{ParsedPublicKey, RsaPublicKeyComponents},
};
use casemate_hsm_api::{KeyAlgorithm, PublicKey, SignatureScheme, verification};

/// F4, the only public exponent that is made or taken.
pub(crate) const EXPONENT: [u8; 3] = [1, 0, 1];

/// The curves as `CKA_EC_PARAMS` names them: a DER object identifier (RFC 5480, 2.1.1.1).
const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
const P521: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23];

/// `CKA_EC_PARAMS` of an algorithm on a curve.
#[must_use]
pub const fn curve(algorithm: KeyAlgorithm) -> Option<&'static [u8]> {
    match algorithm {
        KeyAlgorithm::P256 => Some(P256),
        KeyAlgorithm::P384 => Some(P384),
        KeyAlgorithm::P521 => Some(P521),
        KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => None,
    }
}

/// The algorithm that `CKA_EC_PARAMS` names.
pub(crate) fn curve_algorithm(params: &[u8]) -> Option<KeyAlgorithm> {
    KeyAlgorithm::ALL.into_iter().find(|algorithm| curve(*algorithm) == Some(params))
}

/// The algorithm of an RSA key with this `CKA_MODULUS`: big-endian, leading zeros allowed, exactly 2048, 3072 or 4096 bits.
pub(crate) fn rsa_algorithm(modulus: &[u8]) -> Option<KeyAlgorithm> {
    let modulus = without_zeros(modulus);
    let bits = modulus.len().checked_mul(8)?.checked_sub(modulus.first()?.leading_zeros() as usize)?;
    KeyAlgorithm::ALL.into_iter().find(|algorithm| algorithm.rsa_bits().map(usize::from) == Some(bits))
}

/// The public key of `CKA_MODULUS` and `CKA_PUBLIC_EXPONENT`.
pub(crate) fn rsa(modulus: &[u8], exponent: &[u8]) -> Option<PublicKey> {
    let algorithm = rsa_algorithm(modulus)?;
    let (n, e) = (without_zeros(modulus), without_zeros(exponent));
    if e != EXPONENT {
        return None;
    }
    let spki: PublicKeyX509Der<'_> = RsaPublicKeyComponents { n, e }.as_der().ok()?;
    Some(PublicKey { algorithm, spki_der: spki.as_ref().to_vec() })
}

/// The public key of `CKA_EC_POINT`: the uncompressed point (SEC 1, 2.3.3), wrapped in a DER `OCTET STRING` as PKCS#11 v2.40
/// (2.3.3) wants it, or bare as some tokens give it. Refused unless it lies on the curve.
pub(crate) fn ec(algorithm: KeyAlgorithm, attribute: &[u8]) -> Option<PublicKey> {
    let (scheme, coordinate) = match algorithm {
        KeyAlgorithm::P256 => (SignatureScheme::EcdsaP256Sha256, 32),
        KeyAlgorithm::P384 => (SignatureScheme::EcdsaP384Sha384, 48),
        KeyAlgorithm::P521 => (SignatureScheme::EcdsaP521Sha512, 66),
        KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => return None,
    };
    // Point and wrapper both begin with 04, so the length tells them apart.
    let point = if attribute.len() == 1 + 2 * coordinate { attribute } else { unwrap_octets(attribute)? };
    if point.len() != 1 + 2 * coordinate {
        return None;
    }
    let parsed = ParsedPublicKey::new(verification(scheme), point).ok()?;
    let spki: PublicKeyX509Der<'_> = parsed.as_der().ok()?;
    Some(PublicKey { algorithm, spki_der: spki.as_ref().to_vec() })
}

/// The content of a DER `OCTET STRING` of at most 255 bytes that fills the whole attribute.
fn unwrap_octets(der: &[u8]) -> Option<&[u8]> {
    match der {
        [0x04, 0x81, length @ 0x80..=0xff, content @ ..] | [0x04, length @ 0..=0x7f, content @ ..]
            if content.len() == usize::from(*length) =>
        {
            Some(content)
        }
        _ => None,
    }
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        rsa,
        signature::{ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
    };
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_modulus_becomes_the_key_that_it_came_from() {
        let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
        let public = pair.public_key();
        let spki: PublicKeyX509Der<'_> = public.as_der().unwrap();
        // 33 bytes of headers stand before the modulus of an RSA-2048 key, the last of them its sign.
        let modulus = &spki.as_ref()[32..289];
        let made = super::rsa(modulus, &[0, 1, 0, 1]).unwrap();
        assert_eq!(made.spki_der, spki.as_ref());
        assert_eq!(made.algorithm, KeyAlgorithm::Rsa2048);
        assert!(super::rsa(modulus, &[3]).is_none(), "only F4");
        assert!(super::rsa(&modulus[10..], &EXPONENT).is_none(), "no size of ours");
    }

    #[test]
    fn a_point_is_taken_bare_and_wrapped() {
        for (algorithm, signing, header) in [
            (KeyAlgorithm::P256, &ECDSA_P256_SHA256_ASN1_SIGNING, vec![0x04, 65]),
            (KeyAlgorithm::P521, &ECDSA_P521_SHA512_ASN1_SIGNING, vec![0x04, 0x81, 133]),
        ] {
            let pair = EcdsaKeyPair::generate(signing).unwrap();
            let spki: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
            let point = pair.public_key().as_ref();
            assert_eq!(ec(algorithm, point).unwrap().spki_der, spki.as_ref());
            let wrapped = [&header, point].concat();
            assert_eq!(ec(algorithm, &wrapped).unwrap().spki_der, spki.as_ref());
            let mut off_curve = wrapped.clone();
            *off_curve.last_mut().unwrap() ^= 1;
            assert!(ec(algorithm, &off_curve).is_none());
            assert!(ec(KeyAlgorithm::P384, &wrapped).is_none());
        }
    }

    #[test]
    fn curves_have_their_names() {
        assert_eq!(curve_algorithm(P384), Some(KeyAlgorithm::P384));
        assert_eq!(curve_algorithm(&[6, 0]), None);
    }

    proptest! {
        #[test]
        fn arbitrary_attributes_never_panic(a in prop::collection::vec(any::<u8>(), 0..600), b in prop::collection::vec(any::<u8>(), 0..8)) {
            let _ = super::rsa(&a, &b);
            for algorithm in KeyAlgorithm::ALL {
                let _ = ec(algorithm, &a);
            }
        }
    }
}
