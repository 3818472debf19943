use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use casemate_hsm_api::{
    Continuation, HsmError, KeyAlgorithm, KeyId, KeySpec, KeyState, KeyStore, LoginState, Pin, PublicKey, RunBy,
    SignatureRate, SignatureScheme, StoredKey, TimedCalls, TokenInfo,
};
use casemate_hsm_pin::{NextPin, Refusals, read_pin};
use cryptoki::{
    context::Pkcs11,
    session::{Session, SessionState},
};

use crate::{
    Pkcs11Error, Pkcs11Files, Pkcs11Settings,
    call::Needs,
    error::{classify, is_no_room},
    keys,
    login::{Door, Pins},
    module,
    pool::{Pool, Target},
    rate, token,
    worker::Worker,
};

/// A PKCS#11 token, opened by one process. There is one store a token and process, and the stores of one module share it; see the
/// crate's description.
pub struct Pkcs11Store {
    settings: Pkcs11Settings,
    files: Pkcs11Files,
    pool: Pool,
    /// The session that holds the login: a token logs out when a process closes its last session. A call to it may hang with
    /// the inner lock, so only threads of the pool take that one. There is none where the token opens one session alone, which is
    /// used for everything then; whenever it is closed after a failure there is a login.
    anchor: Mutex<Option<Anchor>>,
    /// A login or a change of the PIN has not come back yet. Until it does, no other is tried.
    at_pin: Arc<AtomicBool>,
    /// The token took no login, for the PIN was locked or about to be, or was not set yet. Some modules learn only when they are
    /// started that this is over: kryoptic of the first, SoftHSM of the second, which it sees if it is started while somebody makes
    /// the token.
    closed: AtomicBool,
    /// A signature failed by an error of the token's own. Some modules, tpm2-pkcs11 among them, answer everything else without
    /// their token, and are of use again only when they are started anew: what they say of themselves is not believed then.
    doubted: Arc<AtomicBool>,
    connecting: Mutex<()>,
    /// Generation and removal one at a time: neither may see the other's half.
    changing: Mutex<()>,
    /// The error state, and what led to it.
    wrong: Arc<OnceLock<String>>,
}

type Anchor = Arc<Mutex<Session>>;

/// What a connection is: where the sessions go, and the session that logged in.
struct Connection {
    target: Target,
    anchor: Option<Session>,
    /// How many sessions there is room for beside that, if it is fewer than the threads would have.
    room: Option<usize>,
    /// The session that logged in, where there is room for no other.
    only: Option<Session>,
}

impl Pkcs11Store {
    /// Finds the token and logs in, as [`Pkcs11Store::prepare`] and [`Pkcs11Store::connect`] one after the other: for a
    /// process that has no use for a token that comes late.
    ///
    /// # Errors
    /// As those two.
    pub fn open(settings: Pkcs11Settings, files: Pkcs11Files) -> Result<Self, Pkcs11Error> {
        let store = Self::prepare(settings, files)?;
        store.connect()?;
        Ok(store)
    }

    /// Loads the module and looks at the PIN file, and leaves the token alone: that is for [`Pkcs11Store::connect`], as often
    /// as it takes. Until then the token is absent.
    ///
    /// # Errors
    /// What waiting does not help: the module does not start or is in use, the PIN file cannot be used.
    pub fn prepare(settings: Pkcs11Settings, files: Pkcs11Files) -> Result<Self, Pkcs11Error> {
        read_pin(&files.pin)?;
        let lease = module::lease(&settings.module, &settings.token)?;
        let pool = Pool::start(lease, &settings).map_err(Pkcs11Error::Threads)?;
        Ok(Self {
            settings,
            files,
            pool,
            anchor: Mutex::default(),
            at_pin: Arc::default(),
            closed: AtomicBool::default(),
            doubted: Arc::default(),
            connecting: Mutex::default(),
            changing: Mutex::default(),
            wrong: Arc::default(),
        })
    }

