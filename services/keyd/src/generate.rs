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
    keys::{Recorded, backup, fingerprint, new_id},
    token::{Missing, Serving, Token, lacks, moved},
};

/// Who has a key made, and where.
#[derive(Clone, Copy)]
struct At<'a> {
    peer: Peer,
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
        let recorded = self.keys.view().get(role).map(Arc::clone);
        let (key, made) = match recorded {
            Some(key) if key.spki.is_some() => {
                self.still_there(token, &key, &serving)?;
                (key, false)
            }
            Some(key) if key.token != serving.serial => return Err(self.begun_elsewhere(&key, &serving)),
            Some(key) => (self.finish(At { peer, token, serving: &serving }, &key, &mut unfinished)?, true),
            None => {
                let at = At { peer, token, serving: &serving };
                let spec = self.spec(role)?;
                // Before it is on record where the key is to be made: the role can still be put elsewhere.
                self.demand_rate(at, role, spec.algorithm)?;
                let key = self.intend(role, spec, &serving)?;
                (self.make(at, &key, &mut unfinished)?, true)
            }
        };
        unfinished.remove(&role);
        drop(unfinished);
        key.public().map(|record| (record, made)).ok_or_else(|| never_made(role))
    }

    /// That a key on record is the one on the token; looked at anew, for it may have been brought back.
    fn still_there(&self, token: &Token, key: &Recorded, serving: &Arc<Serving>) -> Result<(), Refusal> {
        let view = self.keys.view();
        let made = view.made(key.role).ok_or_else(|| never_made(key.role))?;
        match token.test_again(&made, &serving.serial) {
            Ok(None) => Ok(()),
            Ok(Some(missing)) => Err(gone(key, &missing)),
            Err(error) => Err(token.failed(&error, serving)),
        }
    }

    /// The refusal to go on where a generation began on another token.
    fn begun_elsewhere(&self, key: &Recorded, serving: &Serving) -> Refusal {
        let (role, begun, now) = (key.role, &key.token, &serving.serial);
        if let Some(missing @ Missing::Moved(_)) = lacks(key, now, &serving.place) {
            self.auditor.record(&moved(key, &serving.place));
            return gone(key, &missing);
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
        let measured =
            at.token.rate(algorithm, self.measure, at.serving).map_err(|error| at.token.failed(&error, at.serving))?;
        let measured = match measured {
            Ok(rate) if rate.carries(needed) => return Ok(()),
            Ok(rate) => rate.to_string(),
            Err(reason) => format!("nobody knows how fast, for it cannot be measured ({reason})"),
        };
        let reason = format!(
            "the {role} key is not made on token {token} ({place}): with {algorithm} it signs {measured}, and the role needs \
             {needed} signatures/s; put {role} on a faster token, or state its load in role-tokens.toml"
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

    fn intend(&self, role: KeyRole, spec: KeySpec, serving: &Serving) -> Result<Recorded, Refusal> {
        let id = new_id(role).map_err(own_failure)?;
        let (token, place) = (serving.serial.clone(), Some(serving.place.clone()));
        let key = Recorded { role, id, token, place, spec, spki: None, certificates: Vec::new() };
        self.keys.intend(key.clone()).map_err(own_failure)?;
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
                self.on_disk(&event).map_err(own_failure)?;
                store.remove_half(key.id).map_err(|error| at.token.failed(&error, at.serving))?;
                self.auditor.record(&event);
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
        self.on_disk(event).map_err(own_failure)?;
        self.auditor.record(event);
        Ok(Arc::new(self.keys.made(key, spki).map_err(own_failure)?))
    }
}

/// A failure of the broker's own: nothing was made that is not on record.
fn own_failure(error: KeydError) -> Refusal {
    Refusal::Failed(casemate_runtime::daemon::chain(&error))
}
