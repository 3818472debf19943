use casemate_hsm_api::{KeyRole, SignatureScheme};
use casemate_keyring::{Client, KeyringError, Purpose};

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
}

impl TokenSigner {
    /// The key of `role`.
    #[must_use]
    pub const fn new(client: Client, role: KeyRole) -> Self {
        Self { client, role }
    }
}

impl Sign for TokenSigner {
    fn sign(&self, purpose: Purpose, message: &[u8]) -> Result<Vec<u8>, KeyringError> {
        self.client.sign(self.role, SignatureScheme::RsaPkcs1Sha512, purpose, message)
    }
}
