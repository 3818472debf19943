use std::{
    collections::BTreeSet,
    fmt,
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use casemate_audit::{Auditor, Event, Record};
use casemate_hsm_api::{KeyRole, RunBy, StoredKey};
use casemate_keyring::{KeyRecord, Refusal, Request, Response, Status, TokenStatus, UNRECORDED_LIMIT, UnrecordedKey};
use casemate_post::Passed;
use casemate_runtime::{config::Config, peer::Peer};

use crate::{
    Grant, JudgeLimits, Keeper, KeyPolicy, KeydError, Keys, RoleTokens, SignatureRecord, TokenParts,
    bounds::{AuditedRefusals, Shares},
    keys::{Recorded, Slot},
    token::{Missing, Token},
    tokens::{Tokens, worst},
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
    /// The tokens, which need not be there yet.
    pub tokens: Vec<TokenParts>,
    /// How often each role has to sign.
    pub roles: RoleTokens,
    /// How long a token's rate is measured.
    pub measure: Duration,
    /// The record of signatures.
    pub record: SignatureRecord,
    /// What one user may fill of the record in a day, in bytes.
    pub caller_day_bytes: u64,
    /// The audit trail.
    pub auditor: Arc<Auditor>,
    /// Refusals that go there in ten seconds, of each user.
    pub audited_refusals: NonZeroU32,
    /// Limits of what is signed.
    pub limits: JudgeLimits,
}

/// What is done with an answer, and by whose thread.
pub type Answered = Box<dyn FnOnce(Response, RunBy) + Send>;

/// The key broker without its socket. Any number of threads may ask at once; each call blocks its thread.
pub struct Broker {
    pub(crate) config: Config,
    pub(crate) policy: KeyPolicy,
    pub(crate) keys: Keys,
    pub(crate) tokens: Tokens,
    pub(crate) roles: RoleTokens,
    pub(crate) measure: Duration,
    pub(crate) record: SignatureRecord,
    pub(crate) shares: Shares,
    pub(crate) auditor: Arc<Auditor>,
    pub(crate) refusals: AuditedRefusals,
    pub(crate) limits: JudgeLimits,
    /// One generation at a time; holds the roles whose generation ran out of time and may still go on in the token.
    pub(crate) unfinished: Mutex<BTreeSet<KeyRole>>,
}

impl Broker {
    /// A broker that signs nothing with a key before the [`Keeper`] of its token found and tested it.
    #[must_use]
    pub fn new(_passed: &Passed, parts: Parts) -> Self {
        let tokens = Tokens::new(parts.tokens, &parts.auditor);
        let refusals = AuditedRefusals::new(parts.audited_refusals, &parts.auditor);
        Self {
            config: parts.config,
            policy: parts.policy,
            keys: parts.keys,
            tokens,
            roles: parts.roles,
            measure: parts.measure,
            shares: Shares::new(parts.caller_day_bytes, parts.record.spent_before(), Instant::now()),
            record: parts.record,
            auditor: parts.auditor,
            refusals,
            limits: parts.limits,
            unfinished: Mutex::default(),
        }
    }

    /// One for each token.
    #[must_use]
    pub fn keepers(self: &Arc<Self>) -> Vec<Keeper> {
        self.tokens.iter().map(|token| Keeper::new(Arc::clone(self), Arc::clone(token))).collect()
    }

    /// Whether `peer` is root or somebody whom `[users]` names. Nobody else is answered. Root may ask for the status and
    /// for what an auditor needs, and has no grant unless `[users]` runs a daemon under it, as on a developer's machine.
    #[must_use]
    pub fn knows(&self, peer: Peer) -> bool {
        peer.uid == 0 || self.config.daemons_of(peer.uid).next().is_some()
    }

    /// Answers `request` of `peer`: `then` is given the answer, on this thread, or on another if a signature takes the
    /// token too long.
    pub fn handle(self: &Arc<Self>, peer: Peer, request: Request, then: Answered) {
        if !self.knows(peer) {
            self.refusals.of_strangers().record(&stranger(peer));
            let refusal = Refusal::Policy("this user is none of the daemons".to_owned());
            return then(Response::Refused(refusal), RunBy::Caller);
        }
        let answer = match request {
            Request::Sign(request) => return self.sign(peer, request, then),
            Request::Status => Ok(Response::Status(self.status())),
            Request::Key { role, fingerprint } => self.key(peer, role, fingerprint.as_deref()).map(Response::Key),
            Request::Rekey { role } => self.rekey(peer, role).map(|(key, made)| Response::Generated { key, made }),
            Request::Retire { role, fingerprint } => self.retire(peer, role, &fingerprint).map(Response::Retired),
            Request::Generate { role } => {
                self.generate(peer, role).map(|(key, made)| Response::Generated { key, made })
            }
            Request::Attest { role, nonce } => self.attest(peer, role, &nonce).map(Response::Evidence),
            Request::AttestationKey { token } => self.attestation_key(peer, &token).map(Response::Evidence),
            Request::AnswerChallenge { token, challenge } => {
                self.answer_challenge(peer, &token, &challenge).map(Response::Evidence)
            }
            Request::ChangePin { token, pin } => self
                .change_pin(peer, token.as_deref(), &pin.0)
                .map(|(token, serial)| Response::PinChanged { token, serial }),
        };
        then(answer.unwrap_or_else(Response::Refused), RunBy::Caller);
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
        self.audit_refusal(peer, role, &purpose, &reason);
        Refusal::Policy(reason)
    }

    /// Audits that a key is not used for `peer`.
    pub(crate) fn audit_refusal(&self, peer: Peer, role: KeyRole, purpose: &dyn fmt::Display, reason: &str) {
        let event = Event::KeyUseRefused {
            role: role.to_string(),
            purpose: purpose.to_string(),
            uid: peer.uid,
            pid: peer.pid,
            reason: reason.to_owned(),
        };
        self.refusals.of_user(peer.uid, &event);
    }

    /// Has `event` in the broker's own record before it returns; gives back what stands there, for the journal to have the same.
    pub(crate) fn on_disk(&self, event: &Event) -> Result<Record, KeydError> {
        let mut record = Record::new(SERVICE, event);
        let made = &mut record;
        self.record.append(|number| {
            *made = made.clone().numbered(number);
            made.json_line()
        })?;
        Ok(record)
    }

    fn key(&self, peer: Peer, role: KeyRole, fingerprint: Option<&str>) -> Result<KeyRecord, Refusal> {
        if !self.config.daemons_of(peer.uid).any(|daemon| self.policy.permits_any(daemon, role)) {
            return Err(self.refuse(
                peer,
                role,
                "public-key",
                format!("uid {} has no use for the {role} key", peer.uid),
            ));
        }
        let record = self.keys.view().named(role, fingerprint).and_then(|made| made.key.public());
        record.ok_or_else(|| unknown(role, fingerprint))
    }

    fn status(&self) -> Status {
        // All at once: one that hangs has the others' answers wait no longer than its own.
        let found = Mutex::new(Vec::new());
        let ask = |number: usize, token: &Token| {
            let status = token.status();
            found.lock().unwrap_or_else(PoisonError::into_inner).push((number, status));
        };
        thread::scope(|scope| {
            let mut tokens = self.tokens.iter().enumerate();
            let own = tokens.next();
            for (number, token) in tokens {
                let ask = &ask;
                if thread::Builder::new().spawn_scoped(scope, move || ask(number, token)).is_err() {
                    ask(number, token);
                }
            }
            if let Some((number, token)) = own {
                ask(number, token);
            }
        });
        let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        found.sort_unstable_by_key(|(number, _)| *number);
        let is_recorded = |key: &StoredKey, record: &KeyRecord| {
            key.id.to_string() == record.key_id && key.public.spki_der == record.spki_der
        };
        let there = |key: &Recorded, record: &KeyRecord| {
            let place = self.tokens.of_key(key).ok()?.place();
            let (_, (token, keys)) = found.iter().find(|(_, (token, _))| token.name == place)?;
            let keys = keys.as_ref()?;
            let is_its_token = token.info.as_ref().is_some_and(|info| info.serial == record.token);
            Some(is_its_token && keys.iter().any(|key| is_recorded(key, record)))
        };
        let view = self.keys.view();
        let looked_for = |slot| -> Vec<_> {
            let records = view.made_in(slot).filter_map(|made| Some((made.key, made.key.public()?)));
            records.map(|(key, record)| (there(key, &record), record)).map(|(there, record)| (record, there)).collect()
        };
        let (keys, next) = (looked_for(Slot::Current), looked_for(Slot::Next));
        let retired: Vec<_> = view.retired().iter().filter_map(|key| key.public()).collect();
        let records: Vec<_> = keys.iter().chain(&next).map(|(record, _)| record).chain(&retired).collect();
        let counted = |(_, (token, keys)): (usize, (TokenStatus, Option<Vec<StoredKey>>))| {
            let Some(keys) = keys else { return token };
            let is_known = |key: &StoredKey| records.iter().any(|record| is_recorded(key, record));
            let (known, others): (Vec<_>, Vec<_>) = keys.iter().partition(|key| is_known(key));
            let pairs = Some((keys.len(), known.len()));
            let unrecorded = others.into_iter().take(UNRECORDED_LIMIT).map(unrecorded).collect();
            TokenStatus { pairs, unrecorded, ..token }
        };
        let tokens: Vec<_> = found.into_iter().map(counted).collect();
        let state = worst(tokens.iter().map(|token| (&*token.name, &token.state)));
        Status { state, tokens, keys, next, retired, recorded: self.record.recorded() }
    }
}

/// Bytes of `event` in the record at most: with the longest number.
pub(crate) fn room_of(event: &Event) -> usize {
    Record::new(SERVICE, event).numbered(u64::MAX).json_line().len()
}

/// A key that is not on record. Its label is somebody else's, and may be of any length.
fn unrecorded(key: &StoredKey) -> UnrecordedKey {
    let label = key.label.chars().take(64).collect();
    UnrecordedKey { label, key_id: key.id.to_string(), algorithm: key.public.algorithm }
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

/// The answer where there is no such key.
pub(crate) fn unknown(role: KeyRole, fingerprint: Option<&str>) -> Refusal {
    match fingerprint {
        None => never_made(role),
        Some(name) => Refusal::KeyMissing(format!(
            "no {role} key that serves has the fingerprint {name}: it is retired or was never made; is a certificate of another \
             key still published?"
        )),
    }
}

/// The answer where a key is on record and cannot be used. Nothing is made in its place.
pub(crate) fn gone(key: &Recorded, missing: &Missing) -> Refusal {
    let (role, token) = (key.role, &key.token);
    Refusal::KeyMissing(match missing {
        Missing::Gone(reason) => {
            format!("the {role} key is recorded on token {token}: {reason}; bring back the token or restore the key")
        }
        Missing::Moved(place) => format!(
            "the {role} key was made on token {token} ({}), and role-tokens.toml puts {role} on {place}: moving a role is a \
             planned re-key, which makes a new key that phones have to learn, and never a copy; name the old token again, or \
             run `casemate identity rekey {role}`",
            key.place.as_deref().unwrap_or_default()
        ),
    })
}
