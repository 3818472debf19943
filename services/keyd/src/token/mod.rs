//! The token as the broker has it: tested before it is used, waited for while it is away, and left alone for ever after one
//! wrong answer.

mod late;
mod test;

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use casemate_audit::{Auditor, Event};
use casemate_hsm_api::{HsmError, KeyRole, KeyStore, TokenInfo};
use casemate_hsm_pkcs11::Backoff;
use casemate_keyring::{BrokerState, Refusal};
use casemate_runtime::publish::Stamp;
pub use late::LateStore;
use test::Found;

use crate::keys::{Keys, View, fingerprint};

/// Where the token stands.
#[derive(Clone, Debug)]
enum Standing {
    /// It passed its test.
    Serving(Arc<Serving>),
    /// It is away, or failed in a way that may pass.
    Waiting(String),
    /// The PIN was refused: nothing is tried before the PIN file changed from this.
    PinRefused(String, Option<Stamp>),
    /// It gave a wrong answer to this. For ever.
    Wrong { token: String, operation: String },
}

/// A token that passed its test.
#[derive(Debug)]
pub(crate) struct Serving {
    /// Its serial number.
    pub(crate) serial: String,
    /// Recorded keys that are not on it.
    missing: BTreeSet<KeyRole>,
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

/// The token and its standing.
pub(crate) struct Token {
    store: Arc<dyn KeyStore>,
    auditor: Arc<Auditor>,
    patience: Patience,
    standing: Mutex<Standing>,
    /// The standing changed.
    changed: Condvar,
}

impl Token {
    /// An untested token: nothing is signed before [`Token::attempt`] succeeded.
    pub(crate) fn new(store: Arc<dyn KeyStore>, auditor: Arc<Auditor>, patience: Patience) -> Self {
        let standing = Mutex::new(Standing::Waiting("not tested yet".to_owned()));
        Self { store, auditor, patience, standing, changed: Condvar::new() }
    }

    pub(crate) fn store(&self) -> &dyn KeyStore {
        &*self.store
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The token, if it may be used now.
    pub(crate) fn serving(&self) -> Result<Arc<Serving>, Refusal> {
        match &*self.standing() {
            Standing::Serving(serving) => Ok(Arc::clone(serving)),
            Standing::Waiting(reason) => Err(Refusal::Unavailable(reason.clone())),
            Standing::PinRefused(reason, _) => Err(Refusal::OutOfService(reason.clone())),
            Standing::Wrong { token, operation } => Err(refusal(&wrong(token, operation))),
        }
    }

    /// As callers see it.
    pub(crate) fn state(&self) -> BrokerState {
        match &*self.standing() {
            Standing::Serving(_) => BrokerState::Serving,
            Standing::Waiting(reason) => BrokerState::Waiting(reason.clone()),
            Standing::PinRefused(reason, _) => BrokerState::OutOfService(reason.clone()),
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
                self.stand(Standing::Serving(Arc::new(Serving { serial: info.serial, missing })));
                Ok(())
            }
            Err(error) => {
                self.leave(&error, stamp);
                Err(error)
            }
        }
    }

    fn connect_and_test(&self, view: &View) -> Result<(TokenInfo, BTreeSet<KeyRole>), HsmError> {
        self.store.reconnect()?;
        let info = self.store.token()?;
        let mut missing = BTreeSet::new();
        for (key, spki) in view.made() {
            let found = if key.token == info.serial {
                test::test(&*self.store, key, spki, &info.serial)?
            } else {
                Found::Missing
            };
            if found == Found::Missing {
                missing.insert(key.role);
                self.audit_missing(key.role, &key.token, spki);
            }
        }
        Ok((info, missing))
    }

    /// Tests one key again, which may have been brought back, and says whether it is there.
    pub(crate) fn test_again(&self, view: &View, role: KeyRole, serial: &str) -> Result<bool, HsmError> {
        let Some((key, spki)) = view.made().find(|(key, _)| key.role == role) else { return Ok(false) };
        let found = key.token == serial && test::test(&*self.store, key, spki, serial)? == Found::Good;
        self.set_missing(role, !found, &key.token, spki);
        Ok(found)
    }

