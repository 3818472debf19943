//! TCP and TLS listeners within limits: how many connections, how many from one address, how many handshakes use the token at
//! once, how long a peer may be silent. All are settings.

use std::{
    collections::HashMap,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use casemate_audit::{Auditor, Event};
use casemate_post::Passed;
use rustls::{HandshakeKind, ServerConfig, server::Acceptor};
use serde::Deserialize;
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    runtime::Handle,
    sync::Semaphore,
    task::spawn_blocking,
    time::timeout,
};
use tokio_rustls::{Accept, LazyConfigAcceptor, StartHandshake, server::TlsStream};

use crate::refusals::{Refusals, WINDOW};

/// Limits of one listener.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// Connections at a time from one address.
    pub connections_per_address: usize,
    /// Handshakes that use the token at a time; the others wait.
    pub handshakes: usize,
    /// From the TCP connection to the end of the TLS handshake, in milliseconds.
    pub handshake_ms: u64,
    /// TLS sessions that are remembered for resumption.
    pub sessions: usize,
    /// Refusals and failed handshakes that are audited in ten seconds; the others are counted.
    pub audited_refusals: NonZeroU32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 2048,
            connections_per_address: 256,
            handshakes: 16,
            handshake_ms: 10_000,
            sessions: 4096,
            audited_refusals: AUDITED_REFUSALS,
        }
    }
}

/// A flood must not fill the audit trail.
const AUDITED_REFUSALS: NonZeroU32 = NonZeroU32::new(50).expect("50 is not zero");

/// Who is connected to one service, within its limits.
pub struct Gate {
    service: &'static str,
    limits: Limits,
    connected: Mutex<Connected>,
    refusals: Arc<Refusals>,
}

/// Who is connected: addresses without a connection are not in the map, so that refused ones cost no memory.
#[derive(Default)]
struct Connected {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

impl Connected {
    /// Counts one more from `address`, or names the limit that forbids it.
    fn add(&mut self, address: IpAddr, limits: &Limits) -> Result<(), &'static str> {
        if self.all >= limits.connections {
            return Err("connections");
        }
        if self.by_address.get(&address).is_some_and(|here| *here >= limits.connections_per_address) {
            return Err("connections-per-address");
        }
        self.all += 1;
        *self.by_address.entry(address).or_default() += 1;
        Ok(())
    }

    fn remove(&mut self, address: IpAddr) {
        if let Some(here) = self.by_address.get_mut(&address) {
            self.all -= 1;
            *here -= 1;
            if *here == 0 {
                self.by_address.remove(&address);
            }
        }
    }
}

/// A place at the [`Gate`], given back when dropped.
pub struct Place {
    gate: Arc<Gate>,
    address: IpAddr,
}

impl Gate {
    /// The gate of `service`, empty.
    #[must_use]
    pub fn new(service: &'static str, limits: Limits, auditor: Arc<Auditor>) -> Arc<Self> {
        Arc::new(Self {
            service,
            limits,
            connected: Mutex::default(),
            refusals: Refusals::new(service, limits.audited_refusals, WINDOW, auditor),
        })
    }

    /// A place for a connection from `peer`, or nothing (and an audit event) where a limit is reached.
    #[must_use]
    pub fn admit(self: &Arc<Self>, peer: SocketAddr) -> Option<Place> {
        let address = peer.ip().to_canonical();
        let added = self.connected.lock().unwrap_or_else(PoisonError::into_inner).add(address, &self.limits);
        match added {
            Ok(()) => Some(Place { gate: Arc::clone(self), address }),
            Err(limit) => {
                self.audit_refusal(peer, limit);
                None
            }
        }
    }

    fn audit_refusal(&self, peer: SocketAddr, limit: &str) {
        self.refusals.record(&Event::ConnectionRefused {
            service: self.service.into(),
            peer: peer.to_string(),
            limit: limit.into(),
            suppressed: 0,
        });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gate.connected.lock().unwrap_or_else(PoisonError::into_inner).remove(self.address);
    }
}

/// Binds a TCP listener. There is none without passed self-tests.
///
/// # Errors
/// With the address, for the operator must know which.
pub async fn bind(_passed: &Passed, address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| cannot_listen(address, &error))
}

/// Binds a UDP socket to serve on. There is none without passed self-tests.
///
/// # Errors
/// With the address, for the operator must know which.
pub async fn bind_udp(_passed: &Passed, address: SocketAddr) -> io::Result<UdpSocket> {
    UdpSocket::bind(address).await.map_err(|error| cannot_listen(address, &error))
}

fn cannot_listen(address: SocketAddr, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
}

/// Accepts connections for ever and gives each that the gate admits to `connection`, on a task of its own.
pub async fn serve<C, R>(listener: TcpListener, gate: Arc<Gate>, connection: C)
where
    C: Fn(TcpStream, SocketAddr) -> R + Clone + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors or memory: those that are connected go on, new ones wait.
                tracing::warn!(%error, service = gate.service, "cannot accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Some(place) = gate.admit(peer) else { continue };
        // One message, one packet: phones stall on split ones.
        let _ = stream.set_nodelay(true);
        let connection = connection.clone();
        tokio::spawn(async move {
            connection(stream, peer).await;
            drop(place);
        });
    }
}

