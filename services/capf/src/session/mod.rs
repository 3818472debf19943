//! One CAPF session as a state machine without input or output: it is told what happened and says what to do. It never sees
//! records, keys or sockets.
//!
//! Install, the only operation here (phone-formats §5): `1 AuthRequest` → `2 AuthResponse` → `3 KeyGenRequest` →
//! (`17 RequestInProgress`) → `4 KeyGenResponse` → `9 StoreCertRequest` → `10 StoreCertResponse` → `15 EndSession`.
//! The server speaks first.
//!
//! An operation asks for one kind of key: RSA only or EC only in the guide's words (2964-2972). There is no falling back from
//! EC to RSA: a phone older than version 3 with an EC operation is refused with the reason.

mod refusal;

use casemate_hsm_api::KeyAlgorithm;
use casemate_pki::SpkiFacts;

pub use self::refusal::Refusal;
use crate::{
    device::DeviceName,
    key::{self, VERSION},
    protocol::{Command, Element, Message, Password, ProtocolError, Reason},
};

/// Elements by which a phone proves itself with a certificate that it has: SignedData, SudiData, Sha2SignedData.
const CERTIFICATE_AUTHENTICATION: [u8; 3] = [6, 16, 20];

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// The connection stands.
    Started,
    /// The phone sent a message.
    Received(Message),
    /// Answer to [`Action::LookUp`].
    LookedUp(Result<Granted, Refusal>),
    /// Answer to [`Action::Issue`]: the certificate, recorded.
    Issued(Result<Vec<u8>, Refusal>),
    /// Answer to [`Action::RecordDelivery`].
    DeliveryRecorded(Result<(), Refusal>),
    /// The phone was silent for too long, or sent what is no message.
    Failed(Refusal),
}

/// An operation that the phone proved it may have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Granted {
    /// The key that it asks for.
    pub key: KeyAlgorithm,
}

/// What to do, in order.
#[derive(Debug, Eq, PartialEq)]
pub enum Action {
    /// Send this in one write.
    Send(Message),
    /// Find the pending operation of `device`, check what was presented, and hold the device for this session.
    LookUp {
        /// Who it says it is.
        device: DeviceName,
        /// What its user typed.
        presented: Option<Password>,
    },
    /// Issue a certificate for this key and record it before answering.
    Issue {
        /// The public key: checked, of the kind that was asked for.
        spki_der: Vec<u8>,
        /// The message that asked, as it came.
        request: Vec<u8>,
    },
    /// The phone stored the certificate: record that, and consume the string.
    RecordDelivery,
    /// Close. The session is over.
    End(Result<(), Refusal>),
}

/// Where the session stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    New,
    Authentication,
    LookingUp { version: u8 },
    KeyGeneration { key: KeyAlgorithm },
    Issuing,
    Storing,
    Recording,
    Over,
}

/// One session.
#[derive(Debug)]
pub struct Session {
    id: u32,
    state: State,
    device: Option<DeviceName>,
}

impl Session {
    /// A session with the number that the server chose for this connection.
    #[must_use]
    pub const fn new(id: u32) -> Self {
        Self { id, state: State::New, device: None }
    }

    /// Who the phone says it is, once it said so.
    #[must_use]
    pub const fn device(&self) -> Option<&DeviceName> {
        self.device.as_ref()
    }

