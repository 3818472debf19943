//! The test of the token: it signs with each key on record, and the FIPS module here judges the answer.

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use casemate_hsm_api::{HsmError, KeyAlgorithm, KeyState, KeyStore, SignatureScheme};

use crate::keys::Recorded;

/// No purpose's message: it starts like no certificate, no file and no handshake.
const MESSAGE: &[u8] = b"casemate-keyd tests the token with this sentence and signs nothing by it";

/// Whether the token holds the very key that is on record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Found {
    /// It does, and signs with it.
    Good,
    /// It does not, or holds another under its name.
    Missing,
}

/// Compares the public key and tries the private one.
///
/// # Errors
/// What the token said; [`HsmError::WrongAnswer`] when the signature does not verify with the recorded public key.
pub(super) fn test(store: &dyn KeyStore, key: &Recorded, spki: &[u8], serial: &str) -> Result<Found, HsmError> {
    match store.inspect(key.id, None) {
        Ok(KeyState::Whole(public)) if public.spki_der == spki => {}
        // Of several keys under one name nobody knows which is ours: none is used, and the other roles go on.
        Ok(_) | Err(HsmError::KeyAmbiguous { .. }) => return Ok(Found::Missing),
        Err(error) => return Err(error),
    }
    let (scheme, verification) = test_scheme(key.spec.algorithm);
    let signature = match store.sign(key.id, scheme, MESSAGE) {
        Err(HsmError::KeyMissing { .. }) => return Ok(Found::Missing),
        answer => answer?,
    };
    match UnparsedPublicKey::new(verification, spki).verify(MESSAGE, &signature) {
        Ok(()) => Ok(Found::Good),
        Err(_) => Err(HsmError::WrongAnswer {
            token: serial.to_owned(),
            operation: format!("the test of the {} key", key.role),
        }),
    }
}

/// The scheme of the test: for RSA one of TLS, whose messages have a structure that the test's has not.
fn test_scheme(algorithm: KeyAlgorithm) -> (SignatureScheme, &'static dyn VerificationAlgorithm) {
    match algorithm {
        KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => {
            (SignatureScheme::RsaPkcs1Sha384, &signature::RSA_PKCS1_2048_8192_SHA384)
        }
        KeyAlgorithm::P256 => (SignatureScheme::EcdsaP256Sha256, &signature::ECDSA_P256_SHA256_ASN1),
        KeyAlgorithm::P384 => (SignatureScheme::EcdsaP384Sha384, &signature::ECDSA_P384_SHA384_ASN1),
        KeyAlgorithm::P521 => (SignatureScheme::EcdsaP521Sha512, &signature::ECDSA_P521_SHA512_ASN1),
    }
}
