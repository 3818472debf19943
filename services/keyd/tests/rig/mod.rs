//! A broker with a fake token, the shipped policy, and a caller for each daemon.
#![allow(dead_code, clippy::unwrap_used, clippy::panic)] // each program uses a part; clippy.toml allows the rest in tests

use std::{
    fs,
    num::NonZeroU32,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use casemate_audit::{AuditSettings, Auditor};
use casemate_hsm_api::{
    HsmError, KeyAlgorithm, KeyId, KeyRole, KeySpec, KeyState, KeyStore, PublicKey, SignatureRate, SignatureScheme,
    StoredKey, TokenInfo,
};
use casemate_hsm_fake::{FakeSettings, FakeStore, FakeToken};
use casemate_hsm_pkcs11::Backoff;
use casemate_keyd::{
    Broker, JudgeLimits, KeyPolicy, Keys, Parts, Patience, RecordFile, RecordSettings, RoleTokens, SignatureRecord,
    Sink, TokenParts,
};
use casemate_keyring::{KeyRecord, Purpose, Refusal, Request, Response, SignRequest, Status};
use casemate_pki::{CertificateFacts, IdentityProfile, SubjectSettings};
use casemate_post::Passed;
use casemate_runtime::{config::Config, peer::Peer};
use casemate_store::StoreSettings;
use rcgen::{PublicKeyData, SignatureAlgorithm, SigningKey};
use time::OffsetDateTime;

pub(crate) const CERTMGR: Peer = Peer { uid: 1001, pid: 1 };
pub(crate) const CAPF: Peer = Peer { uid: 1002, pid: 2 };
pub(crate) const CTLPROVIDER: Peer = Peer { uid: 1003, pid: 3 };
pub(crate) const TFTP: Peer = Peer { uid: 1004, pid: 4 };
pub(crate) const TVS: Peer = Peer { uid: 1005, pid: 5 };
pub(crate) const ROOT: Peer = Peer { uid: 0, pid: 6 };
pub(crate) const STRANGER: Peer = Peer { uid: 4242, pid: 7 };

/// The name of the one token.
pub(crate) const PLACE: &str = "pkcs11:token=fake";

/// Loads that every token carries.
pub(crate) const LOADS: &str =
    "ITLRecovery = 1\nCallManager = 1\nCallManager-ECDSA = 1\nCAPF = 1\nTVS = 1\ntomcat = 1\ntomcat-ECDSA = 1\n";

pub(crate) const USERS: &str = "certmgr = 1001\ncapf = 1002\nctlprovider = 1003\ntftp = 1004\ntvs = 1005\n";

/// What one caller may write.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) audited_refusals: u32,
    pub(crate) caller_day_bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { audited_refusals: 100, caller_day_bytes: 1 << 30 }
    }
}

/// The node's folder and token, which outlive brokers as a disk and a device outlive processes.
pub(crate) struct Node {
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) token: FakeToken,
}

