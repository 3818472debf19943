//! Where certificates come from.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use casemate_hsm_api::KeyRole;
use casemate_keyring::{Client, KeyRecord, KeyringError, Purpose, RoleSigner};
use casemate_pki::{CertificateFacts, DeviceProfile, PkiError, issue_device_certificate, random_serial};
use casemate_runtime::publish::Watched;
use rcgen::SigningKey;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use time::{Duration, OffsetDateTime};

use crate::DeviceName;

/// The published CAPF certificate is no longer than this, in bytes.
const CERTIFICATE_LIMIT: u64 = 16 * 1024;

/// How long before now an LSC begins: phones' clocks are set by others.
const BACKDATED: Duration = Duration::HOUR;

/// What is to be certified.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// For whom.
    pub device: DeviceName,
    /// The operation that allows it, for the key broker's audit trail.
    pub operation: i64,
    /// The device's key, checked.
    pub spki_der: Vec<u8>,
}

/// A signed certificate.
#[derive(Clone, Debug)]
pub struct Issued {
    /// Its serial.
    pub serial: [u8; 16],
    /// Its end.
    pub not_after: OffsetDateTime,
    /// X.509, DER.
    pub der: Vec<u8>,
}

/// There is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// certmgr has not published the CAPF certificate yet.
    #[error("no CAPF certificate is published; run `casemate provision`")]
    NotProvisioned,
    /// The published file is no certificate, or not one of the CAPF key.
    #[error("the published CAPF certificate cannot be used: {0}")]
    BadCertificate(String),
    /// The CAPF certificate has ended.
    #[error("the CAPF certificate ended at {not_after}; regenerate it")]
    Ended {
        /// When.
        not_after: OffsetDateTime,
    },
    /// The certificate cannot be built.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The key broker does not say which key is the CAPF key, or did not sign with it.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
}

/// Signs certificates for devices; blocks the thread while the token works.
pub trait Issuer: Send + Sync + 'static {
    /// Issues a certificate for `leaf`.
    ///
    /// # Errors
    /// Nothing was issued.
    fn issue(&self, leaf: &Leaf) -> Result<Issued, IssueError>;
}

/// The issuing certificate, and how long what it issues is valid.
#[derive(Clone, Debug)]
pub struct Authority {
    certificate: CertificateFacts,
    validity: Duration,
}

impl Authority {
    /// The authority of the certificate `der`, whose certificates are valid for `validity`.
    ///
    /// # Errors
    /// It is no certificate.
    pub fn new(der: &[u8], validity: Duration) -> Result<Self, PkiError> {
        Ok(Self { certificate: CertificateFacts::parse(der)?, validity })
    }

    /// Issues a certificate for `leaf`, signed by `key`, which must be the authority's. It ends with the authority at the latest:
    /// no verifier would take it longer.
    ///
    /// # Errors
    /// The authority has ended, or `key` did not sign.
    pub fn issue(&self, leaf: &Leaf, key: &impl SigningKey, now: OffsetDateTime) -> Result<Issued, IssueError> {
        let end = self.certificate.not_after;
        if end <= now {
            return Err(IssueError::Ended { not_after: end });
        }
        let serial = random_serial()?;
        let not_before = now - BACKDATED;
        let not_after = not_before.checked_add(self.validity).map_or(end, |own| own.min(end));
        let profile = DeviceProfile {
            device: leaf.device.as_str(),
            spki_der: &leaf.spki_der,
            issuer: &self.certificate,
            serial,
            not_before,
            not_after,
        };
        Ok(Issued { serial, not_after, der: issue_device_certificate(&profile, key)? })
    }
}

/// Issues with the CAPF key in the token, over the key broker, under the CAPF certificate that certmgr publishes.
pub struct KeydIssuer {
    client: Client,
    validity: Duration,
    published: Mutex<Watched>,
    current: RwLock<Option<Arc<(Authority, KeyRecord)>>>,
}

impl KeydIssuer {
    /// An issuer that looks for `CAPF.pem` in `folder`. It issues nothing before the first [`KeydIssuer::refresh`].
    #[must_use]
    pub fn new(client: Client, folder: &Path, validity: Duration) -> Self {
        let path = folder.join(format!("{}.pem", KeyRole::Capf));
        let published = Mutex::new(Watched::new(path, CERTIFICATE_LIMIT));
        Self { client, validity, published, current: RwLock::default() }
    }