    /// Finds the token, for the first time or after it was away, opens sessions and logs in with the PIN of the PIN file,
    /// unless the login still holds. The module is initialised again only if the token is not found otherwise, or took no login
    /// the last time for a reason that may be over; if no call is in it, and this is its only store.
    ///
    /// # Errors
    /// What the token said ([`Pkcs11Error::Hsm`]; a refused PIN is final), the PIN file's errors, and those of the record of
    /// refused PINs.
    pub fn connect(&self) -> Result<(), Pkcs11Error> {
        let _one = lock(&self.connecting);
        self.usable()?;
        let look = || self.pool.call(self.settings.call_timeout(), self.needed_to_look(), self.holds());
        if !self.doubted.load(Ordering::Acquire) && look().is_ok() {
            return Ok(());
        }
        let limit = self.settings.call_timeout();
        if self.at_pin.load(Ordering::Acquire) {
            return Err(HsmError::Timeout { token: self.pool.token(), limit }.into());
        }
        self.close_anchor()?;
        let idle = self.pool.retire();
        let pins = Pins { file: read_pin(&self.files.pin)?, next: NextPin::of(&self.files.pin).read()? };
        let (settings, files) = (self.settings.clone(), self.files.clone());
        let at_pin = Arc::clone(&self.at_pin);
        let anew = self.closed.swap(false, Ordering::AcqRel) | self.doubted.swap(false, Ordering::AcqRel);
        // The result is nested: the pool's own error is the token's silence, the inner one is everything else.
        let connected = self.pool.call(limit, Needs::Module, move |worker| {
            at_pin.store(true, Ordering::Release);
            let connected = connect(worker, &settings, &files, &pins, Restart { idle, anew });
            at_pin.store(false, Ordering::Release);
            Ok(connected)
        })?;
        let closed = |error: &HsmError| {
            matches!(error, HsmError::PinLocked { .. } | HsmError::PinLastTry { .. } | HsmError::Device { .. })
        };
        if connected.as_ref().is_err_and(|error| error.hsm().is_some_and(closed)) {
            self.closed.store(true, Ordering::Release);
        }
        let connected = connected?;
        *lock(&self.anchor) = connected.anchor.map(|anchor| Arc::new(Mutex::new(anchor)));
        self.pool.aim(connected.target, connected.room, connected.only);
        Ok(())
    }

    /// Gives the token another PIN, in the session that holds the login.
    fn change(&self, new: &Pin) -> Result<(), Pkcs11Error> {
        let _one = lock(&self.connecting);
        self.usable()?;
        let (token, limit) = (self.pool.token(), self.settings.call_timeout());
        if self.at_pin.load(Ordering::Acquire) {
            return Err(HsmError::Timeout { token, limit }.into());
        }
        NextPin::of(&self.files.pin).ready()?;
        let old = read_pin(&self.files.pin)?;
        let anchor = lock(&self.anchor).clone();
        let (new, files, at_pin) = (new.clone(), self.files.clone(), Arc::clone(&self.at_pin));
        let unresolved_logins = self.settings.unresolved_logins;
        // All of it on the thread of the pool: a token that answers late has its answer written down all the same.
        self.pool.call(limit, self.needed_to_look(), move |worker| {
            let (target, context) = (worker.target()?, worker.context().clone());
            let refusals = Refusals::of_token(&files.state, &target.serial);
            let change = |session: &Session| {
                let door = Door {
                    session,
                    again: || token::present(&context, &target),
                    refusals: &refusals,
                    unresolved_logins,
                };
                at_pin.store(true, Ordering::Release);
                let changed = door.change(&old, &new, &NextPin::of(&files.pin));
                at_pin.store(false, Ordering::Release);
                changed
            };
            match anchor {
                Some(anchor) => Ok(change(&lock(&anchor))),
                None => worker.with_session(|open| Ok(change(&open.session))),
            }
        })?
    }

    /// Closes the session that holds the login, on a thread of the pool: closing may hang like any other call.
    fn close_anchor(&self) -> Result<(), HsmError> {
        let anchor = lock(&self.anchor).take();
        self.pool.call(self.settings.call_timeout(), Needs::Module, move |_| {
            drop(anchor);
            Ok(())
        })
    }

