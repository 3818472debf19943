//! A TVS connection over a pipe in memory, and once over TLS on the loopback interface.
// Clippy's exemption for tests does not reach the helpers beside them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use casemate_audit::{AuditSettings, Auditor};
use casemate_hsm_api::KeyRole;
use casemate_policy::{Mode, TlsProfile};
use casemate_post::Passed;
use casemate_runtime::{
    listener::{self, Gate, Limits},
    refusals::{Refusals, WINDOW},
};
use casemate_tvs::{
    answers::Answers,
    codec::{Message, decode},
    connection::Service,
    request::VerifyRequest,
    settings::Settings,
    trust::{TrustStore, Trusted, roles_of},
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{PrivateKeyDer, ServerName},
    sign::{CertifiedKey, SingleCertAndKey},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout,
};
use tokio_rustls::TlsConnector;

const DEVICE: &str = "CP-8841-SEP001122334455";

struct Lab {
    folder: TempDir,
    journal: PathBuf,
    store: watch::Sender<Arc<TrustStore>>,
    service: Arc<Service>,
    auditor: Arc<Auditor>,
}

fn store(certificate: &[u8]) -> Arc<TrustStore> {
    let roles = roles_of(KeyRole::CallManager);
    Arc::new(TrustStore::new([Trusted { der: certificate.to_vec(), roles, not_before: 0, not_after: i64::MAX }]))
}

impl Lab {
    fn new(settings: Settings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let journal = folder.path().join("journal.jsonl");
        let audit = AuditSettings { journal_socket: folder.path().join("absent"), file: journal.clone() };
        let auditor = Arc::new(Auditor::open("casemate-tvs", &audit).unwrap());
        let (sender, trust) = watch::channel(store(b"callmanager"));
        let refusals = Refusals::new("tvs", settings.audited_refusals, WINDOW, Arc::clone(&auditor));
        let answers = Answers::new(settings.audited_answers, WINDOW, &auditor);
        let service = Arc::new(Service { trust, answers, refusals, settings });
        Self { folder, journal, store: sender, service, auditor }
    }

    fn connect(&self) -> DuplexStream {
        let (phone, server) = duplex(4096);
        let service = Arc::clone(&self.service);
        tokio::spawn(async move { service.connection(server, "192.0.2.7:1".into()).await });
        phone
    }

    fn trail(&self) -> String {
        fs::read_to_string(&self.journal).unwrap()
    }
}

fn question(certificate: &[u8], session: u32) -> Vec<u8> {
    VerifyRequest { device: DEVICE.into(), certificate: certificate.to_vec() }.encode(session).unwrap()
}

async fn answer(from: &mut (impl AsyncRead + Unpin)) -> Message {
    let mut bytes = Vec::new();
    loop {
        if let Some((message, _)) = decode(&bytes, 4096).unwrap() {
            return message;
        }
        let read = timeout(Duration::from_secs(10), from.read_buf(&mut bytes)).await.unwrap().unwrap();
        assert_ne!(read, 0, "closed without an answer");
    }
}

/// The status of an answer.
fn valid(message: &Message) -> bool {
    message.elements.iter().find(|element| element.tag == 7).unwrap().value == [0]
}

async fn closed(phone: &mut DuplexStream) -> bool {
    let mut rest = Vec::new();
    timeout(Duration::from_secs(10), phone.read_to_end(&mut rest)).await.unwrap().unwrap();
    rest.is_empty()
}

#[tokio::test]
async fn answers_follow_the_store_within_a_connection_and_are_audited() {
    let lab = Lab::new(Settings::default());
    let mut phone = lab.connect();
    phone.write_all(&question(b"callmanager", 0x0a0b_0c0d)).await.unwrap();
    let first = answer(&mut phone).await;
    assert!(valid(&first));
    assert_eq!(first.session, 0x0a0b_0c0d);
    assert_eq!(first.elements[1].value, [0, 2]);

    lab.store.send_replace(store(b"another"));
    phone.write_all(&question(b"callmanager", 2)).await.unwrap();
    let second = answer(&mut phone).await;
    assert_eq!((valid(&second), second.elements.len()), (false, 1));

    let trail = lab.trail();
    assert_eq!(trail.matches("CertificateVerified").count(), 2, "{trail}");
    assert!(trail.contains(DEVICE) && trail.contains("SAST,CCM+TFTP"), "{trail}");
    // Source: `printf callmanager | sha256sum`.
    assert!(trail.contains("853fdb51447a24509df571c2827b50b7cfd2f31bda10e7c7cd71a657f2db414f"), "{trail}");
}

