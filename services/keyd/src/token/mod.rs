//! A token as the broker has it: tested before it is used, waited for while it is away, and left alone for ever after one wrong
//! answer. What happens to one is nothing to the others.

mod test;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use casemate_audit::{Auditor, Event};
use casemate_hsm_api::{HsmError, KeyAlgorithm, KeyId, KeyRole, KeyStore, SignatureRate, StoredKey, TokenInfo};
use casemate_hsm_pkcs11::Backoff;
use casemate_keyring::{BrokerState, Refusal, TokenStatus};
use casemate_runtime::publish::Stamp;

use crate::keys::{Keys, Made, Recorded, Slot, View, fingerprint};

/// Why a key is missing that is simply gone.
pub(crate) const NOT_THERE: &str = "it is not there";

/// Where the token stands.
#[derive(Clone, Debug)]
enum Standing {
    /// It passed its test.
    Serving(Arc<Serving>),
    /// It is away, or failed in a way that may pass.
    Waiting(String),
    /// The PIN was refused: nothing is tried before the PIN file changed from this.
    PinRefused(String, Option<Stamp>),
    /// The PIN is locked or about to be, and is unlocked at the token or by waiting. The token says when that is done: it is asked
    /// again and again, and no PIN is tried while it says so.
    PinLocked(String),
    /// It gave a wrong answer to this. For ever.
    Wrong { token: String, operation: String },
}

/// A token that passed its test.
#[derive(Debug)]
pub(crate) struct Serving {
    /// Its serial number.
    pub(crate) serial: String,
    /// Its name in `role-tokens.toml`.
    pub(crate) place: String,
    /// Recorded keys that are not on it, or cannot be used, and why.
    missing: BTreeMap<KeyId, Missing>,
}

/// Why a recorded key cannot be used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Missing {
    /// It is not as it should be on the token that stands in its place.
    Gone(String),
    /// `role-tokens.toml` names this token in the place of the one that made it.
    Moved(String),
}

impl Serving {
    /// Why `key` cannot be used on this token, if it cannot.
    pub(crate) fn lacks(&self, key: &Recorded) -> Option<Missing> {
        lacks(key, &self.serial, &self.place).or_else(|| self.missing.get(&key.id).cloned())
    }
}

/// A key of another token than the one with `serial` is not looked for at all.
pub(crate) fn lacks(key: &Recorded, serial: &str, place: &str) -> Option<Missing> {
    if key.token == serial {
        return None;
    }
    Some(match &key.place {
        Some(made) if made != place => Missing::Moved(place.to_owned()),
        _ => Missing::Gone(format!("token {serial} is in its place")),
    })
}

/// What a token is made of.
pub struct TokenParts {
    /// Its name, as `role-tokens.toml` says it.
    pub place: String,
    /// The roles whose keys live in it.
    pub roles: BTreeSet<KeyRole>,
    /// The token, which need not be there yet.
    pub store: Arc<dyn KeyStore>,
    /// How long to wait for it.
    pub patience: Patience,
}

/// How long to wait for what.
#[derive(Clone, Debug)]
pub struct Patience {
    /// For an absent token.
    pub backoff: Backoff,
    /// Between two looks at the PIN file after the PIN was refused.
    pub pin_poll: Duration,
    /// The PIN file, if there is one.
    pub pin_file: Option<PathBuf>,
}

/// What was measured of the token with a serial number: a rate, or why there is none.
type Rates = (String, HashMap<KeyAlgorithm, Result<SignatureRate, String>>);

/// A token and its standing.
pub(crate) struct Token {
    place: String,
    roles: BTreeSet<KeyRole>,
    /// The names of all tokens.
    places: Arc<BTreeSet<String>>,
    store: Arc<dyn KeyStore>,
    auditor: Arc<Auditor>,
    patience: Patience,
    rates: Mutex<Rates>,
    standing: Mutex<Standing>,
    /// The standing changed.
    changed: Condvar,
}

