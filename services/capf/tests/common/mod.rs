//! An enrolment service over a software key, and a phone that speaks to it without TLS.
#![allow(dead_code)] // each test file uses its part

use std::{
    net::SocketAddr,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use casemate_audit::{AuditSettings, Auditor};
use casemate_capf::{
    DeviceName, SessionLimits,
    authentication::AuthenticationString,
    enrolment::Enrolment,
    issuer::{Authority, IssueError, Issued, Issuer, Leaf},
    protocol::{Command, Decoder, Element, Message, Password, Reason},
    records::{NewOperation, Records},
};
use casemate_hsm_api::{KeyAlgorithm, KeyRole};
use casemate_pki::{IdentityProfile, SubjectSettings, self_signed};
use casemate_store::StoreSettings;
use rcgen::{KeyPair, PublicKeyData};
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

pub(crate) const PHONE: &str = "SEP001122334455";
pub(crate) const STRING: &str = "12345";
/// Refusals of strangers that are audited in ten seconds.
pub(crate) const AUDITED_REFUSALS: usize = 10;

/// Signs with a key in memory; can be told to be out of reach.
pub(crate) struct SoftwareIssuer {
    authority: Authority,
    key: KeyPair,
    pub(crate) signatures: AtomicU32,
    pub(crate) is_gone: AtomicBool,
}

impl SoftwareIssuer {
    fn new() -> Arc<Self> {
        let key = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let now = OffsetDateTime::now_utc();
        let profile = IdentityProfile::new(KeyRole::Capf, "capf.test", SubjectSettings::default(), now).unwrap();
        let authority = Authority::new(&self_signed(&profile, &key).unwrap(), time::Duration::days(1825)).unwrap();
        Arc::new(Self { authority, key, signatures: AtomicU32::new(0), is_gone: AtomicBool::new(false) })
    }
}

impl Issuer for SoftwareIssuer {
    fn issue(&self, leaf: &Leaf) -> Result<Issued, IssueError> {
        if self.is_gone.load(Ordering::Relaxed) {
            return Err(IssueError::NotProvisioned);
        }
        self.signatures.fetch_add(1, Ordering::Relaxed);
        self.authority.issue(leaf, &self.key, OffsetDateTime::now_utc())
    }
}

pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) issuer: Arc<SoftwareIssuer>,
    pub(crate) enrolment: Arc<Enrolment>,
    pub(crate) records: Records,
}

impl World {
    pub(crate) async fn new(limits: SessionLimits) -> Self {
        Self::with_store(limits, StoreSettings::default()).await
    }

    pub(crate) async fn with_store(limits: SessionLimits, store: StoreSettings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let trail = AuditSettings { journal_socket: dir.path().join("absent"), file: dir.path().join("journal.jsonl") };
        let auditor = Arc::new(Auditor::open("casemate-capf", &trail).unwrap());
        let records = Records::open(&dir.path().join("capf.db"), store, Arc::clone(&auditor)).await.unwrap();
        let issuer = SoftwareIssuer::new();
        let audited = NonZeroU32::new(AUDITED_REFUSALS as u32).unwrap();
        let enrolment = Arc::new(Enrolment::new(records.clone(), issuer.clone(), auditor, limits, 4, audited));
        Self { dir, issuer, enrolment, records }
    }

    pub(crate) async fn add(&self, string: Option<&str>, key: KeyAlgorithm) -> i64 {
        let new = NewOperation { device: name(), string: string.map(digits), key, lifetime: None };
        self.records.add(new, 0, OffsetDateTime::now_utc()).await.unwrap()
    }

    pub(crate) fn phone(&self) -> Phone {
        let (ours, theirs) = duplex(64 * 1024);
        let enrolment = Arc::clone(&self.enrolment);
        tokio::spawn(async move { enrolment.converse(theirs, SocketAddr::from(([192, 0, 2, 1], 50000))).await });
        Phone { stream: ours, decoder: Decoder::new(65535), session: 0 }
    }

