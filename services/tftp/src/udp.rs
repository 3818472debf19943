//! The TFTP listener, and the loop around one [`Transfer`].

use std::{
    io, mem,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use casemate_audit::Auditor;
use casemate_runtime::{
    listener::{Gate, Limits, Place},
    refusals::Refusals,
};
use hyper::body::Bytes;
use tokio::{
    net::UdpSocket,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    files::Files,
    name::{Transport, file_refused, locate},
    options::agree,
    packet::{Direction, ErrorCode, Packet, REQUEST_LIMIT, Request, error_packet},
    settings::UdpSettings,
    transfer::{Action, Outcome, Retry, Transfer},
};

/// What a TFTP listener needs.
pub struct Server {
    files: Arc<Files>,
    /// Transfers to clients that acknowledged something.
    gate: Arc<Gate>,
    /// Transfers to addresses that may be forged.
    unproven: Arc<Gate>,
    refusals: Arc<Refusals>,
    settings: UdpSettings,
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
                let Some(unproven) = server.unproven.admit(peer) else { continue };
                let server = Arc::clone(&server);
                tokio::spawn(async move {
                    if let Err(error) = server.answer(local, peer, &request, unproven).await {
                        tracing::warn!(%error, %peer, "TFTP transfer broken off");
                    }
                });
            }
            // Late packets of transfers that ended. No answer: a forged one would make two servers talk to each other.
            Ok(_) => {}
            Err(error) => server.refusals.protocol(&peer.to_string(), &error.to_string()),
        }
    }
}

impl Server {
    /// A server of `files` within `settings`. Requests that are refused go to `refusals`, those for which there is no room to
    /// `auditor`.
    #[must_use]
    pub fn new(files: Arc<Files>, refusals: Arc<Refusals>, settings: UdpSettings, auditor: &Arc<Auditor>) -> Self {
        let gate = |service, connections| {
            let limits =
                Limits { connections, connections_per_address: settings.transfers_per_address, ..Limits::default() };
            Gate::new(service, limits, Arc::clone(auditor))
        };
        let (proven, unproven) = (gate("tftp", settings.transfers), gate("tftp-unproven", settings.unproven));
        Self { files, gate: proven, unproven, refusals, settings }
    }

    async fn answer(&self, local: IpAddr, peer: SocketAddr, request: &Request, unproven: Place) -> io::Result<()> {
        let socket = UdpSocket::bind((local, 0)).await?;
        match self.open(request).await {
            Ok(transfer) => self.run(&socket, peer, transfer, unproven).await,
            Err(refused) => {
                if refused.audited {
                    self.refusals.record(&file_refused(
                        Transport::Tftp,
                        &peer.to_string(),
                        &request.name,
                        &refused.reason,
                    ));
                }
                socket.send_to(&error_packet(refused.code, &refused.reason), peer).await.map(drop)
            }
        }
    }

    async fn open(&self, request: &Request) -> Result<Transfer<Bytes>, Refused> {
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
        transfer: Transfer<Bytes>,
        unproven: Place,
    ) -> io::Result<()> {
        let end = Instant::now() + Duration::from_millis(self.settings.transfer_ms);
        let mut talk = Talk::new(socket, peer, transfer);
        let patience = Duration::from_millis(self.settings.unproven_ms);
        let before = match timeout(patience, talk.until_proven()).await {
            Ok(ended) => ended?,
            Err(_) => Some(talk.transfer.silent()),
        };
        if let Some(outcome) = before {
            self.ended(peer, &outcome);
            return Ok(());
        }
        let proven = self.gate.admit(peer);
        drop(unproven);
        if proven.is_none() {
            let full = error_packet(ErrorCode::NotDefined, "too many transfers");
            return socket.send_to(&full, peer).await.map(drop);
        }
        match timeout_at(end, talk.until_ended()).await {
            Ok(outcome) => self.ended(peer, &outcome?),
            Err(_) => {
                let too_long = error_packet(ErrorCode::NotDefined, "the transfer takes too long");
                socket.send_to(&too_long, peer).await?;
                self.refusals.silence(&peer.to_string(), "transfer-ms is over");
            }
        }
        Ok(())
    }

    fn ended(&self, peer: SocketAddr, outcome: &Outcome) {
        match outcome {
            Outcome::Complete | Outcome::Stopped { .. } | Outcome::Silent { last: true, .. } => {}
            Outcome::Silent { block, last: false } => {
                self.refusals.silence(&peer.to_string(), &format!("acknowledging block {block}"));
            }
            Outcome::Illegal => self.refusals.protocol(&peer.to_string(), "no acknowledgment inside a transfer"),
        }
    }
}

