use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    signature::{ParsedPublicKey, RsaPublicKeyComponents},
};
use casemate_hsm_api::{KeyAlgorithm, PublicKey, SignatureScheme};
use tss_esapi::{
    interface_types::{ecc::EccCurve, key_bits::RsaKeyBits},
    structures::Public,
};

use crate::verify::verification;

/// F4, which a TPM writes as zero (TPM 2.0 part 2, 12.2.3.5); no other exponent is made or taken.
const EXPONENT: [u8; 3] = [1, 0, 1];

/// The key of a public area, unless it is of no kind that is used here. A point is refused unless it lies on its curve.
pub(crate) fn public_key(public: &Public) -> Option<PublicKey> {
    match public {
        Public::Rsa { parameters, unique, .. } => {
            let algorithm = match parameters.key_bits() {
                RsaKeyBits::Rsa2048 => KeyAlgorithm::Rsa2048,
                RsaKeyBits::Rsa3072 => KeyAlgorithm::Rsa3072,
                RsaKeyBits::Rsa4096 => KeyAlgorithm::Rsa4096,
                RsaKeyBits::Rsa1024 => return None,
            };
            rsa(algorithm, parameters.exponent().value(), unique.value())
        }
        Public::Ecc { parameters, unique, .. } => {
            let algorithm = algorithm_of_curve(parameters.ecc_curve())?;
            ec(algorithm, unique.x().value(), unique.y().value())
        }
        _ => None,
    }
}

fn rsa(algorithm: KeyAlgorithm, exponent: u32, modulus: &[u8]) -> Option<PublicKey> {
    let whole = modulus.first()? & 0x80 != 0 && algorithm.rsa_bits().map(usize::from) == Some(modulus.len() * 8);
    if !whole || !matches!(exponent, 0 | 65537) {
        return None;
    }
    let spki: PublicKeyX509Der<'_> = RsaPublicKeyComponents { n: modulus, e: &EXPONENT }.as_der().ok()?;
    Some(PublicKey { algorithm, spki_der: spki.as_ref().to_vec() })
}

fn ec(algorithm: KeyAlgorithm, x: &[u8], y: &[u8]) -> Option<PublicKey> {
    let (scheme, length) = match algorithm {
        KeyAlgorithm::P256 => (SignatureScheme::EcdsaP256Sha256, 32),
        KeyAlgorithm::P384 => (SignatureScheme::EcdsaP384Sha384, 48),
        KeyAlgorithm::P521 => (SignatureScheme::EcdsaP521Sha512, 66),
        KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => return None,
    };
    // Uncompressed (SEC 1, 2.3.3). Some TPMs leave leading zeros of a coordinate away.
    let point = [&[4], padded(x, length)?.as_slice(), padded(y, length)?.as_slice()].concat();
    let parsed = ParsedPublicKey::new(verification(scheme), &point).ok()?;
    let spki: PublicKeyX509Der<'_> = parsed.as_der().ok()?;
    Some(PublicKey { algorithm, spki_der: spki.as_ref().to_vec() })
}

fn padded(number: &[u8], length: usize) -> Option<Vec<u8>> {
    let zeros = length.checked_sub(number.len())?;
    Some([vec![0; zeros].as_slice(), number].concat())
}

/// The curve of an algorithm on one.
pub(crate) const fn curve(algorithm: KeyAlgorithm) -> Option<EccCurve> {
    match algorithm {
        KeyAlgorithm::P256 => Some(EccCurve::NistP256),
        KeyAlgorithm::P384 => Some(EccCurve::NistP384),
        KeyAlgorithm::P521 => Some(EccCurve::NistP521),
        KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => None,
    }
}

fn algorithm_of_curve(named: EccCurve) -> Option<KeyAlgorithm> {
    KeyAlgorithm::ALL.into_iter().find(|algorithm| curve(*algorithm) == Some(named))
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_point_becomes_the_key_that_it_came_from_even_without_its_zeros() {
        let mut short = 0;
        for _ in 0..2_000 {
            let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
            let spki: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
            let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
            let zeros = x.iter().take_while(|byte| **byte == 0).count();
            short += usize::from(zeros > 0);
            assert_eq!(ec(KeyAlgorithm::P256, &x[zeros..], y).unwrap().spki_der, spki.as_ref());
            assert!(ec(KeyAlgorithm::P256, y, x).is_none(), "off the curve");
        }
        assert!(short > 0, "one in 256 begins with a zero");
    }

    #[test]
    fn a_modulus_has_its_full_length_and_the_one_exponent() {
        let modulus = [0xff; 256];
        assert!(rsa(KeyAlgorithm::Rsa2048, 0, &modulus).is_some());
        assert!(rsa(KeyAlgorithm::Rsa2048, 3, &modulus).is_none());
        assert!(rsa(KeyAlgorithm::Rsa2048, 0, &modulus[1..]).is_none());
        assert!(rsa(KeyAlgorithm::Rsa3072, 0, &modulus).is_none());
        assert!(rsa(KeyAlgorithm::Rsa2048, 0, &[0x7f; 256]).is_none(), "2047 bits");
    }

    proptest! {
        #[test]
        fn arbitrary_numbers_never_panic(a in prop::collection::vec(any::<u8>(), 0..300), b in prop::collection::vec(any::<u8>(), 0..80)) {
            for algorithm in KeyAlgorithm::ALL {
                let _ = rsa(algorithm, 0, &a);
                let _ = ec(algorithm, &a, &b);
            }
        }
    }
}
