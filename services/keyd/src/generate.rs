//! Making a key, so that a kill at any point leaves either no key, or one that the next request finishes: the record says
//! which key is about to be made before the token is asked.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError},
};

use casemate_audit::Event;
use casemate_hsm_api::{HsmError, KeyRole, KeyState};
use casemate_keyring::{KeyRecord, Refusal};
use casemate_runtime::peer::Peer;

use crate::{
    Broker, Grant, KeydError,
    broker::{gone, never_made},
    keys::{Recorded, backup, fingerprint, new_id},
    token::Serving,
};

impl Broker {
    /// The key of `role`, and whether this call made it.
    pub(crate) fn generate(&self, peer: Peer, role: KeyRole) -> Result<(KeyRecord, bool), Refusal> {
        self.demand(peer, role, Grant::Generate)?;
        let mut unfinished = self.unfinished.lock().unwrap_or_else(PoisonError::into_inner);
        let serving = self.token.serving()?;
        let recorded = self.keys.view().get(role).map(Arc::clone);
        let (key, made) = match recorded {
            Some(key) if key.spki.is_some() => {
                self.still_there(&key, &serving)?;
                (key, false)
            }
            Some(key) if key.token != serving.serial => {
                let (begun, now) = (&key.token, &serving.serial);
                return Err(Refusal::KeyMissing(format!(
                    "making the {role} key began on token {begun}, and token {now} is here; bring that token back"
                )));
            }
            Some(key) => (self.finish(peer, &key, &serving, &mut unfinished)?, true),
            None => {
                let key = self.intend(role, &serving)?;
                (self.make(peer, &key, &serving, &mut unfinished)?, true)
            }
        };
        unfinished.remove(&role);
        drop(unfinished);
        key.public().map(|record| (record, made)).ok_or_else(|| never_made(role))
    }

    /// That a key on record is the one on the token; looked at anew, for it may have been brought back.
    fn still_there(&self, key: &Recorded, serving: &Arc<Serving>) -> Result<(), Refusal> {
        let view = self.keys.view();
        let made = view.made(key.role).ok_or_else(|| never_made(key.role))?;
        match self.token.test_again(&made, &serving.serial) {
            Ok(None) => Ok(()),
            Ok(Some(reason)) => Err(gone(key, &reason)),
            Err(error) => Err(self.failed(&error, serving)),
        }
    }

    fn intend(&self, role: KeyRole, serving: &Serving) -> Result<Recorded, Refusal> {
        let spec = self
            .policy
            .spec(role)
            .ok_or_else(|| Refusal::Failed(format!("the policy does not say what the {role} key is")))?;
        let id = new_id(role).map_err(own_failure)?;
        let key = Recorded { role, id, token: serving.serial.clone(), spec, spki: None, certificates: Vec::new() };
        self.keys.intend(key.clone()).map_err(own_failure)?;
        Ok(key)
    }

    /// Goes on where a generation was interrupted. The specification is the recorded one: the policy may have changed since.
    fn finish(
        &self,
        peer: Peer,
        key: &Recorded,
        serving: &Arc<Serving>,
        unfinished: &mut BTreeSet<KeyRole>,
    ) -> Result<Arc<Recorded>, Refusal> {
        let store = self.token.store();
        match store.inspect(key.id, Some(key.spec)).map_err(|error| self.failed(&error, serving))? {
            KeyState::Whole(public) => {
                let event = Event::KeyAdopted {
                    role: key.role.to_string(),
                    token: key.token.clone(),
                    key_id: key.id.to_string(),
                    fingerprint: fingerprint(&public.spki_der),
                };
                return self.commit(key, public.spki_der, &event, serving);
            }
            // Asked again now, the token might make two.
            KeyState::Half | KeyState::Absent if unfinished.contains(&key.role) => {
                return Err(Refusal::Unavailable(format!(
                    "the token may still be making the {} key; ask again, or restart casemate-keyd",
                    key.role
                )));
            }
            KeyState::Half => {
                let event = Event::KeyHalfRemoved {
                    role: key.role.to_string(),
                    token: key.token.clone(),
                    key_id: key.id.to_string(),
                };
                // Told before, as a signature is: nothing goes from the token of which nobody knows.
                self.on_disk(&event).map_err(own_failure)?;
                store.remove_half(key.id).map_err(|error| self.failed(&error, serving))?;
                self.auditor.record(&event);
            }
            KeyState::Absent => {}
        }
        self.make(peer, key, serving, unfinished)
    }

    fn make(
        &self,
        peer: Peer,
        key: &Recorded,
        serving: &Arc<Serving>,
        unfinished: &mut BTreeSet<KeyRole>,
    ) -> Result<Arc<Recorded>, Refusal> {
        let public = self.token.store().generate(key.id, key.role.name(), key.spec).map_err(|error| {
            if matches!(error, HsmError::Timeout { .. }) {
                unfinished.insert(key.role);
            }
            self.failed(&error, serving)
        })?;
        let event = Event::KeyGenerated {
            role: key.role.to_string(),
            algorithm: key.spec.algorithm.to_string(),
            backup: backup(key.spec).to_owned(),
            token: key.token.clone(),
            key_id: key.id.to_string(),
            fingerprint: fingerprint(&public.spki_der),
            uid: peer.uid,
        };
        self.commit(key, public.spki_der, &event, serving)
    }

    /// Records a key that the token has made. It is told before it counts: a kill in between leads to its adoption, which is told
    /// again.
    fn commit(
        &self,
        key: &Recorded,
        spki: Vec<u8>,
        event: &Event,
        serving: &Arc<Serving>,
    ) -> Result<Arc<Recorded>, Refusal> {
        // A token with the same label may have been put in its place meanwhile, and have made the key.
        let now = self.token.store().token().map_err(|error| self.failed(&error, serving))?.serial;
        if now != key.token {
            let (role, token) = (key.role, &key.token);
            return Err(Refusal::KeyMissing(format!(
                "token {now} came into the place of token {token} while the {role} key was made; bring that token back"
            )));
        }
        self.on_disk(event).map_err(own_failure)?;
        self.auditor.record(event);
        Ok(Arc::new(self.keys.made(key, spki).map_err(own_failure)?))
    }
}

/// A failure of the broker's own: nothing was made that is not on record.
fn own_failure(error: KeydError) -> Refusal {
    Refusal::Failed(casemate_runtime::daemon::chain(&error))
}