    /// How fast the token signs in one session with nothing around it, measured for `duration`. So many threads that call this at
    /// once as there are sessions sign at once.
    ///
    /// # Errors
    /// As [`KeyStore::sign`].
    pub fn raw_rate(&self, id: KeyId, scheme: SignatureScheme, duration: Duration) -> Result<TimedCalls, HsmError> {
        let limit = duration.saturating_add(self.settings.call_timeout());
        self.ask(limit, move |worker| rate::measure(worker, id, scheme, duration))
    }

    /// What a look at the login needs.
    fn needed_to_look(&self) -> Needs {
        if lock(&self.anchor).is_some() { Needs::Module } else { Needs::Session }
    }

    /// A check that the token is there and the login holds.
    fn holds(&self) -> impl FnOnce(&mut Worker) -> Result<(), HsmError> + Send + 'static {
        let anchor = lock(&self.anchor).clone();
        move |worker| {
            let target = worker.target()?;
            token::present(worker.context(), &target)?;
            let state = match anchor {
                Some(anchor) => lock(&anchor).get_session_info(),
                None => worker.with_session(|open| Ok(open.session.get_session_info()))?,
            };
            match state.map(|info| info.session_state()) {
                Ok(SessionState::RwUser | SessionState::RoUser) => Ok(()),
                other => Err(HsmError::TokenAbsent {
                    token: target.serial.as_ref().to_owned(),
                    detail: format!("the login does not hold: {other:?}"),
                }),
            }
        }
    }

    /// Runs `work` on the token unless it has given a wrong answer before; its first one ends its use.
    fn ask<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce(&mut Worker) -> Result<T, HsmError> + Send + 'static,
    ) -> Result<T, HsmError> {
        self.ask_with(Needs::Session, limit, work)
    }

    fn ask_with<T: Send + 'static>(
        &self,
        needs: Needs,
        limit: Duration,
        work: impl FnOnce(&mut Worker) -> Result<T, HsmError> + Send + 'static,
    ) -> Result<T, HsmError> {
        self.usable()?;
        let answer = self.pool.call(limit, needs, work);
        answer.inspect_err(|error| remember(&self.wrong, error))
    }

    fn usable(&self) -> Result<(), HsmError> {
        match self.wrong.get() {
            Some(operation) => Err(HsmError::WrongAnswer { token: self.pool.token(), operation: operation.clone() }),
            None => Ok(()),
        }
    }
}

/// Signs, and has the module doubted if the token fails by an error of its own.
fn sign(
    worker: &mut Worker,
    id: KeyId,
    scheme: SignatureScheme,
    message: &[u8],
    doubted: &AtomicBool,
) -> Result<Vec<u8>, HsmError> {
    let signed = keys::sign(worker, id, scheme, message);
    if matches!(signed, Err(HsmError::Device { .. })) {
        doubted.store(true, Ordering::Release);
    }
    signed
}

/// The first wrong answer ends the token's use.
fn remember(wrong: &OnceLock<String>, error: &HsmError) {
    if let HsmError::WrongAnswer { operation, .. } = error {
        wrong.get_or_init(|| operation.clone());
    }
}

/// When the module may be started anew, and when it has to be.
struct Restart {
    /// This store is not in it; another one may be.
    idle: bool,
    /// What it said last of the PIN may have changed since without its notice.
    anew: bool,
}

/// Finds the token and logs in.
fn connect(
    worker: &Worker,
    settings: &Pkcs11Settings,
    files: &Pkcs11Files,
    pins: &Pins,
    Restart { idle, anew }: Restart,
) -> Result<Connection, Pkcs11Error> {
    let context = worker.context();
    let may_restart = idle && settings.reinitialize;
    let restart = || {
        let failed = |error| classify(&settings.token.to_string(), &error);
        worker.restart_module().map_err(failed)
    };
    if anew && may_restart {
        restart()?;
    }
    let (target, _) = match token::find(context, &settings.token) {
        Err(HsmError::TokenAbsent { .. }) if may_restart => {
            restart()?;
            token::find(context, &settings.token)?
        }
        found => found?,
    };
    let failed = |error| classify(&target.serial, &error);
    let anchor = context.open_rw_session(target.slot).map_err(failed)?;
    let refusals = Refusals::of_token(&files.state, &target.serial);
    let again = || token::present(context, &target);
    let unresolved_logins = settings.unresolved_logins;
    let door = Door { session: &anchor, again, refusals: &refusals, unresolved_logins };
    door.enter(pins, &NextPin::of(&files.pin))?;
    let room = room(context, &target, settings.sessions.max(1))?;
    let (anchor, only) = if room == Some(0) { (None, Some(anchor)) } else { (Some(anchor), None) };
    Ok(Connection { target, anchor, room: room.map(|sessions| sessions.max(1)), only })
}

