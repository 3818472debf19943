//! Making a key, so that a kill at any point leaves either no key, or one that the next request finishes: the record says
//! which key is about to be made before the token is asked.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError},
};

use casemate_audit::Event;
use casemate_hsm_api::{HsmError, KeyAlgorithm, KeyRole, KeySpec, KeyState};
use casemate_keyring::{KeyRecord, Refusal};
use casemate_runtime::peer::Peer;

use crate::{
    Broker, Grant, KeydError,
    broker::{gone, never_made},
    keys::{Recorded, Slot, backup, fingerprint, new_id},
    token::{Missing, Serving, Token, lacks, moved},
};

/// Who has a key made, as which of its role, and where.
#[derive(Clone, Copy)]
struct At<'a> {
    peer: Peer,
    slot: Slot,
    token: &'a Token,
    serving: &'a Arc<Serving>,
}

impl Broker {
    /// The key of `role`, and whether this call made it.
    pub(crate) fn generate(&self, peer: Peer, role: KeyRole) -> Result<(KeyRecord, bool), Refusal> {
        self.demand(peer, role, Grant::Generate)?;
        let mut unfinished = self.unfinished.lock().unwrap_or_else(PoisonError::into_inner);
        let token = self.tokens.of(role)?;
        let serving = token.serving()?;
        let made =
            self.there_or_made(At { peer, slot: Slot::Current, token, serving: &serving }, role, &mut unfinished);
        drop(unfinished);
        made
    }

    /// The next key of `role`, and whether this call made it. The key that serves is not touched, nor need its token be there.
    pub(crate) fn rekey(&self, peer: Peer, role: KeyRole) -> Result<(KeyRecord, bool), Refusal> {
        self.demand(peer, role, Grant::Rekey)?;
        let mut unfinished = self.unfinished.lock().unwrap_or_else(PoisonError::into_inner);
        if self.keys.view().made(Slot::Current, role).is_none() {
            return Err(never_made(role));
        }
        let token = self.tokens.of(role)?;
        let serving = token.serving()?;
        let made = self.there_or_made(At { peer, slot: Slot::Next, token, serving: &serving }, role, &mut unfinished);
        drop(unfinished);
        made
    }

    /// Has the key of `role` with this fingerprint sign nothing any more. It stays in its token, and its token need not be there.
    pub(crate) fn retire(&self, peer: Peer, role: KeyRole, name: &str) -> Result<KeyRecord, Refusal> {
        self.demand(peer, role, Grant::Rekey)?;
        // One change of keys at a time.
        let _unfinished = self.unfinished.lock().unwrap_or_else(PoisonError::into_inner);
        let view = self.keys.view();
        let is_named =
            |key: &&Arc<Recorded>| key.role == role && key.spki.as_deref().map(fingerprint).as_deref() == Some(name);
        if let Some(record) = view.retired().iter().find(is_named).and_then(|key| key.public()) {
            return Ok(record);
        }
        let none = |what: &str| Refusal::KeyMissing(format!("{role} has no {what}; nothing was retired"));
        let old = view.named(role, None).filter(|made| fingerprint(made.spki) == name);
        let old = old.ok_or_else(|| none(&format!("key {name} that serves")))?;
        let next = view.made(Slot::Next, role).ok_or_else(|| none("next key that is made"))?;
        // Nothing signs in its place if the next one is not there.
        self.still_there(self.tokens.of_key(next.key)?, next.key, &self.tokens.of_key(next.key)?.serving()?)?;
        let record = old.key.public().ok_or_else(|| never_made(role))?;
        let event = Event::KeyRetired {
            role: role.to_string(),
            fingerprint: record.fingerprint.clone(),
            token: record.token.clone(),
            successor: fingerprint(next.spki),
            successor_token: next.key.token.clone(),
            uid: peer.uid,
        };
        // Told before it counts; a kill in between leads to its being told again.
        let told = self.on_disk(&event).map_err(own_failure)?;
        self.auditor.copy(&told);
        self.keys.retire(old.key).map_err(own_failure)?;
        Ok(record)
    }

