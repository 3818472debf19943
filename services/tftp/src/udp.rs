//! The TFTP listener, and the loop around one [`Transfer`].

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use casemate_runtime::listener::Gate;
use tokio::{
    net::UdpSocket,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    files::Files,
    name::{Transport, locate},
    options::agree,
    packet::{Direction, ErrorCode, Packet, REQUEST_LIMIT, Request, error_packet},
    refusals::Refusals,
    settings::UdpSettings,
    transfer::{Action, Outcome, Retry, Transfer},
};

/// What a TFTP listener needs.
pub struct Server {
    /// What is served.
    pub files: Arc<Files>,
    /// How many transfers run.
    pub gate: Arc<Gate>,
    /// Where refusals go.
    pub refusals: Arc<Refusals>,
    /// Limits.
    pub settings: UdpSettings,
}

/// Why a request gets no file, as the client is told.
struct Refused {
    code: ErrorCode,
    reason: String,
    audited: bool,
}

impl Refused {
    fn audited(code: ErrorCode, reason: impl ToString) -> Self {
        Self { code, reason: reason.to_string(), audited: true }
    }
}

/// Answers the requests that reach `socket`, for ever. Each transfer has a port of its own on the same local address, as RFC
/// 1350, 4 asks; where the listener is bound to every address, the kernel chooses the one that routes to the phone.
///
/// # Errors
/// The socket has no local address.
pub async fn serve(socket: UdpSocket, server: Arc<Server>) -> io::Result<()> {
    let local = socket.local_addr()?.ip();
    // One byte more than the longest request, so that an overlong one is seen as such.
    let mut buffer = [0; REQUEST_LIMIT + 1];
    loop {
        let (length, peer) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::warn!(%error, "cannot receive TFTP requests");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        match Packet::decode(buffer.get(..length).unwrap_or_default()) {
            Ok(Packet::Request(request)) => {
                let Some(place) = server.gate.admit(peer) else { continue };
                let server = Arc::clone(&server);
                tokio::spawn(async move {
                    if let Err(error) = server.answer(local, peer, &request).await {
                        tracing::warn!(%error, %peer, "TFTP transfer broken off");
                    }
                    drop(place);
                });
            }
            // Late packets of transfers that ended. No answer: a forged one would make two servers talk to each other.
            Ok(_) => {}
            Err(error) => server.refusals.protocol(Transport::Tftp, &peer.to_string(), &error.to_string()),
        }
    }
}

impl Server {
    async fn answer(&self, local: IpAddr, peer: SocketAddr, request: &Request) -> io::Result<()> {
        let socket = UdpSocket::bind((local, 0)).await?;
        match self.open(request).await {
            Ok(transfer) => self.run(&socket, peer, transfer).await,
            Err(refused) => {
                if refused.audited {
                    self.refusals.file(Transport::Tftp, &peer.to_string(), &request.name, &refused.reason);
                }
                socket.send_to(&error_packet(refused.code, &refused.reason), peer).await.map(drop)
            }
        }
    }

    async fn open(&self, request: &Request) -> Result<Transfer<hyper::body::Bytes>, Refused> {
        if request.direction == Direction::Write {
            return Err(Refused::audited(ErrorCode::AccessViolation, "nothing may be written"));
        }
        let published = locate(&request.name, Transport::Tftp)
            .map_err(|error| Refused::audited(ErrorCode::AccessViolation, error))?;
        if !request.mode.eq_ignore_ascii_case(b"octet") {
            return Err(Refused::audited(ErrorCode::IllegalOperation, "only mode octet is served"));
        }
        let absent = || Refused { code: ErrorCode::FileNotFound, reason: "file not found".into(), audited: false };
        let file = self.files.fetch(published.ok_or_else(absent)?).await.map_err(|error| {
            tracing::error!(%error, "published file not served");
            Refused { code: ErrorCode::NotDefined, reason: "the file cannot be read now".into(), audited: false }
        })?;
        let content = file.ok_or_else(absent)?.content.clone();
        let agreed = agree(&request.options, content.len(), self.settings.block_bytes)
            .map_err(|error| Refused::audited(ErrorCode::OptionRefused, error))?;
        let first = Duration::from_millis(self.settings.timeout_ms.get());
        Ok(Transfer::new(content, agreed, Retry { first, limit: self.settings.retries }))
    }

    async fn run(
        &self,
        socket: &UdpSocket,
        peer: SocketAddr,
        mut transfer: Transfer<hyper::body::Bytes>,
    ) -> io::Result<()> {
        let limit = Duration::from_millis(self.settings.transfer_ms);
        let Ok(outcome) = timeout(limit, drive(socket, peer, &mut transfer)).await else {
            let too_long = error_packet(ErrorCode::NotDefined, "the transfer takes too long");
            socket.send_to(&too_long, peer).await?;
            self.refusals.silence(Transport::Tftp, &peer.to_string(), "transfer-ms is over");
            return Ok(());
        };
        match outcome? {
            Outcome::Complete | Outcome::Stopped { .. } | Outcome::Silent { last: true, .. } => {}
            Outcome::Silent { block, last: false } => {
                self.refusals.silence(Transport::Tftp, &peer.to_string(), &format!("acknowledging block {block}"));
            }
            Outcome::Illegal => {
                self.refusals.protocol(Transport::Tftp, &peer.to_string(), "no acknowledgment inside a transfer");
            }
        }
        Ok(())
    }
}

async fn drive(
    socket: &UdpSocket,
    peer: SocketAddr,
    transfer: &mut Transfer<hyper::body::Bytes>,
) -> io::Result<Outcome> {
    let mut buffer = [0; REQUEST_LIMIT + 1];
    let mut deadline = Instant::now();
    let mut action = transfer.begin();
    loop {
        match action {
            Action::Send { packet, wait } => {
                socket.send_to(&packet, peer).await?;
                deadline = Instant::now() + wait;
            }
            Action::Ignore => {}
            Action::Done { last, outcome } => {
                if let Some(last) = last {
                    socket.send_to(&last, peer).await?;
                }
                return Ok(outcome);
            }
        }
        action = match timeout_at(deadline, socket.recv_from(&mut buffer)).await {
            Err(_) => transfer.timer(),
            Ok(Ok((length, from))) => {
                let datagram = buffer.get(..length).unwrap_or_default();
                if from == peer {
                    transfer.packet(datagram)
                } else {
                    stranger(socket, from, datagram).await?;
                    Action::Ignore
                }
            }
            // An ICMP answer to an earlier packet; the timer decides.
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Action::Ignore,
            Ok(Err(error)) => return Err(error),
        };
    }
}

/// A packet from another address than the client's: told so, and the transfer goes on (RFC 1350, 4). Errors get no answer, or
/// two servers could answer each other for ever.
async fn stranger(socket: &UdpSocket, from: SocketAddr, datagram: &[u8]) -> io::Result<()> {
    if matches!(Packet::decode(datagram), Ok(Packet::Error { .. })) {
        return Ok(());
    }
    socket.send_to(&error_packet(ErrorCode::UnknownTransfer, "unknown transfer"), from).await.map(drop)
}