    /// What the phone is waited for, for timeouts and reports.
    #[must_use]
    pub const fn step(&self) -> &'static str {
        match self.state {
            State::New | State::Authentication | State::LookingUp { .. } => "authentication",
            State::KeyGeneration { .. } | State::Issuing => "key generation",
            State::Storing | State::Recording => "certificate storage",
            State::Over => "end",
        }
    }

    /// Whether the phone is making its key, which may take it half an hour (guide 5764).
    #[must_use]
    pub const fn is_generating(&self) -> bool {
        matches!(self.state, State::KeyGeneration { .. })
    }

    /// Whether nothing but the end is left to be sent.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Takes what happened and says what to do now. After [`Action::End`] everything is ignored.
    pub fn handle(&mut self, input: Input) -> Vec<Action> {
        match (self.state, input) {
            (State::Over, _) => Vec::new(),
            (_, Input::Failed(refusal)) => self.refuse(refusal),
            (_, Input::Received(message)) if message.session != self.id => {
                self.refuse(Refusal::OtherSession { found: message.session, expected: self.id })
            }
            (State::New, Input::Started) => self.open(),
            (State::Authentication, Input::Received(message)) => self.authenticate(message),
            (State::LookingUp { version }, Input::LookedUp(Ok(granted))) => self.ask_for_key(granted, version),
            (State::KeyGeneration { .. }, Input::Received(message))
                if message.command == Command::RequestInProgress =>
            {
                Vec::new()
            }
            (State::KeyGeneration { key }, Input::Received(message)) => self.take_key(key, &message),
            (State::Issuing, Input::Issued(Ok(der))) => self.hand_over(der),
            (State::Storing, Input::Received(message)) => self.take_confirmation(&message),
            (State::Recording, Input::DeliveryRecorded(Ok(()))) => self.close(),
            (
                _,
                Input::LookedUp(Err(refusal)) | Input::Issued(Err(refusal)) | Input::DeliveryRecorded(Err(refusal)),
            ) => self.refuse(refusal),
            (_, Input::Received(message)) => {
                let step = self.step();
                self.refuse(Refusal::Unexpected { command: message.command, step })
            }
            // An answer to what was not asked: the driver is wrong, so nothing may be issued.
            (_, Input::Started | Input::LookedUp(Ok(_)) | Input::Issued(Ok(_)) | Input::DeliveryRecorded(Ok(()))) => {
                self.refuse(Refusal::Unavailable("the session was driven out of order: a defect of this build".into()))
            }
        }
    }

    fn open(&mut self) -> Vec<Action> {
        self.state = State::Authentication;
        vec![self.send(Command::AuthRequest, vec![Element::ProtocolVersion(VERSION), Element::AuthType(0)])]
    }

    fn authenticate(&mut self, message: Message) -> Vec<Action> {
        match self.read_authentication(message) {
            Ok((version, device, presented)) => {
                self.state = State::LookingUp { version };
                vec![Action::LookUp { device, presented }]
            }
            Err(refusal) => self.refuse(refusal),
        }
    }

    fn read_authentication(&mut self, message: Message) -> Result<(u8, DeviceName, Option<Password>), Refusal> {
        let command = Command::AuthResponse;
        let (mut version, mut presented) = (None, None);
        let succeeded = expect(&message, command, self.step());
        let mut proves_by_certificate = false;
        for element in message.elements {
            match element {
                Element::ProtocolVersion(number) => version = Some(number),
                Element::DeviceName(name) => self.device = Some(DeviceName::try_from(name)?),
                Element::Password(text) => presented = Some(text).filter(|text| !text.as_bytes().is_empty()),
                Element::Other { tag, .. } => proves_by_certificate |= CERTIFICATE_AUTHENTICATION.contains(&tag),
                _ => {}
            }
        }
        succeeded?;
        let device = self.device.clone().ok_or(Refusal::Lacks { command, element: "device name" })?;
        let version = version.ok_or(Refusal::Lacks { command, element: "protocol version" })?;
        if !(1..=VERSION).contains(&version) {
            return Err(Refusal::Version { found: version });
        }
        if proves_by_certificate {
            return Err(Refusal::CertificateAuthentication);
        }
        Ok((version, device, presented))
    }

    fn ask_for_key(&mut self, Granted { key }: Granted, version: u8) -> Vec<Action> {
        match key::request_elements(key, version) {
            Some(elements) => {
                self.state = State::KeyGeneration { key };
                vec![self.send(Command::KeyGenRequest, elements)]
            }
            None => self.refuse(Refusal::KeyNeedsVersion3 { wanted: key, version }),
        }
    }

    fn take_key(&mut self, wanted: KeyAlgorithm, message: &Message) -> Vec<Action> {
        match read_key(message, wanted, self.step()) {
            Ok((spki_der, request)) => {
                self.state = State::Issuing;
                vec![Action::Issue { spki_der, request }]
            }
            Err(refusal) => self.refuse(refusal),
        }
    }

    fn hand_over(&mut self, der: Vec<u8>) -> Vec<Action> {
        self.state = State::Storing;
        let lsc = 1;
        vec![self.send(
            Command::StoreCertRequest,
            vec![Element::CertType(lsc), Element::Certificate { kind: u16::from(lsc), der }],
        )]
    }

    fn take_confirmation(&mut self, message: &Message) -> Vec<Action> {
        match expect(message, Command::StoreCertResponse, self.step()) {
            Ok(Some(Reason::SUCCESS)) => {
                self.state = State::Recording;
                vec![Action::RecordDelivery]
            }
            Ok(_) => self.refuse(Refusal::Lacks { command: message.command, element: "reason" }),
            Err(refusal) => self.refuse(refusal),
        }
    }

    fn close(&mut self) -> Vec<Action> {
        self.state = State::Over;
        vec![self.send(Command::EndSession, vec![Element::Reason(Reason::SUCCESS)]), Action::End(Ok(()))]
    }

    fn refuse(&mut self, refusal: Refusal) -> Vec<Action> {
        self.state = State::Over;
        let mut elements = vec![Element::Reason(refusal.reason())];
        elements.extend(refusal.told().map(Element::ReasonInfo));
        vec![self.send(Command::EndSession, elements), Action::End(Err(refusal))]
    }

    const fn send(&self, command: Command, elements: Vec<Element>) -> Action {
        Action::Send(Message { command, session: self.id, elements })
    }
}

/// The command must be the expected one and its reason, if it has one, success.
fn expect(message: &Message, command: Command, step: &'static str) -> Result<Option<Reason>, Refusal> {
    if message.command != command {
        return Err(Refusal::Unexpected { command: message.command, step });
    }
    match message.find(|element| if let Element::Reason(reason) = element { Some(*reason) } else { None }) {
        Some(reason) if reason != Reason::SUCCESS => Err(Refusal::PhoneFailed { command, reason: reason.0 }),
        reason => Ok(reason),
    }
}

fn read_key(message: &Message, wanted: KeyAlgorithm, step: &'static str) -> Result<(Vec<u8>, Vec<u8>), Refusal> {
    let command = Command::KeyGenResponse;
    expect(message, command, step)?;
    let spki_der = message
        .find(|element| if let Element::PublicKey(spki) = element { Some(spki) } else { None })
        .ok_or(Refusal::Lacks { command, element: "public key" })?;
    let facts = SpkiFacts::parse(spki_der).map_err(|error| Refusal::UnusableKey(error.to_string()))?;
    if facts.algorithm != wanted {
        return Err(Refusal::OtherKey { wanted, found: facts.algorithm });
    }
    let request = message.encode().ok_or(ProtocolError::Cut)?;
    Ok((spki_der.clone(), request))
}

#[cfg(test)]
mod tests;
