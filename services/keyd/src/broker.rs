use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex},
};

use casemate_audit::{Auditor, Event, Record};
use casemate_hsm_api::{HsmError, KeyRole, KeyStore};
use casemate_keyring::{KeyRecord, Refusal, Request, Response, Status};
use casemate_post::Passed;
use casemate_runtime::{config::Config, peer::Peer};

use crate::{
    Grant, JudgeLimits, KeyPolicy, KeydError, Keys, Patience, SignatureRecord,
    keys::Recorded,
    token::{Token, refusal},
};

/// The name under which this daemon audits.
const SERVICE: &str = "casemate-keyd";

/// What a broker is made of.
pub struct Parts {
    /// Who runs under which user.
    pub config: Config,
    /// Who may do what.
    pub policy: KeyPolicy,
    /// The keys on record, loaded.
    pub keys: Keys,
    /// The token, which need not be there yet.
    pub store: Arc<dyn KeyStore>,
    /// The record of signatures.
    pub record: SignatureRecord,
    /// The audit trail.
    pub auditor: Arc<Auditor>,
    /// Limits of what is signed.
    pub limits: JudgeLimits,
    /// How long to wait for the token.
    pub patience: Patience,
}

/// The key broker without its socket. Any number of threads may ask at once; each call blocks its thread.
pub struct Broker {
    pub(crate) config: Config,
    pub(crate) policy: KeyPolicy,
    pub(crate) keys: Keys,
    pub(crate) token: Token,
    pub(crate) record: SignatureRecord,
    pub(crate) auditor: Arc<Auditor>,
    pub(crate) limits: JudgeLimits,
    /// One generation at a time; holds the roles whose generation ran out of time and may still go on in the token.
    pub(crate) unfinished: Mutex<BTreeSet<KeyRole>>,
}

impl Broker {
    /// A broker that signs nothing before [`Broker::bring_back`] or [`Broker::attempt`] found and tested the token.
    #[must_use]
    pub fn new(_passed: &Passed, parts: Parts) -> Self {
        let token = Token::new(parts.store, Arc::clone(&parts.auditor), parts.patience);
        Self {
            config: parts.config,
            policy: parts.policy,
            keys: parts.keys,
            token,
            record: parts.record,
            auditor: parts.auditor,
            limits: parts.limits,
            unfinished: Mutex::default(),
        }
    }

    /// Looks for the token once and tests it: it signs with every key on record, and the answers are verified here.
    ///
    /// # Errors
    /// What the token said; a wrong answer is for ever.
    pub fn attempt(&self) -> Result<(), HsmError> {
        self.token.attempt(&self.keys)
    }

    /// As [`Broker::attempt`] until it succeeds: an absent token is waited for, a locked PIN until the security officer unlocked
    /// it, a refused PIN until its file changes.
    ///
    /// # Errors
    /// A wrong answer, which ends the use of the token.
    pub fn bring_back(&self) -> Result<(), HsmError> {
        self.token.bring_back(&self.keys)
    }

    /// Returns when the token was lost, refused the PIN or gave a wrong answer.
    pub fn until_lost(&self) {
        self.token.until_lost();
    }

    /// Whether `peer` is root or somebody whom `[users]` names. Nobody else is answered. Root may ask for the status, and has
    /// no grant unless `[users]` runs a daemon under it, as on a developer's machine.
    #[must_use]
    pub fn knows(&self, peer: Peer) -> bool {
        peer.uid == 0 || self.config.daemons_of(peer.uid).next().is_some()
    }

    /// Answers `request` of `peer`.
    pub fn handle(&self, peer: Peer, request: Request) -> Response {
        if !self.knows(peer) {
            self.auditor.record(&stranger(peer));
            return Response::Refused(Refusal::Policy("this user is none of the daemons".to_owned()));
        }
        let answer = match request {
            Request::Status => self.status().map(Response::Status),
            Request::Key { role } => self.key(peer, role).map(Response::Key),
            Request::Generate { role } => {
                self.generate(peer, role).map(|(key, made)| Response::Generated { key, made })
            }
            Request::Sign(request) => self.sign(peer, &request).map(Response::Signature),
        };
        answer.unwrap_or_else(Response::Refused)
    }

