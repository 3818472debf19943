use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use casemate_hsm_api::{KeyAlgorithm, PublicKey, SignatureScheme};

/// Whether `signature` over `message` is one by `public` in `scheme`.
///
/// A table of this crate's own, beside the one of hsm/api on purpose: the backends test their keys with that one, and a wrong
/// entry in it must not make the suite agree with them.
#[must_use]
pub fn verifies(public: &PublicKey, scheme: SignatureScheme, message: &[u8], signature: &[u8]) -> bool {
    let algorithm: &'static dyn VerificationAlgorithm = match scheme {
        SignatureScheme::RsaPkcs1Sha256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        SignatureScheme::RsaPkcs1Sha384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        SignatureScheme::RsaPkcs1Sha512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        SignatureScheme::RsaPssSha256 => &signature::RSA_PSS_2048_8192_SHA256,
        SignatureScheme::RsaPssSha384 => &signature::RSA_PSS_2048_8192_SHA384,
        SignatureScheme::RsaPssSha512 => &signature::RSA_PSS_2048_8192_SHA512,
        SignatureScheme::EcdsaP256Sha256 => &signature::ECDSA_P256_SHA256_ASN1,
        SignatureScheme::EcdsaP384Sha384 => &signature::ECDSA_P384_SHA384_ASN1,
        SignatureScheme::EcdsaP521Sha512 => &signature::ECDSA_P521_SHA512_ASN1,
    };
    UnparsedPublicKey::new(algorithm, &public.spki_der).verify(message, signature).is_ok()
}

/// The first scheme of a key.
#[must_use]
pub const fn scheme_of(algorithm: KeyAlgorithm) -> SignatureScheme {
    match algorithm {
        KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => SignatureScheme::RsaPkcs1Sha256,
        KeyAlgorithm::P256 => SignatureScheme::EcdsaP256Sha256,
        KeyAlgorithm::P384 => SignatureScheme::EcdsaP384Sha384,
        KeyAlgorithm::P521 => SignatureScheme::EcdsaP521Sha512,
    }
}
