//! Control sockets: one request, one answer, any number on a connection; callers are known by `SO_PEERCRED`.

use std::{
    collections::HashMap,
    fs::{self, Permissions},
    io,
    num::{NonZeroU32, NonZeroU64, NonZeroUsize},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use casemate_audit::{Auditor, Event};
use casemate_post::Passed;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    net::{UnixListener, UnixStream},
    time::timeout,
};

use crate::{
    config::Config,
    frame::{FrameError, Framing},
    peer::{LocalServer, Peer},
    refusals::{Refusals, WINDOW},
};

/// The framing of every control socket.
pub const FRAMING: Framing = Framing { version: 1, limit: 1 << 20 };

/// The wait after a connection could not be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// Limits of one control socket; a table in the daemon's own section.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ControlSettings {
    /// Connections at a time.
    pub places: NonZeroUsize,
    /// Connections at a time of one user: a daemon that was taken over must not shut out the operator.
    pub places_per_user: NonZeroUsize,
    /// How long a connection may be without a whole request, in milliseconds.
    pub idle_ms: NonZeroU64,
    /// For the caller to take an answer, in milliseconds.
    pub write_ms: NonZeroU64,
    /// Refused callers and connections that are audited in ten seconds.
    pub audited_refusals: NonZeroU32,
}

impl Default for ControlSettings {
    fn default() -> Self {
        Self {
            places: NonZeroUsize::new(64).expect("64 is not zero"),
            places_per_user: NonZeroUsize::new(16).expect("16 is not zero"),
            idle_ms: NonZeroU64::new(60_000).expect("60000 is not zero"),
            write_ms: NonZeroU64::new(10_000).expect("10000 is not zero"),
            audited_refusals: NonZeroU32::new(100).expect("100 is not zero"),
        }
    }
}

/// A local socket could not be spoken to.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens there: the daemon is not running, or not yet.
    #[error("{path}: {source}; is the daemon running?")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The daemon broke off, or speaks another version.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The daemon closed without an answer: it does not know this caller, or was stopped.
    #[error("{path}: closed without an answer; this user may not ask, or the daemon stopped")]
    NoAnswer {
        /// The socket.
        path: PathBuf,
    },
}

/// Asks once over a connection of its own, waiting for the answer at most `limit`.
///
/// # Errors
/// As [`ControlError`] says.
pub fn call<Q: Serialize, A: DeserializeOwned>(
    server: &LocalServer,
    request: &Q,
    limit: Duration,
) -> Result<A, ControlError> {
    let connect = |source| ControlError::Connect { path: server.path().to_owned(), source };
    let mut socket = server.connect().map_err(connect)?;
    socket.set_read_timeout(Some(limit)).map_err(connect)?;
    socket.set_write_timeout(Some(limit)).map_err(connect)?;
    FRAMING.write(&mut socket, request)?;
    FRAMING.read(&mut socket)?.ok_or_else(|| ControlError::NoAnswer { path: server.path().to_owned() })
}

/// Binds a unix socket at `path` that any local user may reach: who may ask what is decided by `SO_PEERCRED`, per request.
/// A socket that an earlier, killed process left is replaced.
///
/// # Errors
/// The folder is not writable.
pub fn bind(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// Whom a control socket answers.
#[derive(Clone, Debug)]
pub struct Callers(Vec<u32>);

impl Callers {
    /// Root, and the daemons named by `daemons` under the uids of `[users]`. A daemon that `[users]` does not name may not ask.
    #[must_use]
    pub fn root_and(config: &Config, daemons: &[&str]) -> Self {
        let uids = daemons.iter().filter_map(|daemon| config.uid_of(daemon).ok());
        Self(uids.chain([0]).collect())
    }

    /// Whether `peer` is one of them.
    #[must_use]
    pub fn include(&self, peer: Peer) -> bool {
        self.0.contains(&peer.uid)
    }
}

/// Who is connected to one control socket: how many of each user.
struct Places {
    settings: ControlSettings,
    taken: Mutex<HashMap<u32, usize>>,
}

/// A place of a user, given back when dropped.
struct Place {
    places: Arc<Places>,
    uid: u32,
}

impl Places {
    fn new(settings: ControlSettings) -> Arc<Self> {
        Arc::new(Self { settings, taken: Mutex::default() })
    }

    /// A place for the user `uid`, or the setting that forbids it.
    fn take(self: &Arc<Self>, uid: u32) -> Result<Place, &'static str> {
        let mut taken = self.taken();
        if taken.get(&uid).is_some_and(|of_user| *of_user >= self.settings.places_per_user.get()) {
            return Err("places-per-user");
        }
        if taken.values().sum::<usize>() >= self.settings.places.get() {
            return Err("places");
        }
        *taken.entry(uid).or_default() += 1;
        Ok(Place { places: Arc::clone(self), uid })
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<u32, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        if let Some(of_user) = taken.get_mut(&self.uid) {
            *of_user -= 1;
            if *of_user == 0 {
                taken.remove(&self.uid);
            }
        }
    }
}

