use std::sync::OnceLock;

use casemate_hsm_api::{
    HsmError, KeyId, KeySpec, KeyState, KeyStore, PublicKey, SignatureScheme, StoredKey, TokenInfo,
};
use casemate_hsm_pkcs11::{Pkcs11Error, Pkcs11Settings, Pkcs11Store};

/// A token that may not be there yet: [`KeyStore::reconnect`] opens it.
pub struct LateStore {
    settings: Pkcs11Settings,
    store: OnceLock<Pkcs11Store>,
}

impl LateStore {
    /// Opens the token if it is there.
    ///
    /// # Errors
    /// What waiting does not help: everything but what the token itself said. That comes again from
    /// [`KeyStore::reconnect`].
    pub fn open(settings: Pkcs11Settings) -> Result<Self, Pkcs11Error> {
        let late = Self { settings, store: OnceLock::new() };
        match late.try_open() {
            Ok(()) | Err(Pkcs11Error::Hsm(_)) => Ok(late),
            Err(other) => Err(other),
        }
    }

    fn try_open(&self) -> Result<(), Pkcs11Error> {
        let store = Pkcs11Store::open(self.settings.clone())?;
        // One thread opens: the broker's.
        let _ = self.store.set(store);
        Ok(())
    }

    fn there(&self) -> Result<&Pkcs11Store, HsmError> {
        self.store.get().ok_or_else(|| HsmError::TokenAbsent {
            token: self.settings.token.to_string(),
            detail: "not opened yet".to_owned(),
        })
    }
}

impl KeyStore for LateStore {
    fn token(&self) -> Result<TokenInfo, HsmError> {
        self.there()?.token()
    }

    fn generate(&self, id: KeyId, label: &str, spec: KeySpec) -> Result<PublicKey, HsmError> {
        self.there()?.generate(id, label, spec)
    }

    fn inspect(&self, id: KeyId, spec: Option<KeySpec>) -> Result<KeyState, HsmError> {
        self.there()?.inspect(id, spec)
    }

    fn remove_half(&self, id: KeyId) -> Result<(), HsmError> {
        self.there()?.remove_half(id)
    }

    fn keys(&self) -> Result<Vec<StoredKey>, HsmError> {
        self.there()?.keys()
    }

    fn sign(&self, id: KeyId, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, HsmError> {
        self.there()?.sign(id, scheme, message)
    }

    fn reconnect(&self) -> Result<(), HsmError> {
        if let Some(store) = self.store.get() {
            return store.reconnect();
        }
        self.try_open().map_err(|error| match error {
            Pkcs11Error::Hsm(error) => error,
            other => HsmError::Device {
                token: self.settings.token.to_string(),
                operation: "opening".to_owned(),
                detail: other.to_string(),
            },
        })
    }
}
