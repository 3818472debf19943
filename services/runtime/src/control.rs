//! Control sockets: one request, one answer, any number on a connection; callers are known by `SO_PEERCRED`.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use casemate_audit::{Auditor, Event};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixListener, sync::Semaphore, time::timeout};

use crate::{
    config::Config,
    frame::{FrameError, Framing},
    peer::Peer,
};

/// The framing of every control socket.
pub const FRAMING: Framing = Framing { version: 1, limit: 1 << 20 };

/// Connections that one control socket serves at a time.
const CONNECTIONS: usize = 64;

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
pub fn call<Q: Serialize, A: DeserializeOwned>(path: &Path, request: &Q, limit: Duration) -> Result<A, ControlError> {
    let connect = |source| ControlError::Connect { path: path.to_owned(), source };
    let mut socket = UnixStream::connect(path).map_err(connect)?;
    socket.set_read_timeout(Some(limit)).map_err(connect)?;
    socket.set_write_timeout(Some(limit)).map_err(connect)?;
    FRAMING.write(&mut socket, request)?;
    FRAMING.read(&mut socket)?.ok_or_else(|| ControlError::NoAnswer { path: path.to_owned() })
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

/// Serves control requests at `path` for ever. A caller not in `callers` is closed without an answer and audited. `answer` is
/// given the request and who asks.
///
/// # Errors
/// The socket cannot be bound.
pub async fn serve<Q, A, F, R>(path: &Path, callers: Callers, auditor: Arc<Auditor>, answer: F) -> io::Result<()>
where
    Q: DeserializeOwned + Send + 'static,
    A: Serialize + Send + Sync + 'static,
    F: Fn(Q, Peer) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = A> + Send + 'static,
{
    let listener = bind(path)?;
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let (mut socket, _) = listener.accept().await?;
        let Ok(peer) = Peer::of(&socket) else { continue };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        if !callers.include(peer) {
            auditor.record(&Event::CallerRefused { uid: peer.uid, pid: peer.pid, reason: path.display().to_string() });
            continue;
        }
        let answer = answer.clone();
        tokio::spawn(async move {
            let _place = place;
            while let Ok(Ok(Some(request))) =
                timeout(Duration::from_secs(60), FRAMING.read_async::<Q>(&mut socket)).await
            {
                if FRAMING.write_async(&mut socket, &answer(request, peer).await).await.is_err() {
                    break;
                }
            }
        });
    }
}
