//! What a token is given for one signature, and what is made of its answer.

use aws_lc_rs::digest;
use casemate_hsm_api::{Hash, KeyAlgorithm, Padding, SignatureScheme, ecdsa_der};
use cryptoki::mechanism::{
    Mechanism, MechanismType,
    rsa::{PkcsMgfType, PkcsPssParams},
};

/// What goes to the token for one signature.
pub struct Request {
    /// The mechanism with its parameters.
    pub mechanism: Mechanism<'static>,
    /// Digest, or `DigestInfo` for PKCS#1 v1.5.
    pub data: Vec<u8>,
}

/// Hashes `message` in the FIPS module and makes what the token signs. Hashing stays here because tokens differ in the
/// hashing mechanisms that they have: SoftHSM has none for ECDSA.
#[must_use]
pub fn request(scheme: SignatureScheme, message: &[u8]) -> Request {
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
#[must_use]
pub fn outward(algorithm: KeyAlgorithm, raw: &[u8]) -> Option<Vec<u8>> {
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
    ecdsa_der(r, s)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        rand::SystemRandom,
        signature::{
            ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
        },
    };

    use super::*;

    #[test]
    fn a_signature_has_the_length_of_its_key() {
        for (algorithm, length) in [(KeyAlgorithm::Rsa2048, 256), (KeyAlgorithm::P256, 64), (KeyAlgorithm::P521, 132)] {
            assert!(outward(algorithm, &vec![1; length]).is_some());
            assert!(outward(algorithm, &vec![1; length - 1]).is_none());
            assert!(outward(algorithm, &vec![1; length + 1]).is_none());
        }
    }

    #[test]
    fn two_halves_become_the_signature_that_the_module_verifies() {
        let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        let der = outward(KeyAlgorithm::P384, pair.sign(&SystemRandom::new(), b"m").unwrap().as_ref()).unwrap();
        UnparsedPublicKey::new(&ECDSA_P384_SHA384_ASN1, pair.public_key().as_ref()).verify(b"m", &der).unwrap();
    }
}
