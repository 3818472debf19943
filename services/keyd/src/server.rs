//! The socket: a thread a connection, within limits, requests answered in order.

use std::{
    collections::HashMap,
    io::{self, BufReader, Read},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use casemate_audit::Event;
use casemate_keyring::{FRAMING, Request, Response};
use casemate_post::Passed;
use casemate_runtime::{control, peer::Peer};

use crate::{Broker, ConnectionSettings, KeydError};

/// A flood of refused connections is one audit event in this time.
const REFUSALS_AUDITED_EVERY: Duration = Duration::from_secs(1);

/// Most requests are read at once into this.
const BUFFER: usize = 4096;

/// The broker's socket.
pub struct Server {
    broker: Arc<Broker>,
    listener: UnixListener,
    settings: ConnectionSettings,
    places: Arc<Mutex<HashMap<u32, usize>>>,
    refusals: Refusals,
}

#[derive(Default)]
struct Refusals {
    last: Option<Instant>,
    suppressed: u64,
}

/// A connection's place among those of its user, given back when dropped.
struct Place {
    places: Arc<Mutex<HashMap<u32, usize>>>,
    uid: u32,
}

impl Server {
    /// Listens at `path` for the broker, whose token was tested.
    ///
    /// # Errors
    /// [`KeydError::Socket`].
    pub fn bind(
        _passed: &Passed,
        broker: Arc<Broker>,
        path: &Path,
        settings: ConnectionSettings,
    ) -> Result<Self, KeydError> {
        let listener = control::bind(path).map_err(|source| KeydError::Socket { path: path.to_owned(), source })?;
        Ok(Self { broker, listener, settings, places: Arc::default(), refusals: Refusals::default() })
    }

    /// Accepts for ever.
    pub fn run(mut self) {
        loop {
            match self.listener.accept() {
                Ok((socket, _)) => self.accept(socket),
                Err(error) => {
                    // Out of descriptors: those that are connected go on, new ones wait.
                    tracing::warn!(%error, "cannot accept");
                    thread::sleep(Duration::from_millis(50));
                }
            }
        }
    }

    fn accept(&mut self, socket: UnixStream) {
        let Ok(peer) = Peer::of(&socket) else { return };
        if !self.broker.knows(peer) {
            self.broker.audit_stranger(peer);
            return;
        }
        let place = match self.place(peer.uid) {
            Ok(place) => place,
            Err(limit) => return self.audit_refusal(peer, limit),
        };
        let (broker, timeout) = (Arc::clone(&self.broker), Duration::from_millis(self.settings.timeout_ms));
        let started = thread::Builder::new().name("connection".to_owned()).spawn(move || {
            if let Err(error) = converse(&broker, peer, &socket, timeout) {
                tracing::debug!(uid = peer.uid, %error, "connection ended");
            }
            drop(place);
        });
        if let Err(error) = started {
            tracing::warn!(%error, "no thread for a connection");
        }
    }

    fn place(&self, uid: u32) -> Result<Place, &'static str> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = places.values().sum();
        let own = places.entry(uid).or_default();
        if all >= self.settings.limit {
            return Err("connections.limit");
        }
        if *own >= self.settings.limit_per_user {
            return Err("connections.limit-per-user");
        }
        *own += 1;
        Ok(Place { places: Arc::clone(&self.places), uid })
    }

    fn audit_refusal(&mut self, peer: Peer, limit: &str) {
        if self.refusals.last.is_some_and(|last| last.elapsed() < REFUSALS_AUDITED_EVERY) {
            self.refusals.suppressed += 1;
            return;
        }
        self.broker.auditor.record(&Event::ConnectionRefused {
            service: "keyd".to_owned(),
            peer: format!("uid {} pid {}", peer.uid, peer.pid),
            limit: limit.to_owned(),
            suppressed: self.refusals.suppressed,
        });
        self.refusals = Refusals { last: Some(Instant::now()), suppressed: 0 };
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = places.get_mut(&self.uid) {
            *own = own.saturating_sub(1);
        }
    }
}

/// A socket that ends a frame which is not whole in time, however slowly its bytes come.
struct Timed<'a> {
    socket: &'a UnixStream,
    limit: Duration,
    since: Instant,
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.socket.read(buffer)?;
        if self.since.elapsed() > self.limit * 2 { Err(io::ErrorKind::TimedOut.into()) } else { Ok(n) }
    }
}

fn converse(
    broker: &Broker,
    peer: Peer,
    socket: &UnixStream,
    timeout: Duration,
) -> Result<(), casemate_runtime::frame::FrameError> {
    socket.set_read_timeout(Some(timeout))?;
    socket.set_write_timeout(Some(timeout))?;
    let mut from = BufReader::with_capacity(BUFFER, Timed { socket, limit: timeout, since: Instant::now() });
    while let Some(request) = FRAMING.read::<Request>(&mut from)? {
        let response: Response = broker.handle(peer, request);
        let mut to = socket;
        FRAMING.write(&mut to, &response)?;
        from.get_mut().since = Instant::now();
    }
    Ok(())
}
