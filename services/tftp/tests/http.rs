//! HTTP and HTTPS over real sockets on the loopback interface, spoken by hand.
// Clippy's exemption for tests does not reach the helpers beside them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{fs, net::SocketAddr, num::NonZeroU32, sync::Arc, time::Duration};

use casemate_audit::{AuditSettings, Auditor};
use casemate_policy::{Mode, TlsProfile};
use casemate_post::Passed;
use casemate_runtime::{
    listener::{self, Gate, Limits},
    publish::write_atomically,
    refusals::{Refusals, WINDOW},
};
use casemate_tftp::{
    files::{CacheLimits, Files},
    http::Server,
    name::Transport,
    settings::HttpSettings,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{PrivateKeyDer, ServerName},
    server::ResolvesServerCert,
    sign::{CertifiedKey, SingleCertAndKey},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsConnector;

struct Lab {
    folder: TempDir,
    server: SocketAddr,
}

/// A server certificate whose key is in this process, and a client that trusts it.
fn software_tls() -> (Arc<dyn ResolvesServerCert>, ClientConfig) {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["casemate".into()]).unwrap().self_signed(&key).unwrap();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let signing = provider.key_provider.load_private_key(private).unwrap();
    let resolver = SingleCertAndKey::from(CertifiedKey::new(vec![certificate.der().clone()], signing));
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(resolver), client)
}

impl Lab {
    async fn start(settings: HttpSettings, tls: Option<Arc<dyn ResolvesServerCert>>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let published = folder.path().join("public");
        fs::create_dir(&published).unwrap();
        for (name, content) in [
            ("ITLFile.tlv", &b"the list"[..]),
            ("SEP001122334455.cnf.xml", b"<bare/>"),
            ("SEP001122334455.cnf.xml.sgn", b"<signed/>"),
        ] {
            write_atomically(&published.join(name), content, 0o644).unwrap();
        }
        let audit =
            AuditSettings { journal_socket: folder.path().join("absent"), file: folder.path().join("journal.jsonl") };
        let auditor = Arc::new(Auditor::open("casemate-tftp", &audit).unwrap());
        let cache = CacheLimits { bytes: 1 << 20, file_bytes: 1 << 20, poll: Duration::ZERO };
        let server = Arc::new(Server {
            files: Arc::new(Files::new(&published, cache)),
            transport: if tls.is_some() { Transport::Https } else { Transport::Http },
            refusals: Refusals::new("http", NonZeroU32::new(100).unwrap(), WINDOW, Arc::clone(&auditor)),
            settings,
        });
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let gate = Gate::new("http", Limits::default(), auditor);
        match tls {
            None => tokio::spawn(listener::serve(socket, gate, move |stream, peer| {
                let server = Arc::clone(&server);
                async move { server.connection(stream, peer.to_string()).await }
            })),
            Some(resolver) => {
                let tls = TlsProfile::new(&Passed::testing(), Mode::Fips).server(resolver, 16).unwrap();
                tokio::spawn(listener::serve_tls(socket, gate, tls, move |stream, peer| {
                    let server = Arc::clone(&server);
                    async move { server.connection(stream, peer.to_string()).await }
                }))
            }
        };
        Self { folder, server: address }
    }

    async fn plain() -> Self {
        Self::start(HttpSettings::default(), None).await
    }

    async fn ask(&self, request: &str) -> String {
        exchange(TcpStream::connect(self.server).await.unwrap(), request).await
    }

    async fn get(&self, path: &str) -> String {
        self.ask(&get(path)).await
    }

    async fn trail_with(&self, text: &str) -> String {
        let trail = || fs::read_to_string(self.folder.path().join("journal.jsonl")).unwrap();
        for _ in 0..200 {
            if trail().contains(text) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        trail()
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
}

/// Sends `request` and reads to the end.
async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    String::from_utf8(answer).unwrap()
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("none")
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

fn field<'a>(answer: &'a str, name: &str) -> &'a str {
    answer.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).unwrap()
}

#[tokio::test]
async fn phones_get_signed_files_in_the_clear() {
    let lab = Lab::plain().await;
    let answer = lab.get("/ITLSEP001122334455.tlv").await;
    assert_eq!((status(&answer), body(&answer), field(&answer, "content-length")), ("200", "the list", "8"));
    let answer = lab.get("/SEP001122334455.cnf.xml.sgn").await;
    assert_eq!((status(&answer), body(&answer)), ("200", "<signed/>"));
    assert_eq!(status(&lab.get("/CTLSEP001122334455.tlv").await), "404");
    assert_eq!(lab.trail_with("").await, "");
    assert_eq!(status(&lab.get("/SEP001122334455.cnf.xml").await), "403");
    assert!(lab.trail_with("FileRefused").await.contains("HTTPS only"));
}

