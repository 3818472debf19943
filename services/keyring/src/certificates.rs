use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use casemate_hsm_api::KeyRole;
use casemate_pki::CertificateFacts;
use casemate_runtime::publish::Watched;
use rustls::{
    pki_types::{CertificateDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::{Client, TlsKey};

/// A published certificate is no longer than this, in bytes.
const CERTIFICATE_LIMIT: u64 = 16 * 1024;

/// The certificates that a TLS server presents, each with its key in the token, read from where certmgr publishes them and
/// read again when they change. Of several, the first that the peer can verify is presented.
pub struct Certificates {
    client: Client,
    published: Mutex<Vec<Published>>,
    current: RwLock<Vec<Option<Arc<CertifiedKey>>>>,
}

/// Where one of them is published.
struct Published {
    role: KeyRole,
    file: Watched,
    /// Why it was not used when it was last looked at.
    refused: Option<String>,
}

impl Published {
    /// Takes note of why it is not used; whether that is news: a token may be away for days, and is looked for all the time.
    fn refuse(&mut self, reason: &str) -> bool {
        let is_news = self.refused.as_deref() != Some(reason);
        self.refused = Some(reason.to_owned());
        is_news
    }
}

impl Certificates {
    /// The certificates of `roles`, preferred first, published in `folder`. Nothing is presented before the first
    /// [`Certificates::refresh`].
    #[must_use]
    pub fn new(client: Client, folder: &Path, roles: &[KeyRole]) -> Arc<Self> {
        let watched = |role: &KeyRole| Watched::new(folder.join(format!("{role}.pem")), CERTIFICATE_LIMIT);
        let published =
            roles.iter().map(|role| Published { role: *role, file: watched(role), refused: None }).collect();
        Arc::new(Self { client, published: Mutex::new(published), current: RwLock::new(vec![None; roles.len()]) })
    }

    /// Looks for new certificates; blocks on the disk and the broker. A certificate that cannot be used (another key's, or the
    /// broker does not answer) leaves the one before it in place, is logged once for each reason, and is tried again at the next call.
    pub fn refresh(&self) {
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        for (place, one) in published.iter_mut().enumerate() {
            let before = one.file.clone();
            match one.file.changed().map_err(|error| error.to_string()).and_then(|pem| match pem {
                Some(pem) => self.certified(one.role, &pem).map(Some),
                None => Ok(None),
            }) {
                Ok(Some(certified)) => {
                    one.refused = None;
                    self.install(place, certified);
                }
                Ok(None) => {}
                Err(error) => {
                    one.file = before;
                    if one.refuse(&error) {
                        tracing::warn!(role = %one.role, error, "certificate not used");
                    }
                }
            }
        }
    }

    /// Whether every role has a certificate.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.current.read().unwrap_or_else(PoisonError::into_inner).iter().all(Option::is_some)
    }

    fn install(&self, place: usize, certified: Arc<CertifiedKey>) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = current.get_mut(place) {
            *slot = Some(certified);
        }
    }

    fn certified(&self, role: KeyRole, pem: &[u8]) -> Result<Arc<CertifiedKey>, String> {
        let certificate = CertificateDer::from_pem_slice(pem).map_err(|error| error.to_string())?;
        let facts = CertificateFacts::parse(&certificate).map_err(|error| error.to_string())?;
        let record = self.client.key_named(role, &facts.key_fingerprint()).map_err(|error| error.to_string())?;
        let certified = CertifiedKey::new(vec![certificate], Arc::new(TlsKey::new(self.client.clone(), record)));
        certified.keys_match().map_err(|error| error.to_string())?;
        Ok(Arc::new(certified))
    }
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Certificates")
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current
            .iter()
            .flatten()
            .find(|certified| certified.key.choose_scheme(hello.signature_schemes()).is_some())
            .map(Arc::clone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_news_once_until_there_is_another() {
        let file = Watched::new("CAPF.pem".into(), CERTIFICATE_LIMIT);
        let mut published = Published { role: KeyRole::Capf, file, refused: None };
        let told: Vec<_> =
            ["away", "away", "another key", "away", "away"].map(|reason| published.refuse(reason)).into();
        assert_eq!(told, [true, false, true, true, false]);
    }
}