    /// Looks for a new CAPF certificate; blocks on the disk and the broker. One that cannot be used leaves the one before it in
    /// place and is looked at again at the next call.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn refresh(&self) -> Result<(), IssueError> {
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        let mut looked_at = published.clone();
        let pem = looked_at.changed().map_err(|error| IssueError::BadCertificate(error.to_string()))?;
        if let Some(pem) = pem {
            let authority = self.authority(&pem)?;
            *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(authority));
        }
        *published = looked_at;
        Ok(())
    }

    /// Whether there is a CAPF certificate to issue under.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.current.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn authority(&self, pem: &[u8]) -> Result<(Authority, KeyRecord), IssueError> {
        let der = CertificateDer::from_pem_slice(pem).map_err(|error| IssueError::BadCertificate(error.to_string()))?;
        let authority = Authority::new(&der, self.validity)?;
        let record = self.client.key_named(KeyRole::Capf, &authority.certificate.key_fingerprint())?;
        if record.spki_der != authority.certificate.spki_der {
            return Err(IssueError::BadCertificate("it is of another key than the recorded CAPF key".into()));
        }
        Ok((authority, record))
    }
}

impl Issuer for KeydIssuer {
    fn issue(&self, leaf: &Leaf) -> Result<Issued, IssueError> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        let current = current.ok_or(IssueError::NotProvisioned)?;
        let (authority, record) = &*current;
        let purpose = Purpose::DeviceCertificate { device: leaf.device.to_string(), operation: leaf.operation };
        let signer = RoleSigner::new(self.client.clone(), record.clone(), purpose)
            .ok_or_else(|| IssueError::BadCertificate("the key broker's record of its key is unreadable".into()))?;
        authority
            .issue(leaf, &signer, OffsetDateTime::now_utc())
            // Why the broker did not sign says more than that the certificate was not built.
            .map_err(|error| signer.take_error().map_or(error, IssueError::Keyring))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::net::UnixListener, thread};

    use casemate_hsm_api::{Backup, KeyAlgorithm};
    use casemate_keyring::{ClientSettings, FRAMING, Refusal, Request, Response};
    use casemate_pki::{IdentityProfile, SubjectSettings, self_signed};
    use casemate_post::Passed;
    use casemate_runtime::{daemon::chain, peer::LocalServer};
    use rcgen::{KeyPair, PublicKeyData};

    use super::*;

    fn capf() -> (KeyPair, Vec<u8>) {
        let key = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let profile =
            IdentityProfile::new(KeyRole::Capf, "capf.test", SubjectSettings::default(), OffsetDateTime::now_utc());
        let der = self_signed(&profile.unwrap(), &key).unwrap();
        (key, der)
    }

    fn leaf() -> Leaf {
        let spki_der = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().subject_public_key_info();
        Leaf { device: "SEP001122334455".parse().unwrap(), operation: 1, spki_der }
    }

    #[test]
    fn a_validity_beyond_all_years_ends_with_the_authority() {
        let (key, der) = capf();
        let authority = Authority::new(&der, Duration::MAX).unwrap();
        let issued = authority.issue(&leaf(), &key, OffsetDateTime::now_utc()).unwrap();
        assert_eq!(issued.not_after, authority.certificate.not_after);
    }

    #[test]
    fn the_operator_is_told_why_the_broker_did_not_sign() {
        let (key, der) = capf();
        let dir = tempfile::tempdir().unwrap();
        let published = pem::encode(&pem::Pem::new("CERTIFICATE", der));
        fs::write(dir.path().join("CAPF.pem"), published).unwrap();
        let record = KeyRecord {
            role: KeyRole::Capf,
            algorithm: KeyAlgorithm::Rsa2048,
            backup: Backup::None,
            key_id: "00".repeat(16),
            token: "TEST1".into(),
            fingerprint: String::new(),
            spki_der: key.subject_public_key_info(),
        };
        let listener = UnixListener::bind(dir.path().join("keyd.sock")).unwrap();
        thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            while let Ok(Some(request)) = FRAMING.read::<Request>(&mut socket) {
                let answer = match request {
                    Request::Key { .. } => Response::Key(record.clone()),
                    _ => Response::Refused(Refusal::Policy("not this device".into())),
                };
                FRAMING.write(&mut socket, &answer).unwrap();
            }
        });
        let keyd = LocalServer::new(dir.path().join("keyd.sock"), dir_owner(dir.path()));
        let client = Client::new(&Passed::testing(), keyd, ClientSettings::default());
        let issuer = KeydIssuer::new(client, dir.path(), Duration::days(1));
        issuer.refresh().unwrap();
        let error = issuer.issue(&leaf()).unwrap_err();
        assert_eq!(chain(&error), "refused by the key policy: not this device");
    }

    /// This test's own user: it made the folder, and listens.
    fn dir_owner(dir: &Path) -> u32 {
        std::os::unix::fs::MetadataExt::uid(&fs::metadata(dir).unwrap())
    }
}
