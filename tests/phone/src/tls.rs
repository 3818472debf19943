//! TLS as a phone speaks it: no chains, no names; a server is whoever holds the key of a certificate in the trust list.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    WebPkiSupportedAlgorithms, default_fips_provider, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

use crate::error::{PhoneError, Result};

/// Which versions of TLS the phone offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum TlsVersions {
    /// 1.2 and 1.3.
    #[default]
    Both,
    /// 1.2 alone, as older phones do.
    #[value(name = "1.2")]
    Only12,
    /// 1.3 alone.
    #[value(name = "1.3")]
    Only13,
}

impl TlsVersions {
    fn offered(self) -> &'static [&'static rustls::SupportedProtocolVersion] {
        static ONLY_12: [&rustls::SupportedProtocolVersion; 1] = [&rustls::version::TLS12];
        static ONLY_13: [&rustls::SupportedProtocolVersion; 1] = [&rustls::version::TLS13];
        match self {
            Self::Both => rustls::ALL_VERSIONS,
            Self::Only12 => &ONLY_12,
            Self::Only13 => &ONLY_13,
        }
    }
}

/// Where a service is and how long one exchange with it may take.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The service's name, for errors.
    pub service: &'static str,
    /// Host name or address.
    pub host: String,
    /// TCP or UDP port.
    pub port: u16,
    /// Time for the whole exchange, connecting included.
    pub limit: Duration,
}

impl Endpoint {
    /// The first address of the host.
    ///
    /// # Errors
    /// [`PhoneError::NoAddress`].
    pub fn address(&self) -> Result<SocketAddr> {
        let failed = |source| PhoneError::NoAddress { host: self.host.clone(), source };
        let mut addresses = (self.host.as_str(), self.port).to_socket_addrs().map_err(failed)?;
        addresses.next().ok_or_else(|| failed(io::ErrorKind::NotFound.into()))
    }

    /// Opens a TCP connection whose reads and writes end when the time limit does.
    ///
    /// # Errors
    /// [`PhoneError::NoAddress`] or [`PhoneError::Connect`].
    pub fn connect(&self) -> Result<Timed> {
        let address = self.address()?;
        let deadline = Instant::now() + self.limit;
        let stream = TcpStream::connect_timeout(&address, self.limit)
            .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
            .map_err(|source| PhoneError::Connect { service: self.service, address, source })?;
        Ok(Timed { stream, deadline })
    }

    /// Opens a TLS connection; the server must present one of `certificates`, byte for byte.
    ///
    /// # Errors
    /// What [`Endpoint::connect`] fails with, [`PhoneError::TlsSettings`], and what the handshake fails with:
    /// [`PhoneError::ServerCertificate`], [`PhoneError::TimedOut`], [`PhoneError::Connection`].
    pub fn connect_tls(&self, versions: TlsVersions, certificates: Vec<Vec<u8>>) -> Result<TlsStream> {
        let connection = self.tls_client(versions, certificates)?;
        let mut stream = StreamOwned::new(connection, self.connect()?);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).map_err(|source| self.failed(source))?;
        }
        Ok(stream)
    }

    /// The client side of a handshake that has not begun.
    ///
    /// # Errors
    /// [`PhoneError::TlsSettings`].
    pub fn tls_client(&self, versions: TlsVersions, certificates: Vec<Vec<u8>>) -> Result<ClientConnection> {
        let settings = |why: rustls::Error| PhoneError::TlsSettings(why.to_string());
        let provider = Arc::new(default_fips_provider());
        let verifier = Pinned { certificates, algorithms: provider.signature_verification_algorithms };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions.offered())
            .map_err(settings)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        if !config.fips() {
            return Err(PhoneError::TlsSettings("the TLS library does not call these settings FIPS".to_owned()));
        }
        let name = ServerName::try_from(self.host.clone())
            .map_err(|_| PhoneError::TlsSettings(format!("{} is neither a host name nor an address", self.host)))?;
        ClientConnection::new(Arc::new(config), name).map_err(settings)
    }

    /// Names the cause of a failed read or write.
    #[must_use]
    pub fn failed(&self, source: io::Error) -> PhoneError {
        let refused = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()).is_some_and(|error| {
            matches!(error, rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        });
        match source.kind() {
            _ if refused => PhoneError::ServerCertificate { service: self.service },
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => PhoneError::TimedOut { service: self.service },
            _ => PhoneError::Connection { service: self.service, source },
        }
    }
}

/// A TLS connection over a TCP connection with a deadline.
pub type TlsStream = StreamOwned<ClientConnection, Timed>;

/// A TCP connection that fails with [`io::ErrorKind::TimedOut`] once its deadline has passed.
#[derive(Debug)]
pub struct Timed {
    stream: TcpStream,
    deadline: Instant,
}

impl Timed {
    /// Replaces the deadline by one that is `limit` from now.
    pub fn allow(&mut self, limit: Duration) {
        self.deadline = Instant::now() + limit;
    }

    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(buffer)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// Takes a server whose certificate is one of these, byte for byte, and proves that it holds the key.
#[derive(Debug)]
struct Pinned {
    certificates: Vec<Vec<u8>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        if self.certificates.iter().any(|known| known.as_slice() == end_entity.as_ref()) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