#[tokio::test]
async fn a_question_in_ten_writes_is_answered() {
    let lab = Lab::new(Settings::default());
    let mut phone = lab.connect();
    let bytes = question(b"callmanager", 1);
    for piece in bytes.chunks(bytes.len().div_ceil(10)) {
        phone.write_all(piece).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(valid(&answer(&mut phone).await));
}

#[tokio::test]
async fn a_wrong_length_closes_and_the_service_stays() {
    let lab = Lab::new(Settings::default());
    let mut phone = lab.connect();
    phone.write_all(b"\x57\x01\x01\x00\x00\x00\x00\x01\xff\xff").await.unwrap();
    assert!(closed(&mut phone).await);
    let mut phone = lab.connect();
    let mut bytes = question(b"callmanager", 1);
    bytes[11] = 0xff;
    phone.write_all(&bytes).await.unwrap();
    assert!(closed(&mut phone).await);
    assert_eq!(lab.trail().matches("ProtocolRefused").count(), 2);
    let mut phone = lab.connect();
    phone.write_all(&question(b"callmanager", 1)).await.unwrap();
    assert!(valid(&answer(&mut phone).await));
}

#[tokio::test]
async fn a_message_cut_by_the_end_of_the_connection_is_audited() {
    let lab = Lab::new(Settings::default());
    let mut phone = lab.connect();
    phone.write_all(&question(b"callmanager", 1)[..15]).await.unwrap();
    phone.shutdown().await.unwrap();
    assert!(closed(&mut phone).await);
    assert!(lab.trail().contains("closed after 15 bytes"), "{}", lab.trail());
}

#[tokio::test]
async fn drops_of_bytes_do_not_prolong_a_message() {
    let lab = Lab::new(Settings { message_ms: 100, idle_ms: 60_000, ..Settings::default() });
    let mut phone = lab.connect();
    let bytes = question(&[7; 500], 1);
    let mut written = 0;
    for byte in &bytes {
        if phone.write_all(&[*byte]).await.is_err() {
            break;
        }
        written += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(written < 60, "{written}");
    assert!(lab.trail().contains("end of a question"), "{}", lab.trail());
}

#[tokio::test]
async fn an_idle_connection_ends() {
    let lab = Lab::new(Settings { idle_ms: 50, ..Settings::default() });
    let mut phone = lab.connect();
    assert!(closed(&mut phone).await);
    assert!(lab.trail().contains("next question"), "{}", lab.trail());
}

#[tokio::test]
async fn strangers_leave_a_bounded_trail() {
    let lab = Lab::new(Settings { audited_refusals: 3.try_into().unwrap(), idle_ms: 50, ..Settings::default() });
    for _ in 0..10 {
        let mut phone = lab.connect();
        phone.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert!(closed(&mut phone).await);
    }
    assert!(closed(&mut lab.connect()).await);
    assert_eq!(lab.trail().lines().count(), 3, "{}", lab.trail());
    // What is answered is recorded all the same.
    let mut phone = lab.connect();
    phone.write_all(&question(b"callmanager", 1)).await.unwrap();
    assert!(valid(&answer(&mut phone).await));
    assert!(lab.trail().contains("CertificateVerified"), "{}", lab.trail());
}

#[tokio::test]
async fn one_client_cannot_fill_the_trail_with_questions_and_hides_nothing() {
    let lab = Lab::new(Settings { audited_answers: 3.try_into().unwrap(), ..Settings::default() });
    let mut phone = lab.connect();
    for number in 0..20 {
        phone.write_all(&question(b"callmanager", number)).await.unwrap();
        assert!(valid(&answer(&mut phone).await));
    }
    // Answers of the other kind have room of their own.
    for number in 0..10 {
        phone.write_all(&question(b"a stranger's", number)).await.unwrap();
        assert!(!valid(&answer(&mut phone).await));
    }
    drop(phone);
    let listed = |trail: &str, valid: &str| {
        let event = |line: &&str| line.contains("\"CertificateVerified\"") && line.contains(valid);
        trail.lines().filter(event).count()
    };
    let (yes, no) = ("\"CASEMATE_VALID\":\"true\"", "\"CASEMATE_VALID\":\"false\"");
    assert_eq!((listed(&lab.trail(), yes), listed(&lab.trail(), no)), (3, 3), "{}", lab.trail());
    assert_eq!(lab.trail().lines().count(), 6, "{}", lab.trail());
    // The rest is counted, at the latest when the service ends.
    let (journal, _folder) = (lab.journal.clone(), lab.folder);
    timeout(Duration::from_secs(10), async {
        while Arc::strong_count(&lab.service) > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    drop(lab.service);
    let trail = fs::read_to_string(journal).unwrap();
    for (kind, count) in [("valid", 17), ("not valid", 7)] {
        let said = format!("tvs: {count} more of CertificateVerified, {kind} not listed (audited-answers)");
        assert!(trail.contains(&said), "{said}: {trail}");
    }
}

#[tokio::test]
async fn a_phone_asks_over_tls() {
    let lab = Lab::new(Settings::default());
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["casemate".into()]).unwrap().self_signed(&key).unwrap();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let signing =
        provider.key_provider.load_private_key(PrivateKeyDer::try_from(key.serialize_der()).unwrap()).unwrap();
    let resolver = SingleCertAndKey::from(CertifiedKey::new(vec![certificate.der().clone()], signing));
    let tls = TlsProfile::new(&Passed::testing(), Mode::Fips).server(Arc::new(resolver), 16).unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let gate = Gate::new("tvs", Limits::default(), Arc::clone(&lab.auditor));
    let service = Arc::clone(&lab.service);
    tokio::spawn(listener::serve_tls(socket, gate, tls, move |stream, peer| {
        let service = Arc::clone(&service);
        async move { service.connection(stream, peer.to_string()).await }
    }));

    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("casemate").unwrap();
    let mut phone = TlsConnector::from(Arc::new(client)).connect(name, tcp).await.unwrap();
    phone.write_all(&question(b"callmanager", 1)).await.unwrap();
    assert!(valid(&answer(&mut phone).await));
    phone.write_all(&question(b"stranger", 2)).await.unwrap();
    assert!(!valid(&answer(&mut phone).await));
}