impl Token {
    /// An untested token: nothing is signed before [`Token::attempt`] succeeded.
    pub(crate) fn new(parts: TokenParts, places: Arc<BTreeSet<String>>, auditor: Arc<Auditor>) -> Self {
        let standing = Mutex::new(Standing::Waiting("not tested yet".to_owned()));
        let TokenParts { place, roles, store, patience } = parts;
        let (rates, changed) = (Mutex::default(), Condvar::new());
        Self { place, roles, places, store, auditor, patience, rates, standing, changed }
    }

    pub(crate) fn store(&self) -> &dyn KeyStore {
        &*self.store
    }

    /// Its name in `role-tokens.toml`.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// The file with its PIN, if there is one.
    pub(crate) fn pin_file(&self) -> Option<&Path> {
        self.patience.pin_file.as_deref()
    }

    /// Whether `key` is looked for here: where it was made, or, if no role is put there any more, where its role is put.
    pub(crate) fn has(&self, key: &Recorded) -> bool {
        match &key.place {
            Some(made) if self.places.contains(made) => *made == self.place,
            _ => self.holds(key.role),
        }
    }

    /// Whether the key of `role` is to be made here.
    pub(crate) fn holds(&self, role: KeyRole) -> bool {
        self.roles.contains(&role)
    }

    fn rates(&self) -> MutexGuard<'_, Rates> {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the token signs `needed` times a second, and if not, how fast it signs or why nobody knows. What was measured before
    /// and is enough counts; what was not enough may have been a busy moment, so the token is measured again whenever it is asked for.
    ///
    /// # Errors
    /// What the token said, unless it said that it cannot be measured.
    pub(crate) fn carries(
        &self,
        algorithm: KeyAlgorithm,
        duration: Duration,
        needed: u32,
        serving: &Serving,
    ) -> Result<Result<(), String>, HsmError> {
        let mut rates = self.rates();
        if rates.0 != serving.serial {
            *rates = (serving.serial.clone(), HashMap::new());
        }
        if rates.1.get(&algorithm).is_some_and(|known| known.as_ref().is_ok_and(|rate| rate.carries(needed))) {
            return Ok(Ok(()));
        }
        // Whoever asks for the status meanwhile does not wait.
        drop(rates);
        let measured = match self.store.measure(algorithm, duration) {
            Ok(rate) => Ok(rate),
            Err(HsmError::Unmeasurable { detail, .. }) => Err(detail),
            Err(error) => return Err(error),
        };
        let mut rates = self.rates();
        if rates.0 == serving.serial {
            rates.1.insert(algorithm, measured.clone());
        }
        Ok(match measured {
            Ok(rate) if rate.carries(needed) => Ok(()),
            Ok(rate) => Err(rate.to_string()),
            Err(reason) => Err(format!("nobody knows how fast, for it cannot be measured ({reason})")),
        })
    }

    /// The token as callers see it, and the keys on it while it serves, which are not compared with the records here.
    pub(crate) fn status(&self) -> (TokenStatus, Option<Vec<StoredKey>>) {
        let (mut info, mut keys) = (None, None);
        if let Ok(serving) = self.serving() {
            match self.store.token().and_then(|info| Ok((info, self.store.keys()?))) {
                Ok((told, found)) => (info, keys) = (Some(told), Some(found)),
                Err(error) => {
                    self.note(&error, &serving);
                    tracing::info!(token = self.place, %error, "status without the token");
                }
            }
        }
        let rates = self.rates();
        let measured = |algorithm| Some((algorithm, rates.1.get(&algorithm)?.as_ref().ok().copied()?));
        let rates = KeyAlgorithm::ALL.into_iter().filter_map(measured).collect();
        let (name, state, roles) = (self.place.clone(), self.state(), self.roles.iter().copied().collect());
        (TokenStatus { name, state, info, pairs: None, unrecorded: Vec::new(), rates, roles }, keys)
    }