/// Serves TLS: as [`serve`], with the handshake done before `connection` sees the stream.
pub async fn serve_tls<C, R>(listener: TcpListener, gate: Arc<Gate>, tls: Arc<ServerConfig>, connection: C)
where
    C: Fn(TlsStream<TcpStream>, SocketAddr) -> R + Clone + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let handshakes = Handshakes::new(gate.limits.handshakes, tls);
    let inner = Arc::clone(&gate);
    serve(listener, gate, move |stream, peer| {
        let (gate, handshakes, connection) = (Arc::clone(&inner), handshakes.clone(), connection.clone());
        async move {
            let limit = Duration::from_millis(gate.limits.handshake_ms);
            match timeout(limit, handshakes.finish(stream, limit)).await {
                Ok(Ok(stream)) => connection(stream, peer).await,
                Ok(Err(error)) => gate.refusals.record(&Event::TlsRefused {
                    service: gate.service.into(),
                    peer: peer.to_string(),
                    reason: reason(&error),
                }),
                Err(_) => gate.refusals.silence(&peer.to_string(), "TLS handshake"),
            }
        }
    })
    .await;
}

/// Handshakes on the blocking pool, a bounded number at a time: the server signs while it reads a ClientHello, the signature
/// waits for the token, and that must never hold up a thread that serves other phones.
#[derive(Clone)]
struct Handshakes {
    tls: Arc<ServerConfig>,
    first: Arc<Semaphore>,
    /// Apart from `first`, for a peer that was sent a HelloRetryRequest (RFC 8446, 4.1.4) is waited for while it has a place:
    /// a slow one must not take the places of those that need no waiting.
    retried: Arc<Semaphore>,
}

impl Handshakes {
    fn new(at_a_time: usize, tls: Arc<ServerConfig>) -> Self {
        // With no place at all nobody would ever be served.
        let places = || Arc::new(Semaphore::new(at_a_time.max(1)));
        Self { tls, first: places(), retried: places() }
    }

    async fn finish(&self, stream: TcpStream, limit: Duration) -> io::Result<TlsStream<TcpStream>> {
        let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let (accept, retried) = self.read_hello(hello).await?;
        if !retried {
            return accept.await;
        }
        // The signature comes with the second ClientHello, which is read inside `accept`.
        if let Some(socket) = accept.get_ref() {
            socket.readable().await?;
        }
        let permit = Arc::clone(&self.retried).acquire_owned().await.map_err(io::Error::other)?;
        let runtime = Handle::current();
        spawn_blocking(move || {
            let _permit = permit;
            runtime.block_on(timeout(limit, accept)).map_err(io::Error::other)?
        })
        .await
        .map_err(io::Error::other)?
    }

    /// Answers the ClientHello; `true` when the answer is a HelloRetryRequest.
    async fn read_hello(&self, hello: StartHandshake<TcpStream>) -> io::Result<(Accept<TcpStream>, bool)> {
        let permit = Arc::clone(&self.first).acquire_owned().await.map_err(io::Error::other)?;
        let tls = Arc::clone(&self.tls);
        spawn_blocking(move || {
            let _permit = permit;
            let mut retried = false;
            let accept = hello.into_stream_with(tls, |connection| {
                retried = connection.handshake_kind() == Some(HandshakeKind::FullWithHelloRetryRequest);
            });
            (accept, retried)
        })
        .await
        .map_err(io::Error::other)
    }
}

/// What the operator should know of a failed handshake.
fn reason(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::PeerIncompatible(rustls::PeerIncompatible::ExtendedMasterSecretExtensionRequired)) => {
            "TLS 1.2 without the extended master secret (RFC 7627), which fips mode requires; update the peer or use TLS 1.3"
                .into()
        }
        Some(tls) => tls.to_string(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use casemate_audit::AuditSettings;

    use super::*;

    fn gate(limits: Limits) -> (Arc<Gate>, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let settings =
            AuditSettings { journal_socket: dir.path().join("absent"), file: dir.path().join("journal.jsonl") };
        let auditor = Arc::new(Auditor::open("casemate-test", &settings).unwrap());
        (Gate::new("test", limits, auditor), dir)
    }

    fn from(host: u8) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, host], 1))
    }

    #[test]
    fn one_address_cannot_take_every_place_and_places_come_back() {
        let (gate, dir) = gate(Limits {
            connections: 3,
            connections_per_address: 2,
            audited_refusals: NonZeroU32::MIN,
            ..Limits::default()
        });
        let first = gate.admit(from(1)).unwrap();
        let second = gate.admit(from(1)).unwrap();
        assert!(gate.admit(from(1)).is_none());
        let third = gate.admit(from(2)).unwrap();
        assert!(gate.admit(from(3)).is_none());
        drop(first);
        assert!(gate.admit(from(3)).is_some());
        let fourth = gate.admit(from(4)).unwrap();
        assert!((10..200).all(|host| gate.admit(from(host)).is_none()));
        drop(fourth);
        drop((second, third));
        assert!(gate.connected.lock().unwrap().by_address.is_empty(), "a refused address is forgotten");
        let trail = std::fs::read_to_string(dir.path().join("journal.jsonl")).unwrap();
        assert_eq!(trail.matches("ConnectionRefused").count(), 1, "one event for a flood: {trail}");
    }
}
