//! The trust store's files: the identity certificates that certmgr publishes.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use casemate_hsm_api::KeyRole;
use casemate_runtime::publish::Stamp;
use rustls_pki_types::{CertificateDer, pem::PemObject};

use crate::trust::{TrustStore, Trusted, roles_of};

/// A certificate file is no longer than this, in bytes.
const FILE_LIMIT: u64 = 64 * 1024;

/// A published certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file is there and cannot be read, or is over 64 KiB.
    #[error("certificate file: {0}")]
    Read(#[from] io::Error),
    /// It holds no PEM certificate.
    #[error("certificate file: {0}")]
    Pem(rustls_pki_types::pem::Error),
    /// The PEM holds no X.509 certificate.
    #[error("certificate file holds no X.509 certificate: {0}")]
    Certificate(String),
}

struct Watched {
    role: KeyRole,
    path: PathBuf,
    seen: Option<Stamp>,
    trusted: Option<Trusted>,
}

/// The identity certificates of a folder, looked at again and again.
pub struct Identities(Vec<Watched>);

impl Identities {
    /// Those of `folder`, one `<Role>.pem` for each key role. None is read before the first [`Identities::refresh`].
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        let watched =
            |role: KeyRole| Watched { role, path: folder.join(format!("{role}.pem")), seen: None, trusted: None };
        Self(KeyRole::ALL.map(watched).into())
    }

    /// Looks at every file; the trust store, if it is another than before. A certificate that was withdrawn, or whose file
    /// cannot be read any more, is trusted no longer. Blocks on the disk.
    pub fn refresh(&mut self) -> Option<TrustStore> {
        let changes = self.0.iter_mut().map(Watched::look).filter(|changed| *changed).count();
        (changes > 0).then(|| TrustStore::new(self.0.iter().filter_map(|watched| watched.trusted.clone())))
    }
}

impl Watched {
    /// Whether the certificate is another than before.
    fn look(&mut self) -> bool {
        let before = self.trusted.clone();
        match Stamp::of(&self.path) {
            Ok(stamp) if stamp == self.seen => return false,
            Ok(stamp) => {
                self.seen = stamp;
                self.trusted = stamp.and_then(|_| self.read());
            }
            Err(error) => {
                tracing::error!(role = %self.role, %error, "certificate not trusted: its file cannot be looked at");
                (self.seen, self.trusted) = (None, None);
            }
        }
        self.trusted != before
    }

    fn read(&mut self) -> Option<Trusted> {
        match load(&self.path, self.role) {
            Ok(trusted) => Some(trusted),
            Err(error) => {
                tracing::error!(role = %self.role, %error, "certificate not trusted");
                // A disk that fails once is asked again; a file that is no certificate is logged once a change.
                if matches!(error, IdentityError::Read(_)) {
                    self.seen = None;
                }
                None
            }
        }
    }
}

fn load(path: &Path, role: KeyRole) -> Result<Trusted, IdentityError> {
    if fs::metadata(path)?.len() > FILE_LIMIT {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge).into());
    }
    // The first certificate and no other: TVS trusts identities, not what stands above them (guide 2431).
    let der = CertificateDer::from_pem_slice(&fs::read(path)?).map_err(IdentityError::Pem)?;
    let (rest, certificate) =
        x509_parser::parse_x509_certificate(&der).map_err(|error| IdentityError::Certificate(error.to_string()))?;
    if !rest.is_empty() {
        return Err(IdentityError::Certificate("bytes after its end".into()));
    }
    let validity = certificate.validity();
    let (not_before, not_after) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    Ok(Trusted { roles: roles_of(role), not_before, not_after, der: der.to_vec() })
}

#[cfg(test)]
mod tests {
    use casemate_phonefile::Role;
    use casemate_runtime::publish::write_atomically;
    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::trust::Verdict;

    fn certificate(name: &str) -> (String, Vec<u8>) {
        let mut params = CertificateParams::new(vec![name.into()]).unwrap();
        params.not_before = time::OffsetDateTime::from_unix_timestamp(1_000).unwrap();
        params.not_after = time::OffsetDateTime::from_unix_timestamp(2_000).unwrap();
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        (certificate.pem(), certificate.der().to_vec())
    }

    fn publish(folder: &Path, role: KeyRole, content: &str) {
        write_atomically(&folder.join(format!("{role}.pem")), content.as_bytes(), 0o644).unwrap();
    }

    #[test]
    fn the_store_follows_the_files() {
        let dir = tempfile::tempdir().unwrap();
        let mut identities = Identities::new(dir.path());
        assert_eq!(identities.refresh(), None);
        let (pem, old) = certificate("capf");
        publish(dir.path(), KeyRole::Capf, &pem);
        let store = identities.refresh().unwrap();
        assert_eq!(store.verdict(&old, 1_500), Verdict::Valid { roles: vec![Role::Capf], seconds_left: 500 });
        assert_eq!(store.verdict(&old, 2_001), Verdict::OutOfDate);
        assert_eq!(identities.refresh(), None);

        let (pem, new) = certificate("capf");
        publish(dir.path(), KeyRole::Capf, &pem);
        let store = identities.refresh().unwrap();
        assert_eq!(store.verdict(&old, 1_500), Verdict::Unknown);
        assert!(matches!(store.verdict(&new, 1_500), Verdict::Valid { .. }));

        fs::remove_file(dir.path().join("CAPF.pem")).unwrap();
        assert_eq!(identities.refresh().unwrap(), TrustStore::default());
    }

    #[test]
    fn a_chain_gives_its_first_certificate_only() {
        let dir = tempfile::tempdir().unwrap();
        let ((pem, identity), (above, issuer)) = (certificate("tvs"), certificate("root"));
        publish(dir.path(), KeyRole::Tvs, &format!("{pem}{above}"));
        let store = Identities::new(dir.path()).refresh().unwrap();
        assert!(matches!(store.verdict(&identity, 1_500), Verdict::Valid { .. }));
        assert_eq!(store.verdict(&issuer, 1_500), Verdict::Unknown);
    }

    #[test]
    fn a_damaged_file_withdraws_its_certificate_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let mut identities = Identities::new(dir.path());
        let ((capf_pem, capf), (tvs_pem, tvs)) = (certificate("capf"), certificate("tvs"));
        publish(dir.path(), KeyRole::Capf, &capf_pem);
        publish(dir.path(), KeyRole::Tvs, &tvs_pem);
        assert_eq!(identities.refresh().unwrap().len(), 2);
        publish(dir.path(), KeyRole::Capf, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        let store = identities.refresh().unwrap();
        assert_eq!(store.verdict(&capf, 1_500), Verdict::Unknown);
        assert!(matches!(store.verdict(&tvs, 1_500), Verdict::Valid { .. }));
    }
}
