use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use casemate_audit::Event;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout},
};
use zeroize::Zeroizing;

use super::{Enrolment, Held, SERVICE};
use crate::{
    protocol::{Decoder, Message},
    session::{Action, Granted, Input, Refusal, Session},
};

/// How long the end of a session may take to be sent.
const CLOSING: Duration = Duration::from_secs(2);

/// One session and its connection: carries out what the state machine says.
pub(super) struct Conversation<'a, S> {
    enrolment: &'a Enrolment,
    stream: S,
    peer: SocketAddr,
    id: u32,
    session: Session,
    decoder: Decoder,
    ends: Instant,
    held: Option<Held>,
    /// Whether the phone showed that it may have its operation.
    is_proven: bool,
    serial: Option<String>,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Conversation<'a, S> {
    pub(super) fn new(enrolment: &'a Enrolment, stream: S, peer: SocketAddr, id: u32) -> Self {
        let limits = &enrolment.limits;
        Self {
            enrolment,
            stream,
            peer,
            id,
            session: Session::new(id),
            decoder: Decoder::new(limits.message_bytes),
            ends: Instant::now() + Duration::from_millis(limits.total_ms),
            held: None,
            is_proven: false,
            serial: None,
        }
    }

    pub(super) async fn run(mut self) {
        let mut actions = VecDeque::from(self.session.handle(Input::Started));
        let outcome = loop {
            let input = match actions.pop_front() {
                Some(Action::End(outcome)) => break outcome,
                Some(action) => self.act(action).await,
                None => Some(self.receive().await),
            };
            if let Some(input) = input {
                actions.extend(self.session.handle(input));
            }
        };
        // The device is free for its next session before this one's connection is closed.
        self.held = None;
        if let Err(refusal) = outcome {
            self.record_refusal(&refusal);
        }
        // A phone that does not wait for the end has what it came for.
        let _ = timeout(CLOSING, self.stream.shutdown()).await;
    }

    async fn act(&mut self, action: Action) -> Option<Input> {
        match action {
            Action::Send(message) => self.send(&message).await.err().map(Input::Failed),
            Action::LookUp { device, presented } => {
                let found = self.enrolment.look_up(&device, presented, self.peer).await;
                Some(Input::LookedUp(found.map(|held| self.hold(held))))
            }
            Action::Issue { spki_der, request } => Some(Input::Issued(self.issue(spki_der, &request).await)),
            Action::RecordDelivery => Some(Input::DeliveryRecorded(self.record_delivery().await)),
            Action::End(_) => None,
        }
    }

    fn hold(&mut self, held: Held) -> Granted {
        let granted = Granted { key: held.operation.key };
        self.enrolment.auditor.record(&Event::EnrolmentStarted {
            device: held.operation.device.to_string(),
            peer: self.peer.to_string(),
            session: self.id,
        });
        self.held = Some(held);
        self.is_proven = true;
        granted
    }

    async fn issue(&mut self, spki_der: Vec<u8>, request: &[u8]) -> Result<Vec<u8>, Refusal> {
        let Some(held) = &self.held else { return Err(Refusal::NothingToDo) };
        let (serial, der) = self.enrolment.issue(&held.operation, spki_der, request, self.peer).await?;
        self.serial = Some(serial);
        Ok(der)
    }

    async fn record_delivery(&mut self) -> Result<(), Refusal> {
        let (Some(held), Some(serial)) = (&self.held, self.serial.take()) else { return Err(Refusal::NothingToDo) };
        self.enrolment.deliver(&held.operation, serial, self.peer).await
    }

    /// The time that the phone has now before it begins its message, or for taking ours.
    fn patience(&self) -> Duration {
        if self.session.is_generating() {
            self.within_session(self.enrolment.limits.key_generation_ms)
        } else {
            self.step_limit()
        }
    }

    fn step_limit(&self) -> Duration {
        self.within_session(self.enrolment.limits.step_ms)
    }

    fn within_session(&self, milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds).min(self.ends.saturating_duration_since(Instant::now()))
    }

    async fn send(&mut self, message: &Message) -> Result<(), Refusal> {
        let step = self.session.step();
        let bytes = message
            .encode()
            .ok_or_else(|| Refusal::Unavailable("a message over 65535 bytes: a defect of this build".into()))?;
        let patience = if self.session.is_over() { CLOSING } else { self.patience() };
        let write = async {
            self.stream.write_all(&bytes).await?;
            self.stream.flush().await
        };
        match timeout(patience, write).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Refusal::Closed { step }),
            Err(_) => Err(Refusal::TimedOut { step }),
        }
    }

    /// The next message: the phone may think before it begins to send one, and must then send it without pausing.
    async fn receive(&mut self) -> Input {
        let step = self.session.step();
        let thinking = self.patience();
        let outcome = match timeout(thinking, self.read_some(step)).await {
            Ok(Ok(())) => timeout(self.step_limit(), self.read_message(step)).await,
            Ok(Err(refusal)) => Ok(Err(refusal)),
            Err(elapsed) => Err(elapsed),
        };
        match outcome {
            Ok(Ok(message)) => Input::Received(message),
            Ok(Err(refusal)) => Input::Failed(refusal),
            Err(_) => Input::Failed(Refusal::TimedOut { step }),
        }
    }

    async fn read_message(&mut self, step: &'static str) -> Result<Message, Refusal> {
        loop {
            if let Some(message) = self.decoder.next_message()? {
                return Ok(message);
            }
            self.read_some(step).await?;
        }
    }

    async fn read_some(&mut self, step: &'static str) -> Result<(), Refusal> {
        let mut buffer = Zeroizing::new([0; 2048]);
        let wanted = self.decoder.wanted()?.min(buffer.len());
        let place = buffer.get_mut(..wanted).unwrap_or_default();
        match self.stream.read(place).await {
            Ok(0) | Err(_) => Err(Refusal::Closed { step }),
            Ok(count) => {
                self.decoder.push(place.get(..count).unwrap_or_default());
                Ok(())
            }
        }
    }

    fn record_refusal(&self, refusal: &Refusal) {
        let (service, peer, reason) = (SERVICE.to_owned(), self.peer.to_string(), refusal.to_string());
        let event = match (refusal, self.session.device()) {
            (Refusal::TimedOut { step }, None) => Event::ConnectionTimedOut { service, peer, step: (*step).to_owned() },
            (Refusal::NothingToDo, Some(device)) => {
                Event::EnrolmentNotNeeded { device: device.to_string(), peer, session: self.id }
            }
            (_, Some(device)) => Event::EnrolmentRefused { device: device.to_string(), peer, session: self.id, reason },
            (_, None) => Event::ProtocolRefused { service, peer, reason },
        };
        match refusal {
            // Those of a proven phone and wrong strings are few: the operation is locked after some.
            Refusal::WrongString { .. } => self.enrolment.auditor.record(&event),
            _ if self.is_proven => self.enrolment.auditor.record(&event),
            // These only a known device gets, and the last one when it is our fault.
            Refusal::NothingToDo
            | Refusal::StringMissing
            | Refusal::Locked
            | Refusal::Changed
            | Refusal::Expired
            | Refusal::Unavailable(_) => self.enrolment.unproven.record(&event),
            _ => self.enrolment.strangers.record(&event),
        }
    }
}