    /// How many events of this name the trail has.
    pub(crate) fn events(&self, name: &str) -> usize {
        let trail = std::fs::read_to_string(self.dir.path().join("journal.jsonl")).unwrap();
        trail.matches(&format!("\"CASEMATE_EVENT\":\"{name}\"")).count()
    }
}

pub(crate) fn name() -> DeviceName {
    PHONE.parse().unwrap()
}

pub(crate) fn digits(text: &str) -> AuthenticationString {
    AuthenticationString::try_from(text.to_owned()).unwrap()
}

pub(crate) fn p256() -> Vec<u8> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().subject_public_key_info()
}

/// How a session ended for the phone: the reason code and the text with it.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Ended(pub(crate) u8, pub(crate) Option<String>);

pub(crate) struct Phone {
    pub(crate) stream: DuplexStream,
    decoder: Decoder,
    session: u32,
}

impl Phone {
    pub(crate) async fn receive(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.decoder.next_message().unwrap() {
                self.session = message.session;
                return Some(message);
            }
            let mut buffer = vec![0; self.decoder.wanted().unwrap()];
            match self.stream.read(&mut buffer).await.unwrap() {
                0 => return None,
                count => self.decoder.push(&buffer[..count]),
            }
        }
    }

    pub(crate) fn encode(&self, command: Command, elements: Vec<Element>) -> Vec<u8> {
        Message { command, session: self.session, elements }.encode().unwrap()
    }

    pub(crate) async fn send(&mut self, command: Command, elements: Vec<Element>) {
        let bytes = self.encode(command, elements);
        let _ = self.stream.write_all(&bytes).await;
    }

    pub(crate) fn hello_elements(string: Option<&str>) -> Vec<Element> {
        let mut elements =
            vec![Element::Reason(Reason::SUCCESS), Element::ProtocolVersion(3), Element::DeviceName(PHONE.into())];
        elements.extend(string.map(|text| Element::Password(Password::new(text.as_bytes()))));
        elements
    }

    /// Reads the opening and says who it is; gives what the server answers.
    pub(crate) async fn hello(&mut self, string: Option<&str>) -> Result<Message, Ended> {
        let opening = self.receive().await.expect("the server speaks first");
        assert_eq!(opening.command, Command::AuthRequest);
        self.send(Command::AuthResponse, Self::hello_elements(string)).await;
        self.answer().await
    }

    pub(crate) async fn answer(&mut self) -> Result<Message, Ended> {
        let message = self.receive().await.expect("an answer");
        if message.command != Command::EndSession {
            return Ok(message);
        }
        let reason = message.find(|e| if let Element::Reason(reason) = e { Some(reason.0) } else { None });
        let text = message.find(|e| if let Element::ReasonInfo(text) = e { Some(text.clone()) } else { None });
        assert!(self.receive().await.is_none(), "nothing comes after the end");
        Err(Ended(reason.unwrap(), text))
    }

    /// Sends the key and gives the certificate.
    pub(crate) async fn certify(&mut self, spki: &[u8]) -> Result<Vec<u8>, Ended> {
        self.send(Command::KeyGenResponse, vec![Element::PublicKey(spki.to_vec())]).await;
        let store = self.answer().await?;
        assert_eq!(store.command, Command::StoreCertRequest);
        Ok(store.find(|e| if let Element::Certificate { der, .. } = e { Some(der.clone()) } else { None }).unwrap())
    }

    pub(crate) async fn confirm(&mut self) -> Ended {
        self.send(Command::StoreCertResponse, vec![Element::Reason(Reason::SUCCESS)]).await;
        self.answer().await.unwrap_err()
    }

    /// The whole of it.
    pub(crate) async fn enrol(mut self, string: Option<&str>, spki: &[u8]) -> Result<Vec<u8>, Ended> {
        self.hello(string).await?;
        let der = self.certify(spki).await?;
        assert_eq!(self.confirm().await, Ended(1, None));
        Ok(der)
    }
}

pub(crate) fn quick() -> SessionLimits {
    SessionLimits { step_ms: 200, key_generation_ms: 400, ..SessionLimits::default() }
}

pub(crate) async fn soon(condition: impl Fn() -> bool) {
    for _ in 0..200 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not come to pass in two seconds");
}