    /// Refuses, and audits, what the policy does not grant to any daemon of this user.
    pub(crate) fn demand(&self, peer: Peer, role: KeyRole, grant: Grant) -> Result<(), Refusal> {
        if self.config.daemons_of(peer.uid).any(|daemon| self.policy.permits(daemon, role, grant)) {
            return Ok(());
        }
        Err(self.refuse(peer, role, grant, format!("uid {} may not {grant} with {role}", peer.uid)))
    }

    /// Audits a refusal by the policy or the judge.
    pub(crate) fn refuse(&self, peer: Peer, role: KeyRole, purpose: impl fmt::Display, reason: String) -> Refusal {
        self.auditor.record(&Event::KeyUseRefused {
            role: role.to_string(),
            purpose: purpose.to_string(),
            uid: peer.uid,
            pid: peer.pid,
            reason: reason.clone(),
        });
        Refusal::Policy(reason)
    }

    /// Has `event` in the broker's own record before it returns.
    pub(crate) fn on_disk(&self, event: &Event) -> Result<(), KeydError> {
        self.record.append(&Record::new(SERVICE, event).json_line())
    }

    fn key(&self, peer: Peer, role: KeyRole) -> Result<KeyRecord, Refusal> {
        if !self.config.daemons_of(peer.uid).any(|daemon| self.policy.permits_any(daemon, role)) {
            return Err(self.refuse(
                peer,
                role,
                "public-key",
                format!("uid {} has no use for the {role} key", peer.uid),
            ));
        }
        let record = self.keys.view().get(role).and_then(|key| key.public());
        record.ok_or_else(|| never_made(role))
    }

    fn status(&self) -> Result<Status, Refusal> {
        let view = self.keys.view();
        let (mut token, mut on_token) = (None, None);
        if let Ok(serving) = self.token.serving() {
            let store = self.token.store();
            match store.token().and_then(|info| Ok((info, store.keys()?))) {
                Ok((info, keys)) => (token, on_token) = (Some(info), Some(keys)),
                Err(error) => {
                    self.token.note(&error, &serving);
                    tracing::info!(%error, "status without the token");
                }
            }
        }
        let there = |record: &KeyRecord| {
            let keys = on_token.as_ref()?;
            let same = |key: &casemate_hsm_api::StoredKey| {
                key.id.to_string() == record.key_id && key.public.spki_der == record.spki_der
            };
            Some(token.as_ref().is_some_and(|info| info.serial == record.token) && keys.iter().any(same))
        };
        let records = view.all_made().filter_map(|made| made.key.public());
        let keys = records.map(|record| (there(&record), record)).map(|(there, record)| (record, there)).collect();
        Ok(Status { state: self.token.state(), token, keys })
    }

    /// Turns an error of the token into what the caller is told, and takes note of it.
    pub(crate) fn failed(&self, error: &HsmError, serving: &Arc<crate::token::Serving>) -> Refusal {
        self.token.note(error, serving);
        refusal(error)
    }
}

/// A caller whom nobody knows.
pub(crate) fn stranger(peer: Peer) -> Event {
    let reason = "the user is none of the daemons in [users]".to_owned();
    Event::CallerRefused { uid: peer.uid, pid: peer.pid, reason }
}

/// The answer where there is no key yet.
pub(crate) fn never_made(role: KeyRole) -> Refusal {
    Refusal::KeyMissing(format!("the {role} key was never made; provision the node"))
}

/// The answer where a key is on record and the token cannot use it, for `reason`. Nothing is made in its place.
pub(crate) fn gone(key: &Recorded, reason: &str) -> Refusal {
    Refusal::KeyMissing(format!(
        "the {} key is recorded on token {}: {reason}; bring back the token or restore the key",
        key.role, key.token
    ))
}
