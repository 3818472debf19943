//! One enrolment over the network.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::SystemTime;

use super::behaviour::{Behaviour, Step};
use super::link::Link;
pub use super::link::Silence;
use super::session::{Action, Session};
use super::{AuthString, Command, Message};
use crate::error::{PhoneError, Result};
use crate::identity::{DeviceKey, KeySpec, Lsc};
use crate::tls::{Endpoint, Timed, TlsVersions};
use crate::tlv::record::{Record, Role};
use crate::trust::TrustList;

/// Everything that an enrolment needs beside a key.
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// Where CAPF is, and how long the whole session may take.
    pub endpoint: Endpoint,
    /// Which TLS versions the phone offers.
    pub tls: TlsVersions,
    /// The list's CAPF record: the server's certificate, and the issuer of what it delivers.
    pub capf: Record,
    /// Whether the list's signer version allows EC keys.
    pub ec_allowed: bool,
    /// The device's name, such as `SEP001122334455`.
    pub device: String,
    /// The authentication string; `None` is the null string.
    pub auth: Option<AuthString>,
    /// The newest protocol version that the phone speaks, 1 to 3.
    pub version: u8,
    /// What the phone does wrong.
    pub behaviour: Behaviour,
}

impl Enrolment {
    /// An enrolment at the CAPF of `list`, by a phone that does nothing wrong.
    ///
    /// # Errors
    /// [`PhoneError::List`] when the list has no CAPF record.
    pub fn new(endpoint: Endpoint, list: &TrustList, device: &str, auth: Option<AuthString>) -> Result<Self> {
        let capf = list.with_role(Role::Capf).next().ok_or(PhoneError::List("it has no CAPF record"))?;
        Ok(Self {
            endpoint,
            tls: TlsVersions::default(),
            capf: capf.clone(),
            ec_allowed: list.offers_ec(),
            device: device.to_owned(),
            auth,
            version: super::session::NEWEST_VERSION,
            behaviour: Behaviour::default(),
        })
    }
}

/// Makes the phone's key and keeps its certificate.
pub trait KeyHolder {
    /// Whether [`KeyHolder::key`] returns at once: no key has to be made.
    fn is_ready(&self, spec: KeySpec) -> bool;

    /// The key to enrol.
    ///
    /// # Errors
    /// [`PhoneError::KeyRequest`] when the server asks for another key than expected, or what making and keeping it
    /// fails with.
    fn key(&mut self, spec: KeySpec) -> Result<Arc<DeviceKey>>;

    /// Keeps a certificate that stood every check. The server is told of success only after this.
    ///
    /// # Errors
    /// What keeping it fails with.
    fn keep(&mut self, lsc: &Lsc) -> Result<()>;
}

/// A key made beforehand, and a certificate kept in memory alone.
#[derive(Debug)]
pub struct Premade(pub Arc<DeviceKey>);

impl KeyHolder for Premade {
    fn is_ready(&self, _spec: KeySpec) -> bool {
        true
    }

    fn key(&mut self, spec: KeySpec) -> Result<Arc<DeviceKey>> {
        if self.0.spec() == spec {
            Ok(Arc::clone(&self.0))
        } else {
            Err(PhoneError::KeyRequest(format!("{spec}, but the key made beforehand is {}", self.0.spec())))
        }
    }

    fn keep(&mut self, _lsc: &Lsc) -> Result<()> {
        Ok(())
    }
}

/// How an enrolment ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A certificate was delivered, checked, kept and acknowledged, and the server said success.
    Installed(Lsc),
    /// The server has nothing to do for this device.
    NothingToDo,
    /// The phone fell silent, as its behaviour says; this is what became of the connection.
    Silent(Silence),
}

