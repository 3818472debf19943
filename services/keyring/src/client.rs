use std::{
    io,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use casemate_hsm_api::{KeyRole, SignatureScheme};
use casemate_post::Passed;
use casemate_runtime::frame::FrameError;
use serde::Deserialize;
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::{FRAMING, KeyRecord, Purpose, Refusal, Request, Response, SignRequest, Status};

/// Limits of a client.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ClientSettings {
    /// Connections to the broker, and so requests in flight.
    pub connections: usize,
    /// For one signature, waiting for a free connection included, in milliseconds.
    pub timeout_ms: u64,
    /// For making one key, in milliseconds: an RSA key takes a TPM half a minute.
    pub generate_timeout_ms: u64,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self { connections: 16, timeout_ms: 10_000, generate_timeout_ms: 180_000 }
    }
}

/// The broker gave no signature.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The broker's socket cannot be reached: it starts, waits to be restarted, or is stopped.
    #[error("key broker at {path}: {source}")]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The broker broke off or did not answer in time.
    #[error("key broker at {path}: {source}")]
    Broken {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: FrameError,
    },
    /// Every connection is in use and none came free in time.
    #[error("key broker at {path}: every connection busy for {waited:?}")]
    Busy {
        /// The socket.
        path: PathBuf,
        /// How long.
        waited: Duration,
    },
    /// The broker refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The broker answered another question: two releases are mixed.
    #[error("key broker at {path}: answered another request; install the same release everywhere")]
    WrongAnswer {
        /// The socket.
        path: PathBuf,
    },
}

impl KeyringError {
    /// Whether the same request may succeed later without anybody acting.
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } | Self::Busy { .. } => true,
            Self::Refused(refusal) => refusal.is_temporary(),
            Self::WrongAnswer { .. } => false,
        }
    }
}

/// Connections that wait for a request, and how many are in use.
#[derive(Default)]
struct Pool {
    idle: Vec<UnixStream>,
    in_use: usize,
}

/// A client of the key broker. Calls block the thread, on a tokio runtime without holding up its other tasks.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    path: PathBuf,
    settings: ClientSettings,
    pool: Mutex<Pool>,
    freed: Condvar,
}

impl Client {
    /// A client of the broker at `path`. Connects with the first request, and again after the broker was restarted.
    #[must_use]
    pub fn new(_passed: &Passed, path: &Path, settings: ClientSettings) -> Self {
        Self(Arc::new(Inner { path: path.to_owned(), settings, pool: Mutex::default(), freed: Condvar::new() }))
    }

    /// The broker, its token and its keys.
    ///
    /// # Errors
    /// As [`KeyringError`] says.
    pub fn status(&self) -> Result<Status, KeyringError> {
        match self.ask(&Request::Status, self.0.timeout())? {
            Response::Status(status) => Ok(status),
            other => Err(self.0.unexpected(other)),
        }
    }

    /// The recorded key of `role`.
    ///
    /// # Errors
    /// [`Refusal::KeyMissing`] when none was made yet.
    pub fn key(&self, role: KeyRole) -> Result<KeyRecord, KeyringError> {
        match self.ask(&Request::Key { role }, self.0.timeout())? {
            Response::Key(record) => Ok(record),
            other => Err(self.0.unexpected(other)),
        }
    }

    /// Makes the key of `role`, or finishes an interrupted making; `true` when this call did.
    ///
    /// # Errors
    /// [`Refusal::KeyMissing`] when one is recorded and not on its token.
    pub fn generate(&self, role: KeyRole) -> Result<(KeyRecord, bool), KeyringError> {
        let limit = Duration::from_millis(self.0.settings.generate_timeout_ms);
        match self.ask(&Request::Generate { role }, limit)? {
            Response::Generated { key, made } => Ok((key, made)),
            other => Err(self.0.unexpected(other)),
        }
    }

    /// Has the key of `role` sign `message`.
    ///
    /// # Errors
    /// As [`KeyringError`] says.
    pub fn sign(
        &self,
        role: KeyRole,
        scheme: SignatureScheme,
        purpose: Purpose,
        message: &[u8],
    ) -> Result<Vec<u8>, KeyringError> {
        let request = Request::Sign(SignRequest { role, scheme, purpose, message: message.to_vec() });
        match self.ask(&request, self.0.timeout())? {
            Response::Signature(signature) => Ok(signature),
            other => Err(self.0.unexpected(other)),
        }
    }

    fn ask(&self, request: &Request, limit: Duration) -> Result<Response, KeyringError> {
        let inner = &*self.0;
        match Handle::try_current().map(|handle| handle.runtime_flavor()) {
            // Lets the runtime move this thread's other tasks elsewhere while the token works.
            Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(|| inner.ask(request, limit)),
            _ => inner.ask(request, limit),
        }
    }
}

impl Inner {
    const fn timeout(&self) -> Duration {
        Duration::from_millis(self.settings.timeout_ms)
    }

    fn unexpected(&self, response: Response) -> KeyringError {
        match response {
            Response::Refused(refusal) => KeyringError::Refused(refusal),
            _ => KeyringError::WrongAnswer { path: self.path.clone() },
        }
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, request: &Request, limit: Duration) -> Result<Response, KeyringError> {
        let kept = self.take(limit)?;
        let outcome = self.ask_kept_or_new(kept, request, limit);
        let mut pool = self.pool();
        pool.in_use -= 1;
        let response = outcome.map(|(socket, response)| {
            pool.idle.push(socket);
            response
        });
        drop(pool);
        self.freed.notify_one();
        response
    }

    /// Waits for a place among the connections and gives an idle connection if there is one.
    fn take(&self, limit: Duration) -> Result<Option<UnixStream>, KeyringError> {
        let started = Instant::now();
        let mut pool = self.pool();
        while pool.in_use >= self.settings.connections {
            let left = limit.saturating_sub(started.elapsed());
            if left.is_zero() {
                return Err(KeyringError::Busy { path: self.path.clone(), waited: limit });
            }
            pool = self.freed.wait_timeout(pool, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        pool.in_use += 1;
        Ok(pool.idle.pop())
    }

    /// Asks over the idle connection; where the broker closed it meanwhile (it was restarted), over a new one. Every request
    /// may be repeated: a second signature harms nobody, and making a key that is recorded makes nothing.
    fn ask_kept_or_new(
        &self,
        kept: Option<UnixStream>,
        request: &Request,
        limit: Duration,
    ) -> Result<(UnixStream, Response), KeyringError> {
        if let Some(socket) = kept
            && let Ok(answered) = self.ask_over(socket, request, limit)
        {
            return Ok(answered);
        }
        let socket = UnixStream::connect(&self.path)
            .map_err(|source| KeyringError::Unreachable { path: self.path.clone(), source })?;
        self.ask_over(socket, request, limit).map_err(|source| KeyringError::Broken { path: self.path.clone(), source })
    }

    fn ask_over(
        &self,
        mut socket: UnixStream,
        request: &Request,
        limit: Duration,
    ) -> Result<(UnixStream, Response), FrameError> {
        socket.set_read_timeout(Some(limit))?;
        socket.set_write_timeout(Some(limit))?;
        FRAMING.write(&mut socket, request)?;
        let response = FRAMING.read(&mut socket)?.ok_or(io::Error::from(io::ErrorKind::UnexpectedEof))?;
        Ok((socket, response))
    }
}