impl Node {
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("pin"), "1234").unwrap();
        Self { runtime, dir, token: FakeToken::new("FAKE1") }
    }

    pub(crate) fn store(&self) -> Arc<dyn KeyStore> {
        Arc::new(FakeStore::open(&self.token, FakeSettings::default()).unwrap())
    }

    /// A broker as one process would have it, its token tested.
    pub(crate) fn broker(&self) -> Caller {
        self.broker_on(self.store())
    }

    pub(crate) fn broker_on(&self, store: Arc<dyn KeyStore>) -> Caller {
        let caller = self.untested(store, self.record(), USERS);
        caller.attempt().unwrap();
        caller
    }

    pub(crate) fn record(&self) -> RecordFile {
        RecordFile::open(&self.dir.path().join("record.jsonl"), RecordSettings::default()).unwrap()
    }

    /// A broker that has not looked at its token.
    pub(crate) fn untested(&self, store: Arc<dyn KeyStore>, sink: impl Sink + 'static, users: &str) -> Caller {
        self.with_tokens(vec![self.token_parts(PLACE, &KeyRole::ALL, store)], LOADS, sink, users)
    }

    /// A token by the name `place` with the keys of `roles`.
    pub(crate) fn token_parts(&self, place: &str, roles: &[KeyRole], store: Arc<dyn KeyStore>) -> TokenParts {
        let patience = Patience {
            backoff: Backoff { first_ms: 5, limit_ms: 20 },
            pin_poll: Duration::from_millis(5),
            pin_file: Some(self.dir.path().join("pin")),
        };
        TokenParts { place: place.to_owned(), roles: roles.iter().copied().collect(), store, patience }
    }

    /// A broker that has not looked at its tokens; `loads` are lines of the table of loads.
    pub(crate) fn with_tokens(
        &self,
        tokens: Vec<TokenParts>,
        loads: &str,
        sink: impl Sink + 'static,
        users: &str,
    ) -> Caller {
        self.with_bounds(tokens, loads, sink, users, Bounds::default())
    }

    /// The same with other bounds of what one caller may write.
    pub(crate) fn with_bounds(
        &self,
        tokens: Vec<TokenParts>,
        loads: &str,
        sink: impl Sink + 'static,
        users: &str,
        bounds: Bounds,
    ) -> Caller {
        let path = self.dir.path();
        let settings = AuditSettings { journal_socket: path.join("no-journald"), file: path.join("journal.jsonl") };
        let keys = self.runtime.block_on(Keys::open(&path.join("keys.db"), StoreSettings::default())).unwrap();
        keys.load().unwrap();
        let parts = Parts {
            config: config(path, users),
            policy: KeyPolicy::load(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/key-policy.toml"))).unwrap(),
            keys,
            tokens,
            roles: RoleTokens::parse(&format!("default = 'tpm'\n[signatures-per-second]\n{loads}")).unwrap(),
            measure: Duration::from_millis(10),
            record: SignatureRecord::start(sink, path.join("record.jsonl"), 64).unwrap(),
            caller_day_bytes: bounds.caller_day_bytes,
            auditor: Arc::new(Auditor::open("casemate-keyd", &settings).unwrap()),
            audited_refusals: NonZeroU32::new(bounds.audited_refusals).unwrap(),
            limits: JudgeLimits::default(),
        };
        Caller(Arc::new(Broker::new(&Passed::testing(), parts)))
    }

    /// The audit trail.
    pub(crate) fn journal(&self) -> String {
        fs::read_to_string(self.dir.path().join("journal.jsonl")).unwrap_or_default()
    }

    /// How often `event` stands in the audit trail.
    pub(crate) fn audited(&self, event: &str) -> usize {
        self.journal().matches(&format!("\"CASEMATE_EVENT\":\"{event}\"")).count()
    }

    /// The record of signatures.
    pub(crate) fn recorded(&self) -> String {
        fs::read_to_string(self.dir.path().join("record.jsonl")).unwrap()
    }
}

pub(crate) fn config(folder: &Path, users: &str) -> Config {
    let path = folder.join("casemate.toml");
    fs::write(&path, format!("[users]\n{users}")).unwrap();
    Config::load(&path).unwrap()
}

/// The broker, asked in the ways of its callers.
#[derive(Clone)]
pub(crate) struct Caller(pub(crate) Arc<Broker>);

impl Caller {
    /// One attempt of the first token.
    pub(crate) fn attempt(&self) -> Result<(), HsmError> {
        self.0.keepers()[0].attempt()
    }

    pub(crate) fn bring_back(&self) -> Result<(), HsmError> {
        self.0.keepers()[0].bring_back()
    }

    pub(crate) fn until_lost(&self) {
        self.0.keepers()[0].until_lost();
    }

    /// As a connection does, on this thread: no token of these tests keeps it.
    pub(crate) fn ask(&self, peer: Peer, request: Request) -> Response {
        let (tell, told) = mpsc::channel();
        self.0.handle(peer, request, Box::new(move |response, _| tell.send(response).unwrap()));
        told.recv().unwrap()
    }

