use std::path::{Path, PathBuf};

use casemate_hsm_api::KeyRole;
use casemate_pki::CertificateFacts;
use casemate_runtime::{
    daemon::chain,
    publish::{Stamp, Watched},
};

use crate::CtlproviderError;

/// A published certificate is no longer than this, in bytes.
const CERTIFICATE_LIMIT: u64 = 16 * 1024;

/// The certificates that the trust list names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identities {
    /// Signs the list; SAST.
    pub recovery: CertificateFacts,
    /// Second SAST, call control, signs files.
    pub call_manager: CertificateFacts,
    /// Serves files over HTTPS 6971.
    pub call_manager_ecdsa: CertificateFacts,
    /// Enrolment.
    pub capf: CertificateFacts,
    /// Trust verification.
    pub tvs: CertificateFacts,
}

/// The certificates that certmgr publishes, looked at again and again.
#[derive(Debug)]
pub struct Certificates {
    places: Vec<Place>,
}

#[derive(Debug)]
struct Place {
    role: KeyRole,
    path: PathBuf,
    /// As of the last content that was a certificate.
    file: Watched,
    current: Option<CertificateFacts>,
    /// The file that was refused last, and why, so that it is told once.
    refused: Option<(Option<Stamp>, String)>,
}

impl Certificates {
    /// Those published in `folder`; none is read yet.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        let roles =
            [KeyRole::ItlRecovery, KeyRole::CallManager, KeyRole::CallManagerEcdsa, KeyRole::Capf, KeyRole::Tvs];
        let place = |role: KeyRole| {
            let path = folder.join(format!("{role}.pem"));
            Place { role, file: Watched::new(path.clone(), CERTIFICATE_LIMIT), path, current: None, refused: None }
        };
        Self { places: roles.map(place).into() }
    }

    /// Reads what changed. A certificate that cannot be read leaves the one before it in use, and is told to `refused` once a
    /// change of its file.
    ///
    /// # Errors
    /// The first that cannot be read, at every look until it can; the others are read all the same.
    pub fn look(&mut self, mut refused: impl FnMut(&CtlproviderError)) -> Result<(), CtlproviderError> {
        self.places.iter_mut().map(|place| place.look(&mut refused)).fold(Ok(()), Result::and)
    }

    /// All of them, once all are there.
    #[must_use]
    pub fn identities(&self) -> Option<Identities> {
        let of = |role| self.places.iter().find(|place| place.role == role)?.current.clone();
        Some(Identities {
            recovery: of(KeyRole::ItlRecovery)?,
            call_manager: of(KeyRole::CallManager)?,
            call_manager_ecdsa: of(KeyRole::CallManagerEcdsa)?,
            capf: of(KeyRole::Capf)?,
            tvs: of(KeyRole::Tvs)?,
        })
    }
}

impl Place {
    fn look(&mut self, refused: &mut impl FnMut(&CtlproviderError)) -> Result<(), CtlproviderError> {
        let stamp = Stamp::of(&self.path).ok().flatten();
        let Err(error) = self.read() else {
            self.refused = None;
            return Ok(());
        };
        let now = Some((stamp, chain(&error)));
        if self.refused != now {
            refused(&error);
            self.refused = now;
        }
        Err(error)
    }

    fn read(&mut self) -> Result<(), CtlproviderError> {
        let role = self.role;
        let read = |source| CtlproviderError::File { path: format!("{role}.pem").into(), source };
        // Counts as seen only when it is a certificate: until then it is read, and refused, at every look.
        let mut file = self.file.clone();
        if let Some(pem) = file.changed().map_err(read)? {
            let pem = pem::parse(pem).map_err(|source| CtlproviderError::Pem { role, source })?;
            let facts = CertificateFacts::parse(pem.contents());
            self.current = Some(facts.map_err(|source| CtlproviderError::Certificate { role, source })?);
            self.file = file;
        }
        Ok(())
    }
}