/// The loop around one [`Transfer`].
struct Talk<'a> {
    socket: &'a UdpSocket,
    peer: SocketAddr,
    transfer: Transfer<Bytes>,
    /// What is to be done next.
    action: Action,
    /// When the transfer's timer ends.
    deadline: Instant,
}

impl<'a> Talk<'a> {
    fn new(socket: &'a UdpSocket, peer: SocketAddr, transfer: Transfer<Bytes>) -> Self {
        let action = transfer.begin();
        Self { socket, peer, transfer, action, deadline: Instant::now() }
    }

    /// Runs until the client acknowledged something, or how it ended before that.
    async fn until_proven(&mut self) -> io::Result<Option<Outcome>> {
        while !self.transfer.is_proven() {
            if let Some(outcome) = self.step().await? {
                return Ok(Some(outcome));
            }
        }
        // The acknowledgment of a single block ends the transfer, which needs no place any more.
        match &self.action {
            Action::Done { outcome, .. } => Ok(Some(outcome.clone())),
            Action::Send { .. } | Action::Ignore => Ok(None),
        }
    }

    async fn until_ended(&mut self) -> io::Result<Outcome> {
        loop {
            if let Some(outcome) = self.step().await? {
                return Ok(outcome);
            }
        }
    }

    /// Does what is next and waits for what is to be done then; or how it ended.
    async fn step(&mut self) -> io::Result<Option<Outcome>> {
        match mem::replace(&mut self.action, Action::Ignore) {
            Action::Send { packet, wait } => {
                self.socket.send_to(&packet, self.peer).await?;
                self.deadline = Instant::now() + wait;
            }
            Action::Ignore => {}
            Action::Done { last, outcome } => {
                if let Some(last) = last {
                    self.socket.send_to(&last, self.peer).await?;
                }
                return Ok(Some(outcome));
            }
        }
        let mut buffer = [0; REQUEST_LIMIT + 1];
        self.action = match timeout_at(self.deadline, self.socket.recv_from(&mut buffer)).await {
            Err(_) => self.transfer.timer(),
            Ok(Ok((length, from))) => self.datagram(buffer.get(..length).unwrap_or_default(), from).await,
            // An ICMP answer to an earlier packet; the timer decides.
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Action::Ignore,
            Ok(Err(error)) => return Err(error),
        };
        Ok(None)
    }

    async fn datagram(&mut self, datagram: &[u8], from: SocketAddr) -> Action {
        if from == self.peer {
            return self.transfer.packet(datagram);
        }
        // A packet from another address than the client's: told so, and the transfer goes on (RFC 1350, 4). Errors get no
        // answer, or two servers could answer each other for ever.
        if !matches!(Packet::decode(datagram), Ok(Packet::Error { .. })) {
            let unknown = error_packet(ErrorCode::UnknownTransfer, "unknown transfer");
            if let Err(error) = self.socket.send_to(&unknown, from).await {
                // Its address may be forged to be one that nothing can be sent to. That is no business of the client's.
                tracing::debug!(%error, %from, "a stranger inside a transfer cannot be answered");
            }
        }
        Action::Ignore
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        options::BlockSize,
        packet::{Options, data_packet},
    };

    #[tokio::test]
    async fn a_stranger_that_cannot_be_answered_ends_no_transfer() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        // TEST-NET-1: nothing goes there from a loopback address.
        let nowhere: SocketAddr = "192.0.2.1:9".parse().unwrap();
        assert!(socket.send_to(b"x", nowhere).await.is_err());
        let content = Bytes::from_static(&[7; 600]);
        let agreed = agree(&Options::new(), content.len(), BlockSize::default()).unwrap();
        let retry = Retry { first: Duration::from_secs(10), limit: 1 };
        let peer = client.local_addr().unwrap();
        let mut talk = Talk::new(&socket, peer, Transfer::new(content, agreed, retry));
        let acknowledgment = Packet::Ack(1).encode().unwrap();
        assert_eq!(talk.datagram(&acknowledgment, nowhere).await, Action::Ignore);
        assert!(!talk.transfer.is_proven());
        let Action::Send { packet, .. } = talk.datagram(&acknowledgment, peer).await else { panic!() };
        assert_eq!(packet, data_packet(2, &[7; 88]));
    }
}