    pub(crate) fn generate(&self, peer: Peer, role: KeyRole) -> Result<(KeyRecord, bool), Refusal> {
        match self.ask(peer, Request::Generate { role }) {
            Response::Generated { key, made } => Ok((key, made)),
            Response::Refused(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn rekey(&self, peer: Peer, role: KeyRole) -> Result<(KeyRecord, bool), Refusal> {
        match self.ask(peer, Request::Rekey { role }) {
            Response::Generated { key, made } => Ok((key, made)),
            Response::Refused(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn retire(&self, peer: Peer, key: &KeyRecord) -> Result<KeyRecord, Refusal> {
        match self.ask(peer, Request::Retire { role: key.role, fingerprint: key.fingerprint.clone() }) {
            Response::Retired(key) => Ok(key),
            Response::Refused(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn key(&self, peer: Peer, role: KeyRole) -> Result<KeyRecord, Refusal> {
        match self.ask(peer, Request::Key { role, fingerprint: None }) {
            Response::Key(key) => Ok(key),
            Response::Refused(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn status(&self, peer: Peer) -> Result<Status, Refusal> {
        match self.ask(peer, Request::Status) {
            Response::Status(status) => Ok(status),
            Response::Refused(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn sign(
        &self,
        peer: Peer,
        role: KeyRole,
        scheme: SignatureScheme,
        purpose: Purpose,
        message: &[u8],
    ) -> Result<Vec<u8>, Refusal> {
        self.sign_named(peer, (role, None), scheme, purpose, message)
    }

    pub(crate) fn sign_named(
        &self,
        peer: Peer,
        (role, key): (KeyRole, Option<String>),
        scheme: SignatureScheme,
        purpose: Purpose,
        message: &[u8],
    ) -> Result<Vec<u8>, Refusal> {
        let request = SignRequest { role, key, scheme, purpose, message: message.to_vec() };
        match self.ask(peer, Request::Sign(request)) {
            Response::Signature(signature) => Ok(signature),
            Response::Refused(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    /// A TLS 1.3 handshake of tftp with the elliptic-curve key: the cheapest signature there is.
    pub(crate) fn handshake(&self) -> Result<Vec<u8>, Refusal> {
        let scheme = SignatureScheme::EcdsaP384Sha384;
        self.sign(TFTP, KeyRole::CallManagerEcdsa, scheme, Purpose::TlsHandshake, &tls13(48))
    }

    /// Makes the key of `role` and its certificate, as certmgr does.
    pub(crate) fn identity(&self, role: KeyRole) -> CertificateFacts {
        let (record, _) = self.generate(CERTMGR, role).unwrap();
        let signer = self.signer(CERTMGR, record, Purpose::SelfSigned);
        let der = casemate_pki::self_signed(&identity_profile(role, "casemate"), &signer)
            .unwrap_or_else(|error| panic!("{error}: {:?}", signer.refusal()));
        CertificateFacts::parse(&der).unwrap()
    }

    pub(crate) fn signer(&self, peer: Peer, record: KeyRecord, purpose: Purpose) -> BrokerSigner {
        let public_key = casemate_pki::SpkiFacts::parse(&record.spki_der).unwrap().public_key;
        BrokerSigner { caller: self.clone(), peer, record, purpose, public_key, refused: Mutex::default() }
    }
}

pub(crate) fn identity_profile(role: KeyRole, organization: &str) -> IdentityProfile {
    identity_profile_from(role, organization, OffsetDateTime::now_utc())
}

/// The same, valid from `start`.
pub(crate) fn identity_profile_from(role: KeyRole, organization: &str, start: OffsetDateTime) -> IdentityProfile {
    let subject = SubjectSettings {
        organization: Some(organization.to_owned()),
        country: Some("CH".to_owned()),
        ..SubjectSettings::default()
    };
    IdentityProfile::new(role, "cm.example.net", subject, start).unwrap()
}

pub(crate) fn tls13(hash: usize) -> Vec<u8> {
    [&[b' '; 64][..], b"TLS 1.3, server CertificateVerify\0", &vec![7; hash]].concat()
}

/// A key behind the broker as rcgen wants one. Keeps why it was refused, for rcgen's error does not.
pub(crate) struct BrokerSigner {
    caller: Caller,
    peer: Peer,
    record: KeyRecord,
    pub(crate) purpose: Purpose,
    public_key: Vec<u8>,
    refused: Mutex<Option<Refusal>>,
}

impl BrokerSigner {
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        self.refused.lock().unwrap().clone()
    }
}

impl PublicKeyData for BrokerSigner {
    fn der_bytes(&self) -> &[u8] {
        &self.public_key
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match self.record.algorithm.rsa_bits() {
            Some(_) => &rcgen::PKCS_RSA_SHA256,
            None => &rcgen::PKCS_ECDSA_P384_SHA384,
        }
    }
}

impl SigningKey for BrokerSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let scheme = match self.record.algorithm.rsa_bits() {
            Some(_) => SignatureScheme::RsaPkcs1Sha256,
            None => SignatureScheme::EcdsaP384Sha384,
        };
        let key = (self.record.role, Some(self.record.fingerprint.clone()));
        self.caller.sign_named(self.peer, key, scheme, self.purpose.clone(), message).map_err(|refusal| {
            *self.refused.lock().unwrap() = Some(refusal);
            rcgen::Error::RemoteKeyError
        })
    }
}

/// When the process is to die within a generation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Crash {
    Before,
    After,
    /// It lives on, and finds another token in the slot when the generation has ended.
    Swapped,
}

/// A token under a process that dies within its next generation: whoever made the call never learns how it ended.
pub(crate) struct Dying {
    pub(crate) inner: Arc<dyn KeyStore>,
    pub(crate) crash: Crash,
    /// What the caller is told, in the place of silence.
    pub(crate) error: fn() -> HsmError,
    swapped: AtomicBool,
}

impl Dying {
    pub(crate) fn new(inner: Arc<dyn KeyStore>, crash: Crash, error: fn() -> HsmError) -> Self {
        Self { inner, crash, error, swapped: AtomicBool::new(false) }
    }
}

pub(crate) fn died() -> HsmError {
    HsmError::Device { token: "FAKE1".into(), operation: "C_GenerateKeyPair".into(), detail: "killed".into() }
}

impl KeyStore for Dying {
    fn token(&self) -> Result<TokenInfo, HsmError> {
        let mut info = self.inner.token()?;
        if self.swapped.load(Ordering::SeqCst) {
            info.serial = "FAKE2".to_owned();
        }
        Ok(info)
    }

    fn generate(&self, id: KeyId, label: &str, spec: KeySpec) -> Result<PublicKey, HsmError> {
        match self.crash {
            Crash::Before => Err((self.error)()),
            Crash::After => self.inner.generate(id, label, spec).and(Err((self.error)())),
            Crash::Swapped => {
                self.swapped.store(true, Ordering::SeqCst);
                self.inner.generate(id, label, spec)
            }
        }
    }

    fn inspect(&self, id: KeyId, spec: Option<KeySpec>) -> Result<KeyState, HsmError> {
        self.inner.inspect(id, spec)
    }

    fn remove_half(&self, id: KeyId) -> Result<(), HsmError> {
        self.inner.remove_half(id)
    }

    fn keys(&self) -> Result<Vec<StoredKey>, HsmError> {
        self.inner.keys()
    }

    fn sign(&self, id: KeyId, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, HsmError> {
        self.inner.sign(id, scheme, message)
    }

    fn measure(&self, algorithm: KeyAlgorithm, duration: Duration) -> Result<SignatureRate, HsmError> {
        self.inner.measure(algorithm, duration)
    }

    fn reconnect(&self) -> Result<(), HsmError> {
        self.inner.reconnect()
    }
}
