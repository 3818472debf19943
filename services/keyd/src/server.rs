//! The socket: a thread a connection, within limits, requests answered in order.

use std::{
    collections::HashMap,
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use casemate_audit::Event;
use casemate_keyring::{FRAMING, Request, Response};
use casemate_post::Passed;
use casemate_runtime::{control, frame::FrameError, peer::Peer, refusals::Refusals};

use crate::{Broker, ConnectionSettings, KeydError, broker::stranger, buffer::Buffer, timed::Timed};

/// Most requests are read at once into this.
const BUFFER: usize = 4096;

/// The broker's socket.
pub struct Server {
    broker: Arc<Broker>,
    listener: UnixListener,
    settings: ConnectionSettings,
    places: Arc<Mutex<HashMap<u32, usize>>>,
    refusals: Arc<Refusals>,
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
        // Any user of the machine can connect: their flood is a few audit events.
        let refusals = Arc::clone(broker.refusals.of_strangers());
        Ok(Self { broker, listener, settings, places: Arc::default(), refusals })
    }

    /// Accepts for ever.
    pub fn run(self) {
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

    fn accept(&self, socket: UnixStream) {
        let Ok(peer) = Peer::of(&socket) else { return };
        if !self.broker.knows(peer) {
            self.refusals.record(&stranger(peer));
            return;
        }
        let place = match self.place(peer.uid) {
            Ok(place) => place,
            Err(limit) => return self.audit_refusal(peer, limit),
        };
        let (broker, timeout) = (Arc::clone(&self.broker), Duration::from_millis(self.settings.timeout_ms));
        let refusals = Arc::clone(&self.refusals);
        let started = thread::Builder::new().name("connection".to_owned()).spawn(move || {
            match converse(&broker, peer, &socket, timeout) {
                Ok(()) => {}
                Err(FrameError::Io(error)) => tracing::debug!(uid = peer.uid, %error, "connection ended"),
                Err(broken) => refusals.protocol(&name(peer), &broken.to_string()),
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

    fn audit_refusal(&self, peer: Peer, limit: &str) {
        self.refusals.record(&Event::ConnectionRefused {
            service: self.refusals.service().to_owned(),
            peer: name(peer),
            limit: limit.to_owned(),
            suppressed: 0,
        });
    }
}

/// A peer in the audit trail.
fn name(peer: Peer) -> String {
    format!("uid {} pid {}", peer.uid, peer.pid)
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = places.get_mut(&self.uid) {
            *own = own.saturating_sub(1);
        }
    }
}

fn converse(broker: &Broker, peer: Peer, socket: &UnixStream, limit: Duration) -> Result<(), FrameError> {
    let mut from = Buffer::new(BUFFER, Timed::new(socket, limit));
    while let Some(request) = FRAMING.read::<Request>(&mut from)? {
        let response: Response = broker.handle(peer, request);
        FRAMING.write(&mut Timed::begun(socket, limit), &response)?;
        // The next request may have begun to come already.
        let has_begun = !from.is_empty();
        *from.source() = if has_begun { Timed::begun(socket, limit) } else { Timed::new(socket, limit) };
    }
    Ok(())
}
