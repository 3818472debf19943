use aws_lc_rs::digest;
use casemate_hsm_api::{Hash, KeyAlgorithm, Padding, SignatureScheme};
use cryptoki::mechanism::{
    Mechanism, MechanismType,
    rsa::{PkcsMgfType, PkcsPssParams},
};

/// What goes to the token for one signature.
pub(crate) struct Request {
    pub(crate) mechanism: Mechanism<'static>,
    /// Digest, or `DigestInfo` for PKCS#1 v1.5.
    pub(crate) data: Vec<u8>,
}

/// Hashes `message` in the FIPS module and makes what the token signs. Hashing stays here because tokens differ in the
/// hashing mechanisms that they have: SoftHSM has none for ECDSA.
pub(crate) fn request(scheme: SignatureScheme, message: &[u8]) -> Request {
    let algorithm = match scheme.hash() {
        Hash::Sha256 => &digest::SHA256,
        Hash::Sha384 => &digest::SHA384,
        Hash::Sha512 => &digest::SHA512,
    };
    let hash = digest::digest(algorithm, message);
    match scheme.padding() {
        Padding::RsaPkcs1 => {
            Request { mechanism: Mechanism::RsaPkcs, data: [digest_info(scheme.hash()), hash.as_ref()].concat() }
        }
        Padding::RsaPss => {
            Request { mechanism: Mechanism::RsaPkcsPss(pss(scheme.hash())), data: hash.as_ref().to_vec() }
        }
        Padding::Ecdsa => Request { mechanism: Mechanism::Ecdsa, data: hash.as_ref().to_vec() },
    }
}

/// What stands before the digest in a DER `DigestInfo` (RFC 8017, 9.2, note 1).
const fn digest_info(hash: Hash) -> &'static [u8] {
    match hash {
        Hash::Sha256 => b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20",
        Hash::Sha384 => b"\x30\x41\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\x04\x30",
        Hash::Sha512 => b"\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40",
    }
}

fn pss(hash: Hash) -> PkcsPssParams {
    let (hash_alg, mgf, length): (_, _, u32) = match hash {
        Hash::Sha256 => (MechanismType::SHA256, PkcsMgfType::MGF1_SHA256, 32),
        Hash::Sha384 => (MechanismType::SHA384, PkcsMgfType::MGF1_SHA384, 48),
        Hash::Sha512 => (MechanismType::SHA512, PkcsMgfType::MGF1_SHA512, 64),
    };
    PkcsPssParams { hash_alg, mgf, s_len: u64::from(length).into() }
}

/// The token's signature in the form that everybody outside uses: RSA as it is, ECDSA from r‖s to DER. Nothing when it has not
/// the length that the key gives it.
pub(crate) fn outward(algorithm: KeyAlgorithm, raw: &[u8]) -> Option<Vec<u8>> {
    let length = match algorithm {
        KeyAlgorithm::Rsa2048 => 256,
        KeyAlgorithm::Rsa3072 => 384,
        KeyAlgorithm::Rsa4096 => 512,
        KeyAlgorithm::P256 => 64,
        KeyAlgorithm::P384 => 96,
        KeyAlgorithm::P521 => 132,
    };
    if raw.len() != length {
        return None;
    }
    if algorithm.rsa_bits().is_some() {
        return Some(raw.to_vec());
    }
    let (r, s) = raw.split_at_checked(length / 2)?;
    let numbers = [integer(r)?, integer(s)?].concat();
    tagged(0x30, &numbers)
}

/// A DER `INTEGER` of an unsigned big-endian number (X.690, 8.3).
fn integer(number: &[u8]) -> Option<Vec<u8>> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count().min(number.len().saturating_sub(1));
    let digits = number.get(zeros..)?;
    let sign: &[u8] = if digits.first()? & 0x80 == 0 { &[] } else { &[0] };
    tagged(0x02, &[sign, digits].concat())
}

/// Tag, length and content (X.690, 8.1.3); content of at most 255 bytes, which the largest signature here stays below.
fn tagged(tag: u8, content: &[u8]) -> Option<Vec<u8>> {
    let length = u8::try_from(content.len()).ok()?;
    let header: &[u8] = if length < 0x80 { &[tag, length] } else { &[tag, 0x81, length] };
    Some([header, content].concat())
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        rand::SystemRandom,
        signature::{
            ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P521_SHA512_ASN1,
            ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
        },
    };

    use super::*;

    #[test]
    fn small_numbers_and_high_bits_are_encoded_by_the_rules() {
        let mut raw = [0; 64];
        raw[31] = 1;
        raw[32] = 0x80;
        let der = outward(KeyAlgorithm::P256, &raw).unwrap();
        let expected = [&b"\x30\x26\x02\x01\x01\x02\x21\x00\x80"[..], &[0; 31]].concat();
        assert_eq!(der, expected);
        assert_eq!(integer(&[0, 0]).unwrap(), [2, 1, 0]);
        assert!(outward(KeyAlgorithm::P256, &raw[1..]).is_none());
        assert!(outward(KeyAlgorithm::Rsa2048, &raw).is_none());
    }

    #[test]
    fn what_the_module_signs_raw_it_verifies_as_der() {
        let rng = SystemRandom::new();
        for _ in 0..64 {
            let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
            let der = outward(KeyAlgorithm::P256, pair.sign(&rng, b"m").unwrap().as_ref()).unwrap();
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, pair.public_key().as_ref()).verify(b"m", &der).unwrap();
            let pair = EcdsaKeyPair::generate(&ECDSA_P521_SHA512_FIXED_SIGNING).unwrap();
            let der = outward(KeyAlgorithm::P521, pair.sign(&rng, b"m").unwrap().as_ref()).unwrap();
            UnparsedPublicKey::new(&ECDSA_P521_SHA512_ASN1, pair.public_key().as_ref()).verify(b"m", &der).unwrap();
        }
    }
}
