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
use casemate_hsm_api::RunBy;
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
        let limit = Duration::from_millis(self.settings.timeout_ms);
        let conversation = Conversation {
            broker: Arc::clone(&self.broker),
            peer,
            from: Buffer::new(BUFFER, Timed::new(Arc::new(socket), limit)),
            limit,
            refusals: Arc::clone(&self.refusals),
            _place: place,
        };
        let started = thread::Builder::new().name("connection".to_owned()).spawn(move || conversation.run());
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

/// A connection. It is not bound to a thread: one that is in a call to a token that takes too long is left behind.
struct Conversation {
    broker: Arc<Broker>,
    peer: Peer,
    from: Buffer<Timed>,
    limit: Duration,
    refusals: Arc<Refusals>,
    _place: Place,
}

impl Conversation {
    /// Answers requests until the peer ends, or another thread goes on with it.
    fn run(self) {
        let mut next = Some(self);
        while let Some(conversation) = next {
            next = conversation.answer_one();
        }
    }

    /// Reads a request and has it answered. Nothing if that was the end of the connection, or of this thread's part in it.
    fn answer_one(mut self) -> Option<Self> {
        let request = match FRAMING.read::<Request>(&mut self.from) {
            Ok(request) => request?,
            Err(error) => return self.end(&error),
        };
        let (broker, peer) = (Arc::clone(&self.broker), self.peer);
        let back = Arc::new(Mutex::new(None));
        let here = Arc::clone(&back);
        let answered = move |response: Response, by: RunBy| {
            let answered = self.write(&response);
            match by {
                RunBy::Caller => *here.lock().unwrap_or_else(PoisonError::into_inner) = answered,
                RunBy::Another => answered.into_iter().for_each(Self::run),
            }
        };
        broker.handle(peer, request, Box::new(answered));
        back.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn write(mut self, response: &Response) -> Option<Self> {
        let socket = Arc::clone(self.from.source().socket());
        if let Err(error) = FRAMING.write(&mut Timed::begun(Arc::clone(&socket), self.limit), response) {
            return self.end(&error);
        }
        // The next request may have begun to come already.
        let has_begun = !self.from.is_empty();
        *self.from.source() = if has_begun { Timed::begun(socket, self.limit) } else { Timed::new(socket, self.limit) };
        Some(self)
    }

    fn end(&self, error: &FrameError) -> Option<Self> {
        match error {
            FrameError::Io(error) => tracing::debug!(uid = self.peer.uid, %error, "connection ended"),
            broken => self.refusals.protocol(&name(self.peer), &broken.to_string()),
        }
        None
    }
}