/// Serves control requests at `path` for ever, within the limits of `settings`. A caller not in `callers`, and one for whom
/// there is no place, is closed without an answer and audited. `answer` is given the request and who asks. There is no control
/// socket without passed self-tests.
///
/// # Errors
/// The socket cannot be bound.
pub async fn serve<Q, A, F, R>(
    _passed: &Passed,
    path: &Path,
    callers: Callers,
    settings: ControlSettings,
    auditor: Arc<Auditor>,
    answer: F,
) -> io::Result<()>
where
    Q: DeserializeOwned + Send + 'static,
    A: Serialize + Send + Sync + 'static,
    F: Fn(Q, Peer) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = A> + Send + 'static,
{
    let listener = bind(path)?;
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let places = Places::new(settings);
    let refusals = Refusals::new(path.display().to_string(), settings.audited_refusals, WINDOW, auditor);
    loop {
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                // Out of descriptors or memory: those that are connected go on, new ones wait.
                tracing::warn!(%error, path = %path.display(), "cannot accept");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let Ok(peer) = Peer::of(&socket) else { continue };
        if let Some(place) = admit(peer, &callers, &places, &refusals) {
            let answer = answer.clone();
            tokio::spawn(async move {
                converse(socket, peer, settings, answer).await;
                drop(place);
            });
        }
    }
}

/// A place for `peer`; nothing, and an audit event, where it may not ask or has too many.
fn admit(peer: Peer, callers: &Callers, places: &Arc<Places>, refusals: &Refusals) -> Option<Place> {
    // Before a place is taken: those who may not ask must not take the places of those who may.
    if !callers.include(peer) {
        let reason = refusals.service().to_owned();
        refusals.record(&Event::CallerRefused { uid: peer.uid, pid: peer.pid, reason });
        return None;
    }
    let limit = match places.take(peer.uid) {
        Ok(place) => return Some(place),
        Err(limit) => limit,
    };
    refusals.record(&Event::ConnectionRefused {
        service: refusals.service().to_owned(),
        peer: format!("uid {} pid {}", peer.uid, peer.pid),
        limit: limit.into(),
        suppressed: 0,
    });
    None
}

/// Answers the requests of one connection until it ends, is idle, or does not take its answers.
async fn converse<Q, A, F, R>(mut socket: UnixStream, peer: Peer, settings: ControlSettings, answer: F)
where
    Q: DeserializeOwned,
    A: Serialize,
    F: Fn(Q, Peer) -> R,
    R: Future<Output = A>,
{
    let (idle, write) = (settings.idle_ms.get(), settings.write_ms.get());
    let (idle, write) = (Duration::from_millis(idle), Duration::from_millis(write));
    while let Ok(Ok(Some(request))) = timeout(idle, FRAMING.read_async::<Q>(&mut socket)).await {
        let answer = answer(request, peer).await;
        if !matches!(timeout(write, FRAMING.write_async(&mut socket, &answer)).await, Ok(Ok(()))) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_cannot_take_the_places_of_another() {
        let number = |number| NonZeroUsize::new(number).unwrap();
        let settings = ControlSettings { places: number(3), places_per_user: number(2), ..ControlSettings::default() };
        let places = Places::new(settings);
        let mut taken_over = vec![places.take(200).unwrap(), places.take(200).unwrap()];
        assert_eq!(places.take(200).err(), Some("places-per-user"));
        let operator = places.take(100).unwrap();
        assert_eq!(places.take(0).err(), Some("places"));
        taken_over.pop();
        assert!(places.take(0).is_ok());
        drop((taken_over, operator));
        assert!(places.taken().is_empty());
    }
}
