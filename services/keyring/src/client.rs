use std::{
    io,
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use casemate_hsm_api::{KeyRole, SignatureScheme};
use casemate_post::Passed;
use casemate_runtime::{frame::FrameError, peer::LocalServer};
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
    server: LocalServer,
    settings: ClientSettings,
    pool: Mutex<Pool>,
    freed: Condvar,
}

impl Client {
    /// A client of the broker at `server`. Connects with the first request, and again after the broker was restarted.
    #[must_use]
    pub fn new(_passed: &Passed, server: LocalServer, settings: ClientSettings) -> Self {
        Self(Arc::new(Inner { server, settings, pool: Mutex::default(), freed: Condvar::new() }))
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
        self.key_record(Request::Key { role, fingerprint: None })
    }

    /// The key of `role` with this fingerprint: while a role is re-keyed it has two, and each certificate is of one of them.
    ///
    /// # Errors
    /// [`Refusal::KeyMissing`] when `role` has no such key, or has it no more.
    pub fn key_named(&self, role: KeyRole, fingerprint: &str) -> Result<KeyRecord, KeyringError> {
        self.key_record(Request::Key { role, fingerprint: Some(fingerprint.to_owned()) })
    }

    fn key_record(&self, request: Request) -> Result<KeyRecord, KeyringError> {
        match self.ask(&request, self.0.timeout())? {
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

    /// Makes the next key of `role`, or finishes an interrupted making; `true` when this call did.
    ///
    /// # Errors
    /// [`Refusal::KeyMissing`] when there is no key to be followed, or the next one was begun on another token.
    pub fn rekey(&self, role: KeyRole) -> Result<(KeyRecord, bool), KeyringError> {
        let limit = Duration::from_millis(self.0.settings.generate_timeout_ms);
        match self.ask(&Request::Rekey { role }, limit)? {
            Response::Generated { key, made } => Ok((key, made)),
            other => Err(self.0.unexpected(other)),
        }
    }

    /// Has the key of `role` with this fingerprint sign nothing any more, and its next key follow it.
    ///
    /// # Errors
    /// [`Refusal::KeyMissing`] when `role` has no such key, or no next one.
    pub fn retire(&self, role: KeyRole, fingerprint: &str) -> Result<KeyRecord, KeyringError> {
        let request = Request::Retire { role, fingerprint: fingerprint.to_owned() };
        match self.ask(&request, self.0.timeout())? {
            Response::Retired(record) => Ok(record),
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
        self.signature(SignRequest { role, key: None, scheme, purpose, message: message.to_vec() })
    }

    /// Has the key of `role` with this fingerprint sign `message`.
    ///
    /// # Errors
    /// As [`KeyringError`] says.
    pub fn sign_named(
        &self,
        role: KeyRole,
        fingerprint: &str,
        scheme: SignatureScheme,
        purpose: Purpose,
        message: &[u8],
    ) -> Result<Vec<u8>, KeyringError> {
        let key = Some(fingerprint.to_owned());
        self.signature(SignRequest { role, key, scheme, purpose, message: message.to_vec() })
    }

    fn signature(&self, request: SignRequest) -> Result<Vec<u8>, KeyringError> {
        let request = Request::Sign(request);
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
            _ => KeyringError::WrongAnswer { path: self.server.path().to_owned() },
        }
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, request: &Request, limit: Duration) -> Result<Response, KeyringError> {
        let deadline = Instant::now() + limit;
        let kept = self.take(deadline, limit)?;
        let outcome = self.ask_kept_or_new(kept, request, deadline);
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
    fn take(&self, deadline: Instant, limit: Duration) -> Result<Option<UnixStream>, KeyringError> {
        let mut pool = self.pool();
        while pool.in_use >= self.settings.connections {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(KeyringError::Busy { path: self.server.path().to_owned(), waited: limit });
            }
            pool = self.freed.wait_timeout(pool, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        pool.in_use += 1;
        Ok(pool.idle.pop())
    }

    /// Asks over the idle connection; where the broker closed it meanwhile (it was restarted), over a new one. Only a
    /// connection that ended is repeated, never one that is slow: a slow token must not be given twice the work. Every request
    /// may be repeated: a second signature harms nobody, and making a key that is recorded makes nothing.
    fn ask_kept_or_new(
        &self,
        kept: Option<UnixStream>,
        request: &Request,
        deadline: Instant,
    ) -> Result<(UnixStream, Response), KeyringError> {
        let broken = |source| KeyringError::Broken { path: self.server.path().to_owned(), source };
        if let Some(socket) = kept {
            match ask_over(socket, request, deadline) {
                Err(FrameError::Io(error)) if is_end(&error) => {}
                outcome => return outcome.map_err(broken),
            }
        }
        let socket = self
            .server
            .connect()
            .map_err(|source| KeyringError::Unreachable { path: self.server.path().to_owned(), source })?;
        ask_over(socket, request, deadline).map_err(broken)
    }
}

/// Whether the other end is gone, and not merely slow.
fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof)
}

fn ask_over(
    mut socket: UnixStream,
    request: &Request,
    deadline: Instant,
) -> Result<(UnixStream, Response), FrameError> {
    // Never zero, which would mean no limit.
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    socket.set_read_timeout(Some(left))?;
    socket.set_write_timeout(Some(left))?;
    FRAMING.write(&mut socket, request)?;
    let response = FRAMING.read(&mut socket)?.ok_or(io::Error::from(io::ErrorKind::UnexpectedEof))?;
    Ok((socket, response))
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixListener, thread};

    use super::*;

    fn client(path: &std::path::Path) -> Client {
        let own = LocalServer::new(path.to_owned(), std::os::unix::fs::MetadataExt::uid(&path.metadata().unwrap()));
        Client::new(&Passed::testing(), own, ClientSettings { timeout_ms: 300, ..ClientSettings::default() })
    }

    fn answer(socket: &mut UnixStream) {
        let _: Option<Request> = FRAMING.read(socket).unwrap();
        FRAMING.write(socket, &Response::Signature(vec![7])).unwrap();
    }

    fn sign(client: &Client) -> Result<Vec<u8>, KeyringError> {
        client.sign(KeyRole::Tvs, SignatureScheme::RsaPssSha256, Purpose::TlsHandshake, b"message")
    }

    #[test]
    fn a_restarted_broker_is_asked_over_a_new_connection() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keyd.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let broker = thread::spawn(move || {
            // Closed after each answer, as a restart closes it.
            (0..2).for_each(|_| answer(&mut listener.accept().unwrap().0));
        });
        let client = client(&path);
        assert_eq!(sign(&client).unwrap(), [7]);
        assert_eq!(sign(&client).unwrap(), [7]);
        broker.join().unwrap();
    }

    #[test]
    fn a_slow_broker_is_asked_once_and_within_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keyd.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let broker = thread::spawn(move || {
            let mut first = listener.accept().unwrap().0;
            answer(&mut first);
            let _: Option<Request> = FRAMING.read(&mut first).unwrap();
            thread::sleep(Duration::from_millis(700));
            listener.set_nonblocking(true).unwrap();
            listener.accept().is_err()
        });
        let client = client(&path);
        sign(&client).unwrap();
        let started = Instant::now();
        assert!(matches!(sign(&client), Err(KeyringError::Broken { .. })));
        assert!(started.elapsed() < Duration::from_millis(600), "one limit for the whole request");
        assert!(broker.join().unwrap(), "no second connection for a slow answer");
    }
}
