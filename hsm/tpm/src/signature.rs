use aws_lc_rs::digest;
use casemate_hsm_api::{Hash, KeyAlgorithm, Padding, SignatureScheme, ecdsa_der};
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
        (Padding::Ecdsa, Signature::EcDsa(made)) => ecdsa_der(made.signature_r().value(), made.signature_s().value()),
        _ => None,
    }
}
