use casemate_hsm_api::{KeyRole, SignatureScheme};
use casemate_keyring::{Client, KeyringError, Purpose};
use casemate_pki::CertificateFacts;

/// Signs whole messages with one identity's RSA key: PKCS#1 v1.5 with SHA-512, the scheme of lists and files (phone-formats
/// §1). Asked from several threads at once.
pub trait Sign: Sync {
    /// Signs `message` for `purpose`; the signature is as long as the modulus.
    ///
    /// # Errors
    /// As [`KeyringError`] says.
    fn sign(&self, purpose: Purpose, message: &[u8]) -> Result<Vec<u8>, KeyringError>;
}

/// The key of a role in the token, through the key broker.
#[derive(Clone)]
pub struct TokenSigner {
    client: Client,
    role: KeyRole,
    fingerprint: String,
}

impl TokenSigner {
    /// The key of `role` that is certified as `certificate`: while a role is re-keyed it has two.
    #[must_use]
    pub fn new(client: Client, role: KeyRole, certificate: &CertificateFacts) -> Self {
        Self { client, role, fingerprint: certificate.key_fingerprint() }
    }
}

impl Sign for TokenSigner {
    fn sign(&self, purpose: Purpose, message: &[u8]) -> Result<Vec<u8>, KeyringError> {
        self.client.sign_named(self.role, &self.fingerprint, SignatureScheme::RsaPkcs1Sha512, purpose, message)
    }
}
