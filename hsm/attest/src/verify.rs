use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use casemate_hsm_api::{PublicKey, SignatureScheme};

/// Whether `signature` over `message` verifies with `public`, by the FIPS module.
#[must_use]
pub fn verifies(public: &PublicKey, scheme: SignatureScheme, message: &[u8], signature: &[u8]) -> bool {
    scheme.fits(public.algorithm)
        && UnparsedPublicKey::new(verification(scheme), &public.spki_der).verify(message, signature).is_ok()
}

pub(crate) fn verification(scheme: SignatureScheme) -> &'static dyn VerificationAlgorithm {
    match scheme {
        SignatureScheme::RsaPkcs1Sha256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        SignatureScheme::RsaPkcs1Sha384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        SignatureScheme::RsaPkcs1Sha512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        SignatureScheme::RsaPssSha256 => &signature::RSA_PSS_2048_8192_SHA256,
        SignatureScheme::RsaPssSha384 => &signature::RSA_PSS_2048_8192_SHA384,
        SignatureScheme::RsaPssSha512 => &signature::RSA_PSS_2048_8192_SHA512,
        SignatureScheme::EcdsaP256Sha256 => &signature::ECDSA_P256_SHA256_ASN1,
        SignatureScheme::EcdsaP384Sha384 => &signature::ECDSA_P384_SHA384_ASN1,
        SignatureScheme::EcdsaP521Sha512 => &signature::ECDSA_P521_SHA512_ASN1,
    }
}
