//! Listeners on free ports of the loopback address. Their threads end with the test.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use casemate_phone::tls::Endpoint;
use rustls::crypto::default_fips_provider;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::Identity;

pub(crate) type Tls = StreamOwned<ServerConnection, TcpStream>;

/// Serves every TCP connection in turn; returns the port.
pub(crate) fn tcp(mut serve: impl FnMut(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || listener.incoming().for_each(|stream| serve(stream.unwrap())));
    port
}

/// Serves every TLS connection in turn with the certificate of `identity`; a failed handshake serves nothing.
pub(crate) fn tls(identity: &Identity, mut serve: impl FnMut(&mut Tls) + Send + 'static) -> u16 {
    let certificate = CertificateDer::from(identity.certificate.clone());
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(identity.key.serialized_der().to_vec()));
    let provider = default_fips_provider();
    let key = provider.key_provider.load_private_key(key).unwrap();
    // Unlike `with_single_cert` this serves a certificate with a key that is not its own, as a thief would.
    let resolver = SingleCertAndKey::from(CertifiedKey::new(vec![certificate], key));
    let config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    let config = Arc::new(config);
    tcp(move |tcp| {
        let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), tcp);
        while stream.conn.is_handshaking() {
            if stream.conn.complete_io(&mut stream.sock).is_err() {
                return;
            }
        }
        serve(&mut stream);
        stream.conn.send_close_notify();
        let _ = stream.flush();
    })
}

/// The name that a GET asks for.
pub(crate) fn read_get(stream: &mut impl Read) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    Ok(head.strip_prefix("GET /").unwrap().split(' ').next().unwrap().to_owned())
}

/// 200 with the file, or 404.
pub(crate) fn write_answer(stream: &mut impl Write, file: Option<&[u8]>) -> io::Result<()> {
    let status = if file.is_some() { "200 OK" } else { "404 Not Found" };
    let body = file.unwrap_or_default();
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len())?;
    stream.write_all(body)?;
    stream.flush()
}

pub(crate) fn endpoint(service: &'static str, port: u16) -> Endpoint {
    Endpoint { service, host: "127.0.0.1".to_owned(), port, limit: Duration::from_secs(5) }
}