    /// The key on record, or the one that is made now.
    fn there_or_made(
        &self,
        at: At<'_>,
        role: KeyRole,
        unfinished: &mut BTreeSet<KeyRole>,
    ) -> Result<(KeyRecord, bool), Refusal> {
        let recorded = self.keys.view().get(at.slot, role).map(Arc::clone);
        let (key, made) = match recorded {
            Some(key) if lacks(&key, &at.serving.serial, &at.serving.place).is_some() => {
                return Err(self.elsewhere(&key, at.serving));
            }
            Some(key) if key.spki.is_some() => {
                self.still_there(at.token, &key, at.serving)?;
                (key, false)
            }
            Some(key) => (self.finish(at, &key, unfinished)?, true),
            None => {
                let spec = self.spec(role)?;
                // Before it is on record where the key is to be made: the role can still be put elsewhere.
                self.demand_rate(at, role, spec.algorithm)?;
                let key = self.intend(at, role, spec)?;
                (self.make(at, &key, unfinished)?, true)
            }
        };
        unfinished.remove(&role);
        key.public().map(|record| (record, made)).ok_or_else(|| never_made(role))
    }

    /// That a key on record is the one on the token; looked at anew, for it may have been brought back.
    fn still_there(&self, token: &Token, key: &Recorded, serving: &Arc<Serving>) -> Result<(), Refusal> {
        let view = self.keys.view();
        let made = view.all_made().find(|made| made.key.id == key.id).ok_or_else(|| never_made(key.role))?;
        match token.test_again(&made, &serving.serial) {
            Ok(None) => Ok(()),
            Ok(Some(missing)) => Err(gone(key, &missing)),
            Err(error) => Err(token.failed(&error, serving)),
        }
    }

    /// The refusal of a key that was made, or whose making began, on another token.
    fn elsewhere(&self, key: &Recorded, serving: &Serving) -> Refusal {
        let (role, begun, now) = (key.role, &key.token, &serving.serial);
        match lacks(key, now, &serving.place) {
            // Of a key that serves elsewhere it was told when its token was tested.
            Some(missing @ Missing::Moved(_)) if key.spki.is_none() => {
                self.auditor.record(&moved(key, &serving.place));
                return gone(key, &missing);
            }
            Some(missing) if key.spki.is_some() => return gone(key, &missing),
            _ => {}
        }
        Refusal::KeyMissing(format!(
            "making the {role} key began on token {begun}, and token {now} is here; bring that token back"
        ))
    }

    fn spec(&self, role: KeyRole) -> Result<KeySpec, Refusal> {
        let unknown = || Refusal::Failed(format!("the policy does not say what the {role} key is"));
        self.policy.spec(role).ok_or_else(unknown)
    }

    /// Refuses a token that signs more slowly than `role` needs, or of which nobody knows how fast it signs.
    fn demand_rate(&self, at: At<'_>, role: KeyRole, algorithm: KeyAlgorithm) -> Result<(), Refusal> {
        let needed = self.roles.load_of(role);
        if needed == 0 {
            return Ok(());
        }
        let (token, place) = (at.serving.serial.clone(), at.token.place().to_owned());
        let carries = at.token.carries(algorithm, self.measure, needed, at.serving);
        let Err(measured) = carries.map_err(|error| at.token.failed(&error, at.serving))? else { return Ok(()) };
        let reason = format!(
            "the {role} key is not made on token {token} ({place}): with {algorithm} it signs {measured}, and the role needs \
             {needed} signatures/s; if the token was busy, provision again, and it is measured again; else put {role} on a \
             faster token, or state its load in role-tokens.toml"
        );
        self.auditor.record(&Event::TokenTooSlow {
            role: role.to_string(),
            token,
            place,
            algorithm: algorithm.to_string(),
            measured,
            needed,
            uid: at.peer.uid,
        });
        Err(Refusal::Policy(reason))
    }