#[tokio::test]
async fn https_gives_the_bare_configuration() {
    let (resolver, client) = software_tls();
    let lab = Lab::start(HttpSettings::default(), Some(resolver)).await;
    let connector = TlsConnector::from(Arc::new(client));
    for name in ["SEP001122334455.cnf.xml.sgn", "SEP001122334455.cnf.xml"] {
        let tcp = TcpStream::connect(lab.server).await.unwrap();
        let stream = connector.connect(ServerName::try_from("casemate").unwrap(), tcp).await.unwrap();
        let answer = exchange(stream, &get(&format!("/{name}"))).await;
        assert_eq!((status(&answer), body(&answer), field(&answer, "content-type")), ("200", "<bare/>", "text/xml"));
    }
}

#[tokio::test]
async fn a_known_file_is_not_sent_again_until_it_changes() {
    let lab = Lab::plain().await;
    let answer = lab.get("/ITLFile.tlv").await;
    let tag = field(&answer, "etag").to_owned();
    let again = format!("GET /ITLFile.tlv HTTP/1.1\r\nHost: x\r\nIf-None-Match: {tag}\r\nConnection: close\r\n\r\n");
    let answer = lab.ask(&again).await;
    assert_eq!((status(&answer), body(&answer)), ("304", ""));
    write_atomically(&lab.folder.path().join("public/ITLFile.tlv"), b"another", 0o644).unwrap();
    let answer = lab.ask(&again).await;
    assert_eq!((status(&answer), body(&answer)), ("200", "another"));
    assert_ne!(field(&answer, "etag"), tag);
}

#[tokio::test]
async fn head_has_the_length_and_no_body() {
    let lab = Lab::plain().await;
    let answer = lab.ask("HEAD /ITLFile.tlv HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert_eq!((status(&answer), field(&answer, "content-length"), body(&answer)), ("200", "8", ""));
}

#[tokio::test]
async fn paths_methods_and_bodies_are_refused_and_audited() {
    let lab = Lab::plain().await;
    fs::write(lab.folder.path().join("secret"), b"key").unwrap();
    for path in ["/../secret", "/%2e%2e/secret", "//etc/passwd", "/public/ITLFile.tlv", "/ITLFile.tlv%00"] {
        assert_eq!(status(&lab.get(path).await), "403", "{path}");
    }
    for method in ["PUT", "DELETE", "OPTIONS"] {
        let answer = lab.ask(&format!("{method} /ITLFile.tlv HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await;
        assert_eq!((status(&answer), field(&answer, "allow")), ("405", "GET, HEAD"));
    }
    let trail = lab.trail_with("").await;
    assert_eq!(trail.matches("FileRefused").count(), 8, "{trail}");
    let with_body = "GET /ITLFile.tlv HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody";
    assert_eq!(status(&lab.ask(with_body).await), "400");
    assert!(lab.trail_with("ProtocolRefused").await.contains("body"));
}

#[tokio::test]
async fn requests_of_one_connection_are_counted() {
    let lab = Lab::start(HttpSettings { requests: 3, ..HttpSettings::default() }, None).await;
    let five = "GET /ITLFile.tlv HTTP/1.1\r\nHost: x\r\n\r\n".repeat(5);
    let answers = lab.ask(&five).await;
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 3, "{answers}");
    assert_eq!(answers.matches("connection: close").count(), 1, "{answers}");
}

#[tokio::test]
async fn a_header_that_never_ends_and_one_too_long_are_cut_off() {
    let lab = Lab::start(HttpSettings { header_ms: 100, ..HttpSettings::default() }, None).await;
    lab.ask("GET /ITLFile.tlv HTTP/1.1\r\nHost: ").await;
    assert!(lab.trail_with("ConnectionTimedOut").await.contains("request header"));
    let mut stream = TcpStream::connect(lab.server).await.unwrap();
    let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(20_000));
    let _ = stream.write_all(long.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await.unwrap();
    assert!(!answer.starts_with(b"HTTP/1.1 2"));
    assert!(lab.trail_with("ProtocolRefused").await.contains("ProtocolRefused"));
    assert_eq!(status(&lab.get("/ITLFile.tlv").await), "200");
}

#[tokio::test]
async fn a_connection_has_an_end_in_time() {
    let settings = HttpSettings { connection_ms: 200, ..HttpSettings::default() };
    let lab = Lab::start(settings, None).await;
    let mut stream = TcpStream::connect(lab.server).await.unwrap();
    let mut served = 0;
    let ended = timeout(Duration::from_secs(10), async {
        loop {
            let mut buffer = [0; 1024];
            if stream.write_all(b"GET /ITLFile.tlv HTTP/1.1\r\nHost: x\r\n\r\n").await.is_err() {
                break;
            }
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(_) => served += 1,
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    ended.await.unwrap();
    assert!((1..20).contains(&served), "{served}");
    assert!(lab.trail_with("ConnectionTimedOut").await.contains("connection-ms"));
}
