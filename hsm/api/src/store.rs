use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{HsmError, KeyAlgorithm, KeyId, KeySpec, Pin, PublicKey, SignatureRate, SignatureScheme};

/// Whether the one login of this process holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoginState {
    /// Logged in as the user.
    User,
    /// Not logged in.
    Public,
}

/// What a token says of itself.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TokenInfo {
    /// `CK_TOKEN_INFO.label`, trimmed.
    pub label: String,
    /// `CK_TOKEN_INFO.serialNumber`, trimmed.
    pub serial: String,
    /// Manufacturer, trimmed.
    pub manufacturer: String,
    /// Model, trimmed.
    pub model: String,
    /// Firmware version, `major.minor`.
    pub firmware: String,
    /// The module's own description and version.
    pub library: String,
    /// What the token can do, by the names of its own standard: `CKM_...` of PKCS#11, `TPM_ALG_...` of a TPM as far as they concern
    /// signatures.
    pub mechanisms: Vec<String>,
    /// Algorithms of which the token can make and use keys.
    pub algorithms: Vec<KeyAlgorithm>,
    /// Whether the login holds.
    pub login: LoginState,
    /// Sessions that are open now.
    pub sessions: usize,
    /// Sessions that the settings ask for and the token does not open: so many fewer signatures are made at the same time.
    pub refused_sessions: usize,
}

/// What stands on a token under one identifier.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum KeyState {
    /// Nothing.
    Absent,
    /// Only one half: a generation was interrupted.
    Half,
    /// Private and public key, with the public one.
    Whole(PublicKey),
}

/// A key pair on a token.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoredKey {
    /// `CKA_ID`.
    pub id: KeyId,
    /// `CKA_LABEL`.
    pub label: String,
    /// The public half.
    pub public: PublicKey,
}

/// Whose thread does what follows a signature.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RunBy {
    /// That of whoever asked for it.
    Caller,
    /// Another: the caller's is in a call to the token that took too long, and may never return.
    Another,
}

/// What follows a signature, or the failure to make one. It may take as long as it needs.
pub type Continuation = Box<dyn FnOnce(Result<Vec<u8>, HsmError>, RunBy) + Send>;

/// A token that makes keys and signs with them. Every call is bounded in time, and may be made from any thread.
pub trait KeyStore: Send + Sync {
    /// What the token is, and that it is there now.
    ///
    /// # Errors
    /// [`HsmError::TokenAbsent`] if it is not.
    fn token(&self) -> Result<TokenInfo, HsmError>;

    /// Makes a key pair under `id` with `label`, both halves persistent, the private one sensitive and, unless
    /// `spec.backup` says otherwise, never extractable. Returns the public key only after the pairwise consistency test
    /// (FIPS 140-3 IG 10.3.A) and after the attributes were read back.
    ///
    /// # Errors
    /// [`HsmError::KeyNotAsSpecified`] when the token made something else, [`HsmError::WrongAnswer`] when the halves do not fit.
    fn generate(&self, id: KeyId, label: &str, spec: KeySpec) -> Result<PublicKey, HsmError>;

    /// What stands under `id`. A whole pair has passed the pairwise test in this call when `spec` is given, and has that
    /// specification's attributes: so an interrupted generation can be finished without a second key.
    ///
    /// # Errors
    /// As [`KeyStore::generate`]; [`HsmError::KeyAmbiguous`] when several keys answer.
    fn inspect(&self, id: KeyId, spec: Option<KeySpec>) -> Result<KeyState, HsmError>;

    /// Removes the one half that an interrupted generation left under `id`.
    ///
    /// # Errors
    /// Refuses ([`HsmError::KeyNotAsSpecified`]) a whole pair: no call of this trait destroys a usable key.
    fn remove_half(&self, id: KeyId) -> Result<(), HsmError>;

