//! What a run of the phone is told.

use std::path::PathBuf;
use std::time::Duration;

use crate::capf::AuthString;
use crate::error::{PhoneError, Result};
use crate::identity::KeySpec;
use crate::tls::{Endpoint, TlsVersions};
use crate::transfer::{FileServer, Via};

/// Ports that the phone calls. For CAPF and TVS `None` means the configuration's port, or else the usual one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// TFTP over UDP, usually 69.
    pub tftp: u16,
    /// HTTP, usually 6970.
    pub http: u16,
    /// HTTPS, usually 6971.
    pub https: u16,
    /// CAPF, usually 3804.
    pub capf: Option<u16>,
    /// TVS, usually 2445.
    pub tvs: Option<u16>,
}

impl Default for Ports {
    fn default() -> Self {
        Self { tftp: 69, http: 6970, https: 6971, capf: None, tvs: None }
    }
}

impl Ports {
    /// The usual ports plus an offset: 20000 in the lab.
    #[must_use]
    pub fn shifted(offset: u16) -> Self {
        Self {
            tftp: offset.saturating_add(69),
            http: offset.saturating_add(6970),
            https: offset.saturating_add(6971),
            capf: Some(offset.saturating_add(3804)),
            tvs: Some(offset.saturating_add(2445)),
        }
    }
}

/// The answer that a question to TVS must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Expected {
    /// The certificate is valid.
    #[default]
    Valid,
    /// It is not.
    Invalid,
}

impl Expected {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Invalid => "invalid",
        }
    }
}

/// A certificate to ask TVS about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The certificate in DER.
    pub certificate: Vec<u8>,
    /// What TVS must say.
    pub expected: Expected,
}

/// Everything that a run of the phone is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The device's name, such as `SEP001122334455`.
    pub device: String,
    /// Host of every service. Hosts in the configuration are not called: a lab's are another machine's names.
    pub host: String,
    /// Ports of the services.
    pub ports: Ports,
    /// The phone's folder.
    pub state: PathBuf,
    /// The string that the user types in.
    pub string: Option<AuthString>,
    /// The key that CAPF must ask for; without it the phone makes what it is asked for.
    pub key: Option<KeySpec>,
    /// How files are fetched.
    pub via: Via,
    /// Newest CAPF version that the phone speaks, 1 to 3.
    pub capf_version: u8,
    /// TLS versions that the phone offers.
    pub tls: TlsVersions,
    /// What to ask TVS.
    pub question: Option<Question>,
    /// Time for one exchange with one service. An enrolment with a new RSA-4096 key takes seconds.
    pub limit: Duration,
}

impl Settings {
    /// A phone at the usual ports that asks nothing and has no string.
    #[must_use]
    pub fn new(device: &str, host: &str, state: PathBuf) -> Self {
        Self {
            device: device.to_owned(),
            host: host.to_owned(),
            ports: Ports::default(),
            state,
            string: None,
            key: None,
            via: Via::default(),
            capf_version: crate::capf::session::NEWEST_VERSION,
            tls: TlsVersions::default(),
            question: None,
            limit: Duration::from_secs(30),
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        let name = &self.device;
        if !(4..=15).contains(&name.len()) || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(PhoneError::Setting(format!("{name} is no device name: 4 to 15 letters and digits")));
        }
        if !(1..=crate::capf::session::NEWEST_VERSION).contains(&self.capf_version) {
            return Err(PhoneError::Setting("the CAPF version is 1, 2 or 3".to_owned()));
        }
        if self.limit.is_zero() {
            return Err(PhoneError::Setting("the time for an exchange is zero".to_owned()));
        }
        Ok(())
    }

    /// The file services.
    #[must_use]
    pub fn file_server(&self) -> FileServer {
        FileServer {
            tftp: self.endpoint("TFTP", self.ports.tftp),
            http: self.endpoint("HTTP", self.ports.http),
            https: self.endpoint("HTTPS", self.ports.https),
            via: self.via,
            tls: self.tls,
        }
    }

    /// CAPF, at the port of the settings, else of the configuration, else the usual one.
    #[must_use]
    pub fn capf(&self, configured: Option<u16>) -> Endpoint {
        self.endpoint("CAPF", self.ports.capf.or(configured).unwrap_or(3804))
    }

    /// TVS, likewise.
    #[must_use]
    pub fn tvs(&self, configured: Option<u16>) -> Endpoint {
        self.endpoint("TVS", self.ports.tvs.or(configured).unwrap_or(2445))
    }

    fn endpoint(&self, service: &'static str, port: u16) -> Endpoint {
        Endpoint { service, host: self.host.clone(), port, limit: self.limit }
    }
}
