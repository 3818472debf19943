use aws_lc_rs::digest;
use casemate_hsm_api::{Hash, KeyAlgorithm, Padding, SignatureScheme};
use tss_esapi::{
    interface_types::algorithm::HashingAlgorithm,
    structures::{HashScheme, Signature, SignatureScheme as TpmScheme},
};

/// Hashes in the FIPS module: messages are longer than a TPM's buffer, and its hashing is slow.
pub(crate) fn hashed(hash: Hash, message: &[u8]) -> Vec<u8> {
    let algorithm = match hash {
        Hash::Sha256 => &digest::SHA256,
        Hash::Sha384 => &digest::SHA384,
        Hash::Sha512 => &digest::SHA512,
    };
    digest::digest(algorithm, message).as_ref().to_vec()
}

/// The TPM's name of a hash.
pub(crate) const fn hashing(hash: Hash) -> HashingAlgorithm {
    match hash {
        Hash::Sha256 => HashingAlgorithm::Sha256,
        Hash::Sha384 => HashingAlgorithm::Sha384,
        Hash::Sha512 => HashingAlgorithm::Sha512,
    }
}

/// The scheme in the TPM's words.
pub(crate) const fn scheme(asked: SignatureScheme) -> TpmScheme {
    let hash_scheme = HashScheme::new(hashing(asked.hash()));
    match asked.padding() {
        Padding::RsaPkcs1 => TpmScheme::RsaSsa { hash_scheme },
        Padding::RsaPss => TpmScheme::RsaPss { hash_scheme },
        Padding::Ecdsa => TpmScheme::EcDsa { hash_scheme },
    }
}

/// The TPM's signature in the form that everybody outside uses: RSA as it is, ECDSA as DER. Nothing when it is of another
/// scheme or length than asked for.
pub(crate) fn outward(algorithm: KeyAlgorithm, asked: SignatureScheme, signature: &Signature) -> Option<Vec<u8>> {
    match (asked.padding(), signature) {
        (Padding::RsaPkcs1, Signature::RsaSsa(made)) | (Padding::RsaPss, Signature::RsaPss(made)) => {
            let raw = made.signature().value();
            (algorithm.rsa_bits().map(|bits| usize::from(bits) / 8) == Some(raw.len())).then(|| raw.to_vec())
        }
        (Padding::Ecdsa, Signature::EcDsa(made)) => der(made.signature_r().value(), made.signature_s().value()),
        _ => None,
    }
}

/// A DER `SEQUENCE` of two unsigned numbers (RFC 3279, 2.2.3).
fn der(r: &[u8], s: &[u8]) -> Option<Vec<u8>> {
    tagged(0x30, &[integer(r)?, integer(s)?].concat())
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
            ECDSA_P521_SHA512_ASN1, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
        },
    };

    use super::*;

    #[test]
    fn small_numbers_and_high_bits_are_encoded_by_the_rules() {
        assert_eq!(der(&[0, 0, 1], &[0x80, 0]).unwrap(), b"\x30\x08\x02\x01\x01\x02\x03\x00\x80\x00");
        assert_eq!(integer(&[0, 0]).unwrap(), [2, 1, 0]);
        assert!(integer(&[]).is_none());
        assert!(der(&[1; 130], &[1; 130]).is_none());
    }

    #[test]
    fn what_the_module_signs_raw_it_verifies_as_der() {
        let rng = SystemRandom::new();
        for _ in 0..64 {
            let pair = EcdsaKeyPair::generate(&ECDSA_P521_SHA512_FIXED_SIGNING).unwrap();
            let raw = pair.sign(&rng, b"m").unwrap();
            let (r, s) = raw.as_ref().split_at(66);
            UnparsedPublicKey::new(&ECDSA_P521_SHA512_ASN1, pair.public_key().as_ref())
                .verify(b"m", &der(r, s).unwrap())
                .unwrap();
        }
    }
}
