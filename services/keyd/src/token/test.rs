//! The test of the token: it signs with each key on record, and the FIPS module here judges the answer.

use casemate_hsm_api::{HsmError, KeyAlgorithm, KeyState, KeyStore, SignatureScheme};

use super::NOT_THERE;
use crate::keys::Made;

/// No purpose's message: it starts like no certificate, no file and no handshake.
const MESSAGE: &[u8] = b"casemate-keyd tests the token with this sentence and signs nothing by it";

/// Compares the public key and tries the private one. Nothing if the token holds the very key that is on record; or why it
/// does not: it is not there, or is another one, or is none that may be used. The other roles go on then.
///
/// # Errors
/// What the token said; [`HsmError::WrongAnswer`] when the signature does not verify with the recorded public key.
pub(super) fn test(store: &dyn KeyStore, made: &Made<'_>, serial: &str) -> Result<Option<String>, HsmError> {
    let key = made.key;
    match store.inspect(key.id, None) {
        Ok(KeyState::Whole(public)) if public.spki_der == made.spki => {}
        Ok(KeyState::Whole(_)) => return Ok(Some("another key stands under its name".to_owned())),
        Ok(KeyState::Half) => return Ok(Some("only half of it is there".to_owned())),
        Ok(KeyState::Absent) => return Ok(Some(NOT_THERE.to_owned())),
        Err(error) => return missing(error),
    }
    let scheme = test_scheme(key.spec.algorithm);
    let signature = match store.sign(key.id, scheme, MESSAGE) {
        Ok(signature) => signature,
        Err(error) => return missing(error),
    };
    if made.verifier.verifies(scheme, MESSAGE, &signature) {
        return Ok(None);
    }
    Err(HsmError::WrongAnswer { token: serial.to_owned(), operation: format!("the test of the {} key", key.role) })
}

/// What is wrong with one object concerns one role. Of several keys under one name nobody knows which is ours: none is used.
fn missing(error: HsmError) -> Result<Option<String>, HsmError> {
    match error {
        HsmError::KeyMissing { .. } => Ok(Some(NOT_THERE.to_owned())),
        HsmError::KeyAmbiguous { .. } | HsmError::KeyNotAsSpecified { .. } => Ok(Some(error.to_string())),
        error => Err(error),
    }
}

/// The scheme of the test: for RSA one of TLS, whose messages have a structure that the test's has not.
const fn test_scheme(algorithm: KeyAlgorithm) -> SignatureScheme {
    match algorithm {
        KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => SignatureScheme::RsaPkcs1Sha384,
        KeyAlgorithm::P256 => SignatureScheme::EcdsaP256Sha256,
        KeyAlgorithm::P384 => SignatureScheme::EcdsaP384Sha384,
        KeyAlgorithm::P521 => SignatureScheme::EcdsaP521Sha512,
    }
}
