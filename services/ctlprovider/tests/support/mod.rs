//! Identities with keys in this process, and a signer that counts and fails when told to.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rand::SystemRandom,
    rsa::KeySize,
    signature::{ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA512, RsaKeyPair},
};
use casemate_audit::{AuditSettings, Auditor};
use casemate_ctlprovider::{Identities, Sign};
use casemate_hsm_api::KeyRole;
use casemate_keyring::{KeyringError, Purpose, Refusal};
use casemate_pki::{CertificateFacts, IdentityProfile, SubjectSettings, self_signed};
use time::OffsetDateTime;

/// A role's RSA key, or ITLRecovery's and CallManager's where a test signs with both.
pub(crate) struct Signer {
    key: RsaKeyPair,
    /// Signatures so far.
    pub(crate) signed: AtomicUsize,
    /// Signatures that are made before the token goes away.
    pub(crate) left: AtomicUsize,
}

impl Sign for Signer {
    fn sign(&self, _: Purpose, message: &[u8]) -> Result<Vec<u8>, KeyringError> {
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err() {
            return Err(KeyringError::Refused(Refusal::Unavailable("token pulled".into())));
        }
        self.signed.fetch_add(1, Ordering::Relaxed);
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key.sign(&RSA_PKCS1_SHA512, &SystemRandom::new(), message, &mut signature).unwrap();
        Ok(signature)
    }
}

impl Signer {
    pub(crate) fn count(&self) -> usize {
        self.signed.load(Ordering::Relaxed)
    }
}

/// An RSA identity: its key and its certificate.
pub(crate) fn rsa(role: KeyRole) -> (Signer, CertificateFacts) {
    let key = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let pkcs8: Pkcs8V1Der<'_> = key.as_der().unwrap();
    let pair = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8.as_ref().to_vec().into(), &rcgen::PKCS_RSA_SHA256);
    let certificate = certificate(role, &pair.unwrap());
    (Signer { key, signed: AtomicUsize::new(0), left: AtomicUsize::new(usize::MAX) }, certificate)
}

fn ecdsa(role: KeyRole) -> CertificateFacts {
    let key = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING).unwrap();
    let pkcs8 = key.to_pkcs8v1().unwrap();
    let algorithm = &rcgen::PKCS_ECDSA_P384_SHA384;
    let pair = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8.as_ref().to_vec().into(), algorithm);
    certificate(role, &pair.unwrap())
}

fn certificate(role: KeyRole, key: &rcgen::KeyPair) -> CertificateFacts {
    let profile = IdentityProfile::new(role, "casemate", SubjectSettings::default(), OffsetDateTime::now_utc());
    CertificateFacts::parse(&self_signed(&profile.unwrap(), key).unwrap()).unwrap()
}

/// Every identity of a list, with the signers of lists and of files.
pub(crate) fn identities() -> (Identities, Signer, Signer) {
    let (list, recovery) = rsa(KeyRole::ItlRecovery);
    let (file, call_manager) = rsa(KeyRole::CallManager);
    let identities = Identities {
        recovery,
        call_manager,
        call_manager_ecdsa: ecdsa(KeyRole::CallManagerEcdsa),
        capf: rsa(KeyRole::Capf).1,
        tvs: rsa(KeyRole::Tvs).1,
    };
    (identities, list, file)
}

pub(crate) fn auditor(folder: &Path) -> Arc<Auditor> {
    let settings = AuditSettings { journal_socket: folder.join("none"), file: folder.join("journal.jsonl") };
    Arc::new(Auditor::open("casemate-ctlprovider", &settings).unwrap())
}

pub(crate) fn trail(folder: &Path) -> String {
    fs::read_to_string(folder.join("journal.jsonl")).unwrap()
}

/// A folder in `root`.
pub(crate) fn folder(root: &Path, name: &str) -> PathBuf {
    let path = root.join(name);
    fs::create_dir_all(&path).unwrap();
    path
}
