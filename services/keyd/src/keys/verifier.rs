use aws_lc_rs::signature::ParsedPublicKey;
use casemate_hsm_api::{KeyAlgorithm, SignatureScheme, verification};

/// A recorded public key, read once for each scheme that fits it: every signature of the token is verified with it by the FIPS
/// module before it leaves (a fault in an RSA-CRT signature gives the private key away).
pub(crate) struct Verifier(Vec<(SignatureScheme, ParsedPublicKey)>);

impl Verifier {
    /// With an `spki` that is none, nothing verifies.
    pub(crate) fn new(algorithm: KeyAlgorithm, spki: &[u8]) -> Self {
        let schemes = SignatureScheme::ALL.into_iter().filter(|scheme| scheme.fits(algorithm));
        let read = |scheme| ParsedPublicKey::new(verification(scheme), spki).ok().map(|key| (scheme, key));
        Self(schemes.filter_map(read).collect())
    }

    /// Whether `signature` is one of `message` by this key.
    pub(crate) fn verifies(&self, scheme: SignatureScheme, message: &[u8], signature: &[u8]) -> bool {
        let key = self.0.iter().find(|(own, _)| *own == scheme);
        key.is_some_and(|(_, key)| key.verify_sig(message, signature).is_ok())
    }
}
