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
use records::{All, Records};
pub(crate) use records::{Recorded, Slot, backup, fingerprint};
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
    current: BTreeMap<KeyRole, Arc<Recorded>>,
    /// Those that are to follow them.
    next: BTreeMap<KeyRole, Arc<Recorded>>,
    /// Oldest first.
    retired: Vec<Arc<Recorded>>,
    /// Of those that are made and not retired.
    verifiers: BTreeMap<KeyId, Verifier>,
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
    fn of(all: All) -> Self {
        let by_role = |keys: Vec<Arc<Recorded>>| keys.into_iter().map(|key| (key.role, key)).collect();
        let (current, next): (BTreeMap<_, _>, BTreeMap<_, _>) = (by_role(all.current), by_role(all.next));
        let made = || current.values().chain(next.values()).filter_map(|key| Some((key, key.spki.as_deref()?)));
        let identities = made().map(|(key, spki)| (key.role, spki.to_vec())).collect();
        let verifiers = made().map(|(key, spki)| (key.id, Verifier::new(key.spec.algorithm, spki))).collect();
        Self { current, next, retired: all.retired, verifiers, identities }
    }

    /// The key of `role`, also if it is not made yet.
    pub(crate) fn get(&self, slot: Slot, role: KeyRole) -> Option<&Arc<Recorded>> {
        match slot {
            Slot::Current => self.current.get(&role),
            Slot::Next => self.next.get(&role),
        }
    }

    /// The key of `role`, if it is made.
    pub(crate) fn made(&self, slot: Slot, role: KeyRole) -> Option<Made<'_>> {
        let key = self.get(slot, role)?;
        Some(Made { key, spki: key.spki.as_deref()?, verifier: self.verifiers.get(&key.id)? })
    }

    /// The key of `role` with this fingerprint, or, without one, the one that serves.
    pub(crate) fn named(&self, role: KeyRole, fingerprint: Option<&str>) -> Option<Made<'_>> {
        let mut keys = [Slot::Current, Slot::Next].into_iter().filter_map(|slot| self.made(slot, role));
        match fingerprint {
            Some(name) => keys.find(|made| records::fingerprint(made.spki) == name),
            None => self.made(Slot::Current, role),
        }
    }

    /// All that are not retired, also those that are not made yet.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Recorded> {
        self.current.values().chain(self.next.values()).map(|key| &**key)
    }

    /// Those that are made and not retired.
    pub(crate) fn all_made(&self) -> impl Iterator<Item = Made<'_>> {
        [Slot::Current, Slot::Next].into_iter().flat_map(|slot| self.made_in(slot))
    }

    /// Those that are made in this place of their roles.
    pub(crate) fn made_in(&self, slot: Slot) -> impl Iterator<Item = Made<'_>> {
        KeyRole::ALL.into_iter().filter_map(move |role| self.made(slot, role))
    }

    pub(crate) fn retired(&self) -> &[Arc<Recorded>] {
        &self.retired
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
    pub(crate) fn intend(&self, slot: Slot, key: &Recorded) -> Result<(), KeydError> {
        self.change(|records| records.intend(slot, key))
    }

    /// Commits that the key is made, and returns its record.
    pub(crate) fn made(&self, slot: Slot, key: &Recorded, spki: Vec<u8>) -> Result<Recorded, KeydError> {
        let made = Recorded { spki: Some(spki.clone()), ..key.clone() };
        self.change(|records| records.made(slot, key.role, key.id, spki)).map(|()| made)
    }

    /// Commits that the next key of the role is in the place of `key`.
    pub(crate) fn retire(&self, key: &Recorded) -> Result<(), KeydError> {
        self.change(|records| records.retire(key.role, key.id))
    }

    /// Commits a certificate that the key of `role` is about to sign for itself.
    pub(crate) fn add_certificate(&self, role: KeyRole, tbs: TbsFacts) -> Result<(), KeydError> {
        self.change(|records| records.add_certificate(role, tbs))
    }

    /// After a commit memory follows the disk; after a failed one only the disk knows what was kept.
    fn change(&self, commit: impl FnOnce(&Records) -> Result<(), KeydError>) -> Result<(), KeydError> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = commit(&self.records);
        let read = self.load();
        if outcome.is_err() {
            if let Err(error) = read {
                tracing::error!(%error, "records of keys cannot be read again");
            }
            return outcome;
        }
        read
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
        keys.intend(Slot::Current, &intent).unwrap();
        assert!(keys.intend(Slot::Current, &key(KeyRole::Capf)).is_err(), "a second intent for a role");
        let made = keys.made(Slot::Current, &intent, vec![1, 2]).unwrap();
        assert!(keys.made(Slot::Current, &intent, vec![3]).is_err(), "a made key is never changed");
        let again = open();
        assert!(again.view().get(Slot::Current, KeyRole::Capf).is_none());
        again.load().unwrap();
        let view = again.view();
        let read = view.get(Slot::Current, KeyRole::Capf).unwrap();
        assert_eq!(**read, made);
        assert_eq!(view.all_made().count(), 1);
    }

    #[test]
    fn a_next_key_follows_whole_or_not_at_all_and_the_one_before_it_stays_on_record() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let keys = runtime.block_on(Keys::open(&dir.path().join("keys.db"), StoreSettings::default())).unwrap();
        let (old, next) = (key(KeyRole::Capf), Recorded { token: "U".into(), ..key(KeyRole::Capf) });
        assert!(keys.intend(Slot::Next, &next).is_err(), "nothing is there to be followed");
        keys.intend(Slot::Current, &old).unwrap();
        let old = keys.made(Slot::Current, &old, vec![1]).unwrap();
        keys.intend(Slot::Next, &next).unwrap();
        assert!(keys.retire(&old).is_err(), "the next key is not made");
        assert_eq!(keys.view().named(KeyRole::Capf, None).unwrap().key, &old);
        let next = keys.made(Slot::Next, &next, vec![2]).unwrap();
        let name = |spki: &[u8]| fingerprint(spki);
        assert_eq!(keys.view().named(KeyRole::Capf, Some(&name(&[2]))).unwrap().key, &next);
        assert_eq!(keys.view().named(KeyRole::Capf, None).unwrap().key, &old);
        assert!(keys.retire(&next).is_err(), "it is not the one that serves");
        keys.retire(&old).unwrap();
        let view = keys.view();
        assert_eq!(**view.get(Slot::Current, KeyRole::Capf).unwrap(), next);
        assert!(
            view.get(Slot::Next, KeyRole::Capf).is_none() && view.named(KeyRole::Capf, Some(&name(&[1]))).is_none()
        );
        assert_eq!(*view.retired()[0], old);
    }
}