    fn intend(&self, at: At<'_>, role: KeyRole, spec: KeySpec) -> Result<Recorded, Refusal> {
        let id = new_id(role).map_err(own_failure)?;
        let (token, place) = (at.serving.serial.clone(), Some(at.serving.place.clone()));
        let key = Recorded { role, id, token, place, spec, spki: None, certificates: Vec::new() };
        if at.slot == Slot::Next {
            let view = self.keys.view();
            let serves = view.made(Slot::Current, role).ok_or_else(|| never_made(role))?;
            let event = Event::RekeyBegun {
                role: role.to_string(),
                fingerprint: fingerprint(serves.spki),
                from: serves.key.token.clone(),
                token: key.token.clone(),
                place: at.serving.place.clone(),
                key_id: id.to_string(),
                uid: at.peer.uid,
            };
            let told = self.on_disk(&event).map_err(own_failure)?;
            self.auditor.copy(&told);
        }
        self.keys.intend(at.slot, &key).map_err(own_failure)?;
        Ok(key)
    }

    /// Goes on where a generation was interrupted. The specification is the recorded one: the policy may have changed since.
    fn finish(&self, at: At<'_>, key: &Recorded, unfinished: &mut BTreeSet<KeyRole>) -> Result<Arc<Recorded>, Refusal> {
        let store = at.token.store();
        match store.inspect(key.id, Some(key.spec)).map_err(|error| at.token.failed(&error, at.serving))? {
            KeyState::Whole(public) => {
                let event = Event::KeyAdopted {
                    role: key.role.to_string(),
                    token: key.token.clone(),
                    key_id: key.id.to_string(),
                    fingerprint: fingerprint(&public.spki_der),
                };
                return self.commit(at, key, public.spki_der, &event);
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
                let told = self.on_disk(&event).map_err(own_failure)?;
                store.remove_half(key.id).map_err(|error| at.token.failed(&error, at.serving))?;
                self.auditor.copy(&told);
            }
            KeyState::Absent => {}
        }
        self.demand_rate(at, key.role, key.spec.algorithm)?;
        self.make(at, key, unfinished)
    }

    fn make(&self, at: At<'_>, key: &Recorded, unfinished: &mut BTreeSet<KeyRole>) -> Result<Arc<Recorded>, Refusal> {
        let public = at.token.store().generate(key.id, key.role.name(), key.spec).map_err(|error| {
            if matches!(error, HsmError::Timeout { .. }) {
                unfinished.insert(key.role);
            }
            at.token.failed(&error, at.serving)
        })?;
        let event = Event::KeyGenerated {
            role: key.role.to_string(),
            algorithm: key.spec.algorithm.to_string(),
            backup: backup(key.spec).to_owned(),
            token: key.token.clone(),
            key_id: key.id.to_string(),
            fingerprint: fingerprint(&public.spki_der),
            uid: at.peer.uid,
        };
        self.commit(at, key, public.spki_der, &event)
    }

    /// Records a key that the token has made. It is told before it counts: a kill in between leads to its adoption, which is told
    /// again.
    fn commit(&self, at: At<'_>, key: &Recorded, spki: Vec<u8>, event: &Event) -> Result<Arc<Recorded>, Refusal> {
        // A token with the same label may have been put in its place meanwhile, and have made the key.
        let now = at.token.store().token().map_err(|error| at.token.failed(&error, at.serving))?.serial;
        if now != key.token {
            let (role, token) = (key.role, &key.token);
            return Err(Refusal::KeyMissing(format!(
                "token {now} came into the place of token {token} while the {role} key was made; bring that token back"
            )));
        }
        let told = self.on_disk(event).map_err(own_failure)?;
        self.auditor.copy(&told);
        Ok(Arc::new(self.keys.made(at.slot, key, spki).map_err(own_failure)?))
    }
}

/// A failure of the broker's own: nothing was made that is not on record.
fn own_failure(error: KeydError) -> Refusal {
    Refusal::Failed(casemate_runtime::daemon::chain(&error))
}
