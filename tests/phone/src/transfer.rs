//! Fetching files as phones do: HTTP on 6970 or TFTP on 69, and the configuration over HTTPS on 6971.

pub mod http;
pub mod tftp;

use crate::error::{PhoneError, Result};
use crate::tls::{Endpoint, TlsVersions};
use crate::tlv::record::{KeyKind, Role};
use crate::trust::TrustList;

/// Largest file that the phone fetches, in bytes.
pub const MAX_FILE: usize = crate::tlv::header::MAX_FILE;

/// How the phone fetches its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Via {
    /// As phones do: HTTP, or TFTP where nothing listens on the HTTP port; the configuration over HTTPS when the list
    /// has signer version 1.1.
    #[default]
    Auto,
    /// All by TFTP.
    Tftp,
    /// All by HTTP.
    Http,
    /// Lists by HTTP, the configuration over HTTPS.
    Https,
}

/// The three file services of one server.
#[derive(Debug, Clone)]
pub struct FileServer {
    /// TFTP, 69/udp.
    pub tftp: Endpoint,
    /// HTTP, 6970.
    pub http: Endpoint,
    /// HTTPS, 6971.
    pub https: Endpoint,
    /// Which of them to use.
    pub via: Via,
    /// TLS versions for the third.
    pub tls: TlsVersions,
}

impl FileServer {
    /// Fetches a file that carries its own signature.
    ///
    /// # Errors
    /// [`PhoneError::NotFound`], [`PhoneError::FileRefused`], or a failure of the connection.
    pub fn fetch(&self, name: &str) -> Result<Vec<u8>> {
        match self.via {
            Via::Tftp => tftp::fetch(&self.tftp, name, tftp::Options::default()),
            Via::Http | Via::Https => http::fetch(&self.http, name),
            Via::Auto => match http::fetch(&self.http, name) {
                Err(PhoneError::Connect { .. }) => tftp::fetch(&self.tftp, name, tftp::Options::default()),
                answer => answer,
            },
        }
    }

    /// Fetches the device's configuration and returns the XML that is proven to come from the server of `list`: by its
    /// signature, or over HTTPS by the server's certificate (there the name ends in `.sgn`, the body is unsigned).
    ///
    /// # Errors
    /// What [`FileServer::fetch`] and [`TrustList::open_signed`] fail with; over HTTPS
    /// [`PhoneError::ServerCertificate`] when the server's is no EC certificate in role TFTP of the list.
    pub fn fetch_config(&self, device: &str, list: &TrustList) -> Result<Vec<u8>> {
        let name = format!("{device}.cnf.xml.sgn");
        if self.via == Via::Https || (self.via == Via::Auto && list.offers_ec()) {
            return self.fetch_https(&name, list);
        }
        let file = self.fetch(&name)?;
        list.open_signed(&name, &file).map(<[u8]>::to_vec)
    }

    /// Fetches over HTTPS from the server that the list names in role TFTP with an EC key.
    ///
    /// # Errors
    /// As [`FileServer::fetch_config`] over HTTPS.
    pub fn fetch_https(&self, name: &str, list: &TrustList) -> Result<Vec<u8>> {
        let certificates = list
            .with_role(Role::Tftp)
            .filter(|record| matches!(record.key_kind, KeyKind::Ec(_)))
            .map(|record| record.certificate.clone())
            .collect();
        http::fetch_tls(&self.https, name, self.tls, certificates)
    }
}