/// Enrols: connects, answers, checks the certificate, keeps it, acknowledges it.
///
/// # Errors
/// What any step fails with. A certificate that is refused is declined to the server first.
pub fn enrol(enrolment: &Enrolment, keys: &mut dyn KeyHolder) -> Result<Outcome> {
    let Enrolment { endpoint, behaviour, capf, .. } = enrolment;
    let pinned = vec![capf.certificate.clone()];
    if behaviour.stops_after(Step::Connected) || behaviour.stops_after(Step::ClientHello) {
        return stop_before_handshake(enrolment, pinned);
    }
    let stream = endpoint.connect_tls(enrolment.tls, pinned)?;
    let mut link = Link::new(endpoint, behaviour, stream);
    if behaviour.stops_after(Step::Handshake) {
        return Ok(Outcome::Silent(link.stay_silent(behaviour.hold)));
    }
    let auth = enrolment.auth.clone();
    let mut run = Run {
        session: Session::new(&enrolment.device, auth, enrolment.version, enrolment.ec_allowed),
        enrolment,
        keys,
        key: None,
        lsc: None,
    };
    loop {
        match run.step(&mut link)? {
            Next::Go => {}
            Next::FallSilent => return Ok(Outcome::Silent(link.stay_silent(behaviour.hold))),
            Next::End(outcome) => {
                link.close();
                return Ok(outcome);
            }
        }
    }
}

fn stop_before_handshake(enrolment: &Enrolment, pinned: Vec<Vec<u8>>) -> Result<Outcome> {
    let Enrolment { endpoint, behaviour, .. } = enrolment;
    let mut tcp = endpoint.connect()?;
    if behaviour.stops_after(Step::ClientHello) {
        let mut hello = Vec::new();
        endpoint
            .tls_client(enrolment.tls, pinned)?
            .write_tls(&mut hello)
            .and_then(|_| tcp.write_all(&hello))
            .map_err(|error| endpoint.failed(error))?;
    }
    tcp.allow(behaviour.hold);
    Ok(Outcome::Silent(listen(&mut tcp)))
}

fn listen(tcp: &mut Timed) -> Silence {
    let mut buffer = [0; 4096];
    loop {
        match tcp.read(&mut buffer) {
            Ok(0) => return Silence::Closed,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) => {
                return Silence::StillOpen;
            }
            Err(_) => return Silence::Closed,
        }
    }
}

enum Next {
    Go,
    FallSilent,
    End(Outcome),
}

struct Run<'a> {
    session: Session,
    enrolment: &'a Enrolment,
    keys: &'a mut dyn KeyHolder,
    key: Option<Arc<DeviceKey>>,
    lsc: Option<Lsc>,
}

impl Run<'_> {
    fn step(&mut self, link: &mut Link<'_>) -> Result<Next> {
        let message = link.receive()?;
        let action = self.session.on_message(&message)?;
        if self.enrolment.behaviour.stops_after(Step::Received(message.command)) {
            return Ok(Next::FallSilent);
        }
        match action {
            Action::Send(answer) => self.send(link, &answer),
            Action::NeedKey(spec) => self.send_key(link, spec),
            Action::Check(der) => self.check(link, &der),
            Action::Wait => Ok(Next::Go),
            Action::Finished { installed } => match self.lsc.take() {
                Some(lsc) if installed => Ok(Next::End(Outcome::Installed(lsc))),
                _ => Ok(Next::End(Outcome::NothingToDo)),
            },
        }
    }

    fn send(&self, link: &mut Link<'_>, message: &Message) -> Result<Next> {
        let go_on = link.send(message)? && !self.enrolment.behaviour.stops_after(Step::Sent(message.command));
        Ok(if go_on { Next::Go } else { Next::FallSilent })
    }

    fn send_key(&mut self, link: &mut Link<'_>, spec: KeySpec) -> Result<Next> {
        if !self.keys.is_ready(spec)
            && let silent @ Next::FallSilent = self.send(link, &self.session.in_progress())?
        {
            return Ok(silent);
        }
        let key = self.keys.key(spec)?;
        let answer = self.session.on_key(key.spki());
        self.key = Some(key);
        self.send(link, &answer)
    }

    fn check(&mut self, link: &mut Link<'_>, der: &[u8]) -> Result<Next> {
        let kept = self.check_and_keep(der);
        let next = self.send(link, &self.session.on_checked(kept.is_ok()));
        self.lsc = Some(kept?);
        next
    }

    fn check_and_keep(&mut self, der: &[u8]) -> Result<Lsc> {
        let key = self
            .key
            .as_ref()
            .ok_or(PhoneError::CapfOutOfOrder { got: Command::StoreCertRequest, expected: "a key request first" })?;
        let lsc = Lsc::check(der, &self.enrolment.capf, &self.enrolment.device, key.spki(), SystemTime::now())?;
        self.keys.keep(&lsc)?;
        Ok(lsc)
    }
}
