//! The keys on record, in memory as on disk: what is in memory was committed before.

mod records;
mod verifier;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use casemate_hsm_api::{KeyId, KeyRole};
use casemate_pki::TbsFacts;
use casemate_store::StoreSettings;
use records::Records;
pub(crate) use records::{Recorded, backup, fingerprint};
pub(crate) use verifier::Verifier;

use crate::{KeydError, judge::Identities};

/// The keys on record.
pub struct Keys {
    records: Records,
    view: RwLock<Arc<View>>,
    /// One change at a time, so that memory follows the disk.
    changing: Mutex<()>,
}

/// All records at one moment.
#[derive(Default)]
pub(crate) struct View {
    keys: BTreeMap<KeyRole, Arc<Recorded>>,
    /// Of those that are made.
    verifiers: BTreeMap<KeyRole, Verifier>,
    identities: Identities,
}

/// A key that is made.
#[derive(Clone, Copy)]
pub(crate) struct Made<'a> {
    pub(crate) key: &'a Recorded,
    pub(crate) spki: &'a [u8],
    pub(crate) verifier: &'a Verifier,
}

impl View {
    fn of(keys: impl IntoIterator<Item = Arc<Recorded>>) -> Self {
        let keys: BTreeMap<_, _> = keys.into_iter().map(|key| (key.role, key)).collect();
        let made = || keys.values().filter_map(|key| Some((key, key.spki.as_deref()?)));
        let identities = made().map(|(key, spki)| (key.role, spki.to_vec())).collect();
        let verifiers = made().map(|(key, spki)| (key.role, Verifier::new(key.spec.algorithm, spki))).collect();
        Self { keys, verifiers, identities }
    }

    pub(crate) fn get(&self, role: KeyRole) -> Option<&Arc<Recorded>> {
        self.keys.get(&role)
    }

    /// The key of `role`, if it is made.
    pub(crate) fn made(&self, role: KeyRole) -> Option<Made<'_>> {
        let key = self.keys.get(&role)?;
        Some(Made { key, spki: key.spki.as_deref()?, verifier: self.verifiers.get(&role)? })
    }

    /// All, also those that are not made yet.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Recorded> {
        self.keys.values().map(|key| &**key)
    }

    /// Those that are made.
    pub(crate) fn all_made(&self) -> impl Iterator<Item = Made<'_>> {
        self.keys.keys().filter_map(|role| self.made(*role))
    }

    pub(crate) const fn identities(&self) -> &Identities {
        &self.identities
    }
}

impl Keys {
    /// Opens the records at `path` on the tokio runtime that calls, which must go on running. Everything else here blocks the
    /// thread, and must not be called by a task of that runtime.
    ///
    /// # Errors
    /// [`KeydError::Store`].
    pub async fn open(path: &Path, settings: StoreSettings) -> Result<Self, KeydError> {
        Ok(Self { records: Records::open(path, settings).await?, view: RwLock::default(), changing: Mutex::default() })
    }

    /// Reads every record.
    ///
    /// # Errors
    /// [`KeydError::Store`], [`KeydError::RecordDamaged`].
    pub fn load(&self) -> Result<(), KeydError> {
        self.show(View::of(self.records.all()?));
        Ok(())
    }

    pub(crate) fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Commits which key is about to be made.
    pub(crate) fn intend(&self, key: Recorded) -> Result<(), KeydError> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.committed(self.records.intend(&key))?;
        self.replace(key);
        Ok(())
    }

    /// Commits that the key is made, and returns its record.
    pub(crate) fn made(&self, key: &Recorded, spki: Vec<u8>) -> Result<Recorded, KeydError> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.committed(self.records.made(key.role, key.id, spki.clone()))?;
        let made = Recorded { spki: Some(spki), ..key.clone() };
        self.replace(made.clone());
        Ok(made)
    }

    /// Commits a certificate that the key of `role` is about to sign for itself.
    pub(crate) fn add_certificate(&self, role: KeyRole, tbs: TbsFacts) -> Result<(), KeydError> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.committed(self.records.add_certificate(role, tbs))?;
        self.load()
    }

    /// After a failed commit only the disk knows what was kept.
    fn committed(&self, outcome: Result<(), KeydError>) -> Result<(), KeydError> {
        if outcome.is_err()
            && let Err(error) = self.load()
        {
            tracing::error!(%error, "records of keys cannot be read again");
        }
        outcome
    }

    fn replace(&self, key: Recorded) {
        let mut keys = self.view().keys.clone();
        keys.insert(key.role, Arc::new(key));
        self.show(View::of(keys.into_values()));
    }

    fn show(&self, view: View) {
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(view);
    }
}

/// A name for a new key.
pub(crate) fn new_id(role: KeyRole) -> Result<KeyId, KeydError> {
    let mut id = [0; 16];
    aws_lc_rs::rand::fill(&mut id).map_err(|_| KeydError::Random { role })?;
    Ok(KeyId(id))
}

#[cfg(test)]
mod tests {
    use casemate_hsm_api::{Backup, KeyAlgorithm, KeySpec};

    use super::*;

    fn key(role: KeyRole) -> Recorded {
        let spec = KeySpec { algorithm: KeyAlgorithm::P384, backup: Backup::Wrapped };
        let place = Some("pkcs11:token=t".to_owned());
        let id = new_id(role).unwrap();
        Recorded { role, id, token: "T".into(), place, spec, spki: None, certificates: Vec::new() }
    }

    #[test]
    fn what_was_committed_is_read_back_and_never_changed() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.db");
        let open = || runtime.block_on(Keys::open(&path, StoreSettings::default())).unwrap();
        let keys = open();
        let intent = key(KeyRole::Capf);
        keys.intend(intent.clone()).unwrap();
        assert!(keys.intend(key(KeyRole::Capf)).is_err(), "a second intent for a role");
        let made = keys.made(&intent, vec![1, 2]).unwrap();
        assert!(keys.made(&intent, vec![3]).is_err(), "a made key is never changed");
        let again = open();
        assert!(again.view().get(KeyRole::Capf).is_none());
        again.load().unwrap();
        let view = again.view();
        let read = view.get(KeyRole::Capf).unwrap();
        assert_eq!(**read, made);
        assert_eq!(view.all_made().count(), 1);
    }
}