    /// Turns an error of the token into what the caller is told, and takes note of it.
    pub(crate) fn failed(&self, error: &HsmError, serving: &Arc<Serving>) -> Refusal {
        self.note(error, serving);
        refusal(error)
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The token, if it may be used now.
    pub(crate) fn serving(&self) -> Result<Arc<Serving>, Refusal> {
        match &*self.standing() {
            Standing::Serving(serving) => Ok(Arc::clone(serving)),
            Standing::Waiting(reason) => Err(Refusal::Unavailable(reason.clone())),
            Standing::PinRefused(reason, _) | Standing::PinLocked(reason) => Err(Refusal::OutOfService(reason.clone())),
            Standing::Wrong { token, operation } => Err(refusal(&wrong(token, operation))),
        }
    }

    /// As callers see it.
    pub(crate) fn state(&self) -> BrokerState {
        match &*self.standing() {
            Standing::Serving(_) => BrokerState::Serving,
            Standing::Waiting(reason) => BrokerState::Waiting(reason.clone()),
            Standing::PinRefused(reason, _) | Standing::PinLocked(reason) => BrokerState::OutOfService(reason.clone()),
            Standing::Wrong { token, operation } => BrokerState::OutOfService(wrong(token, operation).to_string()),
        }
    }

    /// Looks for the token, logs in and tests it with every key on record. The outcome is in the standing.
    ///
    /// # Errors
    /// What the token said.
    pub(crate) fn attempt(&self, keys: &Keys) -> Result<(), HsmError> {
        if let Standing::Wrong { token, operation } = &*self.standing() {
            return Err(wrong(token, operation));
        }
        // Looked at before the PIN is read, so that a change in between is not missed.
        let stamp = self.pin_stamp();
        match self.connect_and_test(&keys.view()) {
            Ok((info, missing)) => {
                self.auditor.record(&Event::TokenReady {
                    token: info.serial.clone(),
                    label: info.label,
                    firmware: info.firmware,
                });
                if info.refused_sessions > 0 {
                    let refused = u64::try_from(info.refused_sessions).unwrap_or(u64::MAX);
                    self.auditor.record(&Event::TokenShortOfSessions { token: info.serial.clone(), refused });
                }
                let place = self.place.clone();
                self.stand(Standing::Serving(Arc::new(Serving { serial: info.serial, place, missing })));
                Ok(())
            }
            Err(error) => {
                self.leave(&error, stamp);
                Err(error)
            }
        }
    }

    fn connect_and_test(&self, view: &View) -> Result<(TokenInfo, BTreeMap<KeyId, Missing>), HsmError> {
        self.store.reconnect()?;
        let info = self.store.token()?;
        let mut missing = BTreeMap::new();
        for made in view.all_made().filter(|made| self.has(made.key)) {
            if let Some(reason) = self.look(&made, &info.serial)? {
                self.audit_missing(&made, &reason);
                missing.insert(made.key.id, reason);
            }
        }
        // Those go on signing where they were made; but nobody thinks that they moved.
        let elsewhere = |made: &Made<'_>| self.holds(made.key.role) && !self.has(made.key);
        for made in view.made_in(Slot::Current).filter(elsewhere) {
            if view.get(Slot::Next, made.key.role).is_none() {
                self.auditor.record(&moved(made.key, &self.place));
            }
        }
        Ok((info, missing))
    }

    /// Why the key cannot be used on the token with `serial`, if it cannot.
    fn look(&self, made: &Made<'_>, serial: &str) -> Result<Option<Missing>, HsmError> {
        match lacks(made.key, serial, &self.place) {
            Some(missing) => Ok(Some(missing)),
            None => Ok(test::test(&*self.store, made, serial)?.map(Missing::Gone)),
        }
    }

    /// Tests one key again, which may have been brought back; why it cannot be used, if it cannot.
    pub(crate) fn test_again(&self, made: &Made<'_>, serial: &str) -> Result<Option<Missing>, HsmError> {
        let missing = self.look(made, serial)?;
        self.set_missing(made, missing.clone());
        Ok(missing)
    }

    /// Notes why a recorded key cannot be used, or that it can again. Audited when it is news.
    pub(crate) fn set_missing(&self, made: &Made<'_>, reason: Option<Missing>) {
        let id = made.key.id;
        let mut standing = self.standing();
        let Standing::Serving(serving) = &*standing else { return };
        let known = serving.missing.get(&id);
        if known == reason.as_ref() {
            return;
        }
        let is_news = known.is_none();
        let mut missing = serving.missing.clone();
        match &reason {
            Some(reason) => missing.insert(id, reason.clone()),
            None => missing.remove(&id),
        };
        *standing =
            Standing::Serving(Arc::new(Serving { serial: serving.serial.clone(), place: self.place.clone(), missing }));
        drop(standing);
        if let Some(reason) = reason
            && is_news
        {
            self.audit_missing(made, &reason);
        }
    }

    fn audit_missing(&self, made: &Made<'_>, missing: &Missing) {
        let (role, token) = (made.key.role, &made.key.token);
        match missing {
            Missing::Moved(_) => self.auditor.record(&moved(made.key, &self.place)),
            Missing::Gone(reason) => {
                tracing::warn!(%role, token, reason, "a recorded key cannot be used");
                self.auditor.record(&Event::KeyMissing {
                    role: role.to_string(),
                    token: token.clone(),
                    fingerprint: fingerprint(made.spki),
                });
            }
        }
    }

    /// Takes note of an error of a call while it served: an absence or wrong answer ends the service. `served` is the standing
    /// under which the call was made: an error that comes late does not end the service of another token.
    pub(crate) fn note(&self, error: &HsmError, served: &Arc<Serving>) {
        let current = self.serves_as(served);
        // Busy is load, not absence.
        let ends =
            !matches!(error, HsmError::Busy { .. }) && (error.is_absence() || error.is_error_state() || is_pin(error));
        if error.is_error_state() || (current && ends) {
            self.leave(error, self.pin_stamp());
        }
    }

    /// Takes note that a key did not sign on a token that says that it is there: it is tested again before it serves on, for some
    /// tokens answer everything else without being there.
    pub(crate) fn doubt(&self, error: &HsmError, served: &Arc<Serving>) {
        if matches!(error, HsmError::Device { .. }) && self.serves_as(served) {
            self.leave(error, self.pin_stamp());
        }
    }

    fn serves_as(&self, served: &Serving) -> bool {
        matches!(&*self.standing(), Standing::Serving(now) if now.serial == served.serial)
    }

    fn leave(&self, error: &HsmError, stamp: Option<Stamp>) {
        let reason = error.to_string();
        let next = match error {
            HsmError::WrongAnswer { token, operation } => {
                Standing::Wrong { token: token.clone(), operation: operation.clone() }
            }
            error if is_unlocked_by_hand(error) => Standing::PinLocked(reason.clone()),
            error if is_pin(error) => Standing::PinRefused(reason.clone(), stamp),
            _ => Standing::Waiting(reason.clone()),
        };
        let mut standing = self.standing();
        let is_news = match (&*standing, &next) {
            (Standing::Wrong { .. }, _) => return,
            (Standing::Waiting(before), Standing::Waiting(now))
            | (Standing::PinLocked(before), Standing::PinLocked(now)) => before != now,
            (Standing::PinRefused(..), Standing::PinRefused(..)) => false,
            _ => true,
        };
        *standing = next;
        drop(standing);
        self.changed.notify_all();
        if is_news {
            self.auditor.record(&news(error, reason));
        }
    }

    fn stand(&self, next: Standing) {
        let mut standing = self.standing();
        if !matches!(&*standing, Standing::Wrong { .. }) {
            *standing = next;
        }
        drop(standing);
        self.changed.notify_all();
    }

    fn pin_stamp(&self) -> Option<Stamp> {
        self.patience.pin_file.as_ref().and_then(|path| Stamp::of(path).ok().flatten())
    }

    /// Tries until the token serves.
    ///
    /// # Errors
    /// The wrong answer that ended its use.
    pub(crate) fn bring_back(&self, keys: &Keys) -> Result<(), HsmError> {
        let mut waits = self.patience.backoff.waits();
        loop {
            let standing = self.standing().clone();
            match standing {
                Standing::Serving(_) => return Ok(()),
                Standing::PinRefused(_, stamp) if self.pin_stamp() == stamp => {
                    std::thread::sleep(self.patience.pin_poll);
                    continue;
                }
                Standing::Waiting(_) | Standing::PinRefused(..) | Standing::PinLocked(_) | Standing::Wrong { .. } => {}
            }
            match self.attempt(keys) {
                Err(error) if error.is_error_state() => return Err(error),
                Err(error) if !is_pin(&error) || is_unlocked_by_hand(&error) => {
                    tracing::info!(token = self.place, %error, "waiting for the token");
                    std::thread::sleep(waits.next().unwrap_or_default());
                }
                Ok(()) | Err(_) => {}
            }
        }
    }

    /// Returns when the token does not serve any more. One that lacks recorded keys may be another that was put in the right one's
    /// place: it is looked at again and again, for requests of its missing keys do not reach it and would never find out that the
    /// right one is back.
    pub(crate) fn until_lost(&self) {
        let mut waits = self.patience.backoff.waits();
        loop {
            let wait = waits.next().unwrap_or_default();
            let serves = |standing: &mut Standing| matches!(standing, Standing::Serving(_));
            let waited = self.changed.wait_timeout_while(self.standing(), wait, serves);
            let standing = waited.unwrap_or_else(PoisonError::into_inner).0;
            let Standing::Serving(serving) = &*standing else { return };
            let serving = Arc::clone(serving);
            drop(standing);
            if !serving.missing.is_empty()
                && let Err(error) = self.store.token().and_then(|_| self.store.keys())
            {
                self.note(&error, &serving);
            }
        }
    }
}

/// That `role-tokens.toml` names `other` for a key that another token made.
pub(crate) fn moved(key: &Recorded, other: &str) -> Event {
    Event::RoleMoveRefused {
        role: key.role.to_string(),
        token: key.token.clone(),
        place: key.place.clone().unwrap_or_default(),
        other: other.to_owned(),
        fingerprint: key.spki.as_deref().map(fingerprint).unwrap_or_default(),
    }
}

fn wrong(token: &str, operation: &str) -> HsmError {
    HsmError::WrongAnswer { token: token.to_owned(), operation: operation.to_owned() }
}

/// Whether the token alone has to be seen to, or waited for: the PIN file may stay as it is.
const fn is_unlocked_by_hand(error: &HsmError) -> bool {
    matches!(error, HsmError::PinLocked { .. } | HsmError::PinLastTry { .. })
}

/// What a refused PIN is called, in all its forms: a person must act, and no PIN is tried before.
const fn is_pin(error: &HsmError) -> bool {
    matches!(
        error,
        HsmError::PinIncorrect { .. }
            | HsmError::PinLocked { .. }
            | HsmError::PinLastTry { .. }
            | HsmError::PinRefusedBefore { .. }
            | HsmError::PinUnresolved { .. }
    )
}

fn news(error: &HsmError, reason: String) -> Event {
    match error {
        HsmError::WrongAnswer { token, operation } => {
            Event::TokenWrongAnswer { token: token.clone(), operation: operation.clone() }
        }
        HsmError::PinIncorrect { token }
        | HsmError::PinLocked { token, .. }
        | HsmError::PinLastTry { token, .. }
        | HsmError::PinRefusedBefore { token }
        | HsmError::PinUnresolved { token, .. } => Event::TokenRefused { token: token.clone(), reason },
        HsmError::TokenAbsent { token, detail } => Event::TokenAbsent { token: token.clone(), detail: detail.clone() },
        HsmError::Timeout { token, .. }
        | HsmError::Busy { token, .. }
        | HsmError::TokenFull { token, .. }
        | HsmError::Unsupported { token, .. }
        | HsmError::Unmeasurable { token, .. }
        | HsmError::Unproven { token, .. }
        | HsmError::Device { token, .. }
        | HsmError::KeyMissing { token, .. }
        | HsmError::KeyAmbiguous { token, .. }
        | HsmError::KeyNotAsSpecified { token, .. } => Event::TokenAbsent { token: token.clone(), detail: reason },
        HsmError::SchemeMismatch { .. } => Event::TokenAbsent { token: "?".to_owned(), detail: reason },
    }
}

/// What callers are told of an error of the token.
pub(crate) fn refusal(error: &HsmError) -> Refusal {
    let text = error.to_string();
    match error {
        HsmError::TokenAbsent { .. } | HsmError::Timeout { .. } | HsmError::Busy { .. } => Refusal::Unavailable(text),
        HsmError::KeyMissing { .. } => Refusal::KeyMissing(text),
        HsmError::WrongAnswer { .. } => Refusal::OutOfService(text),
        error if is_pin(error) => Refusal::OutOfService(text),
        _ => Refusal::Failed(text),
    }
}