    /// All key pairs on the token.
    ///
    /// # Errors
    /// [`HsmError::TokenAbsent`] and [`HsmError::Device`].
    fn keys(&self) -> Result<Vec<StoredKey>, HsmError>;

    /// Hashes `message` inside the FIPS module and has the token sign the hash. RSA signatures are as long as the modulus,
    /// ECDSA signatures are DER.
    ///
    /// # Errors
    /// [`HsmError::KeyMissing`] when nothing stands under `id`.
    fn sign(&self, id: KeyId, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, HsmError>;

    /// As [`KeyStore::sign`], for a caller who can leave his thread in the token: `then` is run once, with the signature or with why
    /// there is none, in the time that [`KeyStore::sign`] would take. So no other thread need be woken to make the signature, which
    /// costs more than a fast one. When this returns after another thread was given `then`, nothing is left to be done.
    fn sign_then(&self, id: KeyId, scheme: SignatureScheme, message: &[u8], then: Continuation) {
        then(self.sign(id, scheme, message), RunBy::Caller);
    }

    /// How fast the token signs with a key of `algorithm`, one signature after the other for `duration`: measured with a temporary
    /// key of the token, which is gone when this returns and never was among [`KeyStore::keys`]. The time in which that key is
    /// made comes on top.
    ///
    /// # Errors
    /// [`HsmError::Unmeasurable`] where the token makes no such key.
    fn measure(&self, algorithm: KeyAlgorithm, duration: Duration) -> Result<SignatureRate, HsmError>;

    /// What an auditor makes a challenge of, so that he believes the token's statements afterwards: a JSON document in the words
    /// of the token's kind (`hsm/attest` for a TPM), which nobody between token and auditor reads.
    ///
    /// # Errors
    /// [`HsmError::Unproven`] where the token's vendor offers no statements, as by default.
    fn attestation_key_json(&self) -> Result<String, HsmError> {
        unproven(self)
    }

    /// The answer to an auditor's challenge, both JSON documents as of [`KeyStore::attestation_key_json`].
    ///
    /// # Errors
    /// [`HsmError::Unproven`]; [`HsmError::Device`] if the challenge is none, or for another token.
    fn answer_json(&self, _challenge: &str) -> Result<String, HsmError> {
        unproven(self)
    }

    /// The token's statement that the key under `id` was made in it and cannot leave it, with an auditor's nonce of at most 64
    /// bytes: a JSON document as of [`KeyStore::attestation_key_json`].
    ///
    /// # Errors
    /// [`HsmError::Unproven`]; [`HsmError::KeyMissing`] when nothing stands under `id`.
    fn statement_json(&self, _id: KeyId, _nonce: &[u8]) -> Result<String, HsmError> {
        unproven(self)
    }

    /// Gives the token another user PIN, and has the PIN file hold it. Whoever kills the process within leaves the token with one
    /// of the two PINs, and files by which the next login finds out which.
    ///
    /// # Errors
    /// [`HsmError::Unsupported`] where the store cannot, as by default, or the token does not take such a PIN;
    /// [`HsmError::PinIncorrect`] if the PIN file's PIN is not the token's.
    fn change_pin(&self, _new: &Pin) -> Result<(), HsmError> {
        Err(HsmError::Unsupported { token: self.token()?.serial, operation: "a change of its PIN".to_owned() })
    }

    /// Looks for the token again after it was absent, and logs in; does nothing if it is there and the login holds. Without
    /// one of its own, a store is connected whenever its token is there.
    ///
    /// # Errors
    /// [`HsmError::TokenAbsent`] if it is still away, and everything that a login may end in.
    fn reconnect(&self) -> Result<(), HsmError> {
        self.token().map(drop)
    }
}

/// Of a token whose vendor offers no statements.
fn unproven<T>(store: &(impl KeyStore + ?Sized)) -> Result<T, HsmError> {
    let detail = "the token's vendor offers no statement".to_owned();
    Err(HsmError::Unproven { token: store.token()?.serial, detail })
}