    /// Whether the key of `role` was found missing.
    pub(crate) fn lacks(serving: &Serving, role: KeyRole) -> bool {
        serving.missing.contains(&role)
    }

    /// Notes that a recorded key is not on the token, or is there again. Audited when it is news.
    pub(crate) fn set_missing(&self, role: KeyRole, is_missing: bool, token: &str, spki: &[u8]) {
        let mut standing = self.standing();
        let Standing::Serving(serving) = &*standing else { return };
        if serving.missing.contains(&role) == is_missing {
            return;
        }
        let mut missing = serving.missing.clone();
        if is_missing {
            missing.insert(role);
        } else {
            missing.remove(&role);
        }
        *standing = Standing::Serving(Arc::new(Serving { serial: serving.serial.clone(), missing }));
        drop(standing);
        if is_missing {
            self.audit_missing(role, token, spki);
        }
    }

    fn audit_missing(&self, role: KeyRole, token: &str, spki: &[u8]) {
        self.auditor.record(&Event::KeyMissing {
            role: role.to_string(),
            token: token.to_owned(),
            fingerprint: fingerprint(spki),
        });
    }

    /// Takes note of an error of a call while it served: an absence or wrong answer ends the service. `served` is the standing
    /// under which the call was made: an error that comes late does not end the service of another token.
    pub(crate) fn note(&self, error: &HsmError, served: &Arc<Serving>) {
        let current = matches!(&*self.standing(), Standing::Serving(now) if now.serial == served.serial);
        // Busy is load, not absence.
        let ends =
            !matches!(error, HsmError::Busy { .. }) && (error.is_absence() || error.is_error_state() || is_pin(error));
        if error.is_error_state() || (current && ends) {
            self.leave(error, self.pin_stamp());
        }
    }

    fn leave(&self, error: &HsmError, stamp: Option<Stamp>) {
        let reason = error.to_string();
        let next = match error {
            HsmError::WrongAnswer { token, operation } => {
                Standing::Wrong { token: token.clone(), operation: operation.clone() }
            }
            error if is_pin(error) => Standing::PinRefused(reason.clone(), stamp),
            _ => Standing::Waiting(reason.clone()),
        };
        let mut standing = self.standing();
        let is_news = match (&*standing, &next) {
            (Standing::Wrong { .. }, _) => return,
            (Standing::Waiting(before), Standing::Waiting(now)) => before != now,
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
                Standing::Waiting(_) | Standing::PinRefused(..) | Standing::Wrong { .. } => {}
            }
            match self.attempt(keys) {
                Err(error) if error.is_error_state() => return Err(error),
                Err(error) if !is_pin(&error) => {
                    tracing::info!(%error, "waiting for the token");
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

fn wrong(token: &str, operation: &str) -> HsmError {
    HsmError::WrongAnswer { token: token.to_owned(), operation: operation.to_owned() }
}

/// What a refused PIN is called, in all its forms: a person must act, and nothing is tried before.
const fn is_pin(error: &HsmError) -> bool {
    matches!(
        error,
        HsmError::PinIncorrect { .. }
            | HsmError::PinLocked { .. }
            | HsmError::PinLastTry { .. }
            | HsmError::PinRefusedBefore { .. }
    )
}

fn news(error: &HsmError, reason: String) -> Event {
    match error {
        HsmError::WrongAnswer { token, operation } => {
            Event::TokenWrongAnswer { token: token.clone(), operation: operation.clone() }
        }
        HsmError::PinIncorrect { token }
        | HsmError::PinLocked { token }
        | HsmError::PinLastTry { token }
        | HsmError::PinRefusedBefore { token } => Event::TokenRefused { token: token.clone(), reason },
        HsmError::TokenAbsent { token, detail } => {
            Event::TokenAbsent { token: token.clone(), detail: detail.clone() }
        }
        HsmError::Timeout { token, .. }
        | HsmError::Busy { token, .. }
        | HsmError::TokenFull { token, .. }
        | HsmError::Unsupported { token, .. }
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