/// How many sessions the token has room for, if it is fewer than `wanted`. They are opened for that and closed again.
fn room(context: &Pkcs11, target: &Target, wanted: usize) -> Result<Option<usize>, HsmError> {
    let mut opened = Vec::new();
    while opened.len() < wanted {
        match context.open_rw_session(target.slot).map_err(|error| classify(&target.serial, &error)) {
            Ok(session) => opened.push(session),
            Err(error) if is_no_room(&error) => return Ok(Some(opened.len())),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

impl KeyStore for Pkcs11Store {
    fn token(&self) -> Result<TokenInfo, HsmError> {
        let holds = self.holds();
        let mut info = self.ask_with(self.needed_to_look(), self.settings.call_timeout(), move |worker| {
            let target = worker.target()?;
            let mut info = token::describe(worker.context(), &target)?;
            info.login = if holds(worker).is_ok() { LoginState::User } else { LoginState::Public };
            Ok(info)
        })?;
        info.sessions = self.pool.open_sessions() + usize::from(lock(&self.anchor).is_some());
        info.refused_sessions = self.pool.refused_sessions();
        Ok(info)
    }

    fn generate(&self, id: KeyId, label: &str, spec: KeySpec) -> Result<PublicKey, HsmError> {
        let _one = lock(&self.changing);
        let label = label.to_owned();
        let usage = self.settings.usage();
        self.ask(self.settings.generate_timeout(), move |worker| keys::generate(worker, id, &label, spec, usage))
    }

    fn inspect(&self, id: KeyId, spec: Option<KeySpec>) -> Result<KeyState, HsmError> {
        let usage = self.settings.usage();
        self.ask(self.settings.call_timeout(), move |worker| keys::inspect(worker, id, spec, usage))
    }

    fn remove_half(&self, id: KeyId) -> Result<(), HsmError> {
        let _one = lock(&self.changing);
        self.ask(self.settings.call_timeout(), move |worker| keys::remove_half(worker, id))
    }

    fn keys(&self) -> Result<Vec<StoredKey>, HsmError> {
        self.ask(self.settings.call_timeout(), keys::list)
    }

    fn sign(&self, id: KeyId, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, HsmError> {
        let (message, doubted) = (message.to_vec(), Arc::clone(&self.doubted));
        self.ask(self.settings.call_timeout(), move |worker| sign(worker, id, scheme, &message, &doubted))
    }

    fn sign_then(&self, id: KeyId, scheme: SignatureScheme, message: &[u8], then: Continuation) {
        if let Err(error) = self.usable() {
            return then(Err(error), RunBy::Caller);
        }
        let (message, doubted, wrong) = (message.to_vec(), Arc::clone(&self.doubted), Arc::clone(&self.wrong));
        let work = move |worker: &mut Worker| {
            sign(worker, id, scheme, &message, &doubted).inspect_err(|error| remember(&wrong, error))
        };
        self.pool.call_here(self.settings.call_timeout(), work, then);
    }

    fn measure(&self, algorithm: KeyAlgorithm, duration: Duration) -> Result<SignatureRate, HsmError> {
        let limit = self.settings.generate_timeout().saturating_add(duration);
        let usage = self.settings.usage();
        self.ask(limit, move |worker| rate::of_temporary_key(worker, algorithm, usage, duration))
    }

    fn change_pin(&self, new: &Pin) -> Result<(), HsmError> {
        self.change(new).map_err(|error| error.into_hsm_of("the change of its PIN", &self.pool.token()))
    }

    fn reconnect(&self) -> Result<(), HsmError> {
        self.connect().map_err(|error| error.into_hsm(&self.pool.token()))
    }
}

impl Drop for Pkcs11Store {
    fn drop(&mut self) {
        // Before the pool, whose threads are needed for it.
        let _ = self.close_anchor();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
