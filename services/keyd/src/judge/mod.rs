//! Whether a message is what its purpose says. Pure: bytes and what is known of our own keys in, a verdict out.
//!
//! A key that signs for two purposes must never sign bytes of one that mean something in the other. Two things hold that
//! apart: each purpose has schemes of its own (on RSA keys), and each message is parsed as what it is for.

mod certificate;
mod list;
mod tls;

use casemate_hsm_api::{KeyAlgorithm, KeyRole, SignatureScheme};
use casemate_keyring::{MESSAGE_LIMIT, Purpose};
use casemate_phonefile::{Limits, PhoneFileError};
use casemate_pki::{PkiError, TbsFacts};
use serde::Deserialize;
use time::OffsetDateTime;

/// Limits of what is signed; `[keyd.limits]` of the settings.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct JudgeLimits {
    /// Longest validity of a phone's certificate in days; the default is five years, as long as CAPF's own.
    pub device_validity_days: u16,
    /// How far from now a phone's certificate may begin to be valid, in hours.
    pub device_start_hours: u16,
    /// How far from now an identity's own certificate may begin to be valid, in hours.
    pub identity_start_hours: u16,
    /// Sizes of lists and files.
    pub files: Limits,
}

impl Default for JudgeLimits {
    fn default() -> Self {
        Self {
            device_validity_days: 5 * 365,
            device_start_hours: 24,
            identity_start_hours: 24,
            files: Limits::default(),
        }
    }
}

/// The public halves of our own identities, by role.
#[derive(Clone, Debug, Default)]
pub struct Identities {
    roles: Vec<KeyRole>,
    spkis: Vec<Vec<u8>>,
}

impl Identities {
    /// Whose key this is, if it is one of ours.
    fn role_of(&self, spki: &[u8]) -> Option<KeyRole> {
        self.roles.iter().zip(&self.spkis).find(|(_, own)| *own == spki).map(|(role, _)| *role)
    }
}

impl FromIterator<(KeyRole, Vec<u8>)> for Identities {
    fn from_iter<I: IntoIterator<Item = (KeyRole, Vec<u8>)>>(identities: I) -> Self {
        let (roles, spkis) = identities.into_iter().unzip();
        Self { roles, spkis }
    }
}

/// What a message is held against.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Whose key is to sign.
    pub role: KeyRole,
    /// Its kind.
    pub algorithm: KeyAlgorithm,
    /// Its `SubjectPublicKeyInfo`.
    pub spki: &'a [u8],
    /// The signed parts of the last certificates that it signed for itself, newest last.
    pub certificates: &'a [TbsFacts],
    /// Every key of ours.
    pub identities: &'a Identities,
    /// Limits.
    pub limits: &'a JudgeLimits,
    /// This machine's clock.
    pub now: OffsetDateTime,
}

/// A message that fits its purpose.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Judged {
    /// What it is, on one line, for the audit trail.
    pub object: String,
    /// An identity's own certificate.
    pub identity: Option<TbsFacts>,
}

impl Judged {
    const fn of(object: String) -> Self {
        Self { object, identity: None }
    }
}

/// Why a message does not fit its purpose. The text is for the caller and the audit trail.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// Longer than any message that is signed.
    #[error("a message of {length} bytes; at most {MESSAGE_LIMIT} are signed")]
    TooLong {
        /// Its length.
        length: usize,
    },
    /// The scheme belongs to another purpose, or does not fit the key.
    #[error("{scheme} is not the scheme of {purpose} with a key of {algorithm}")]
    Scheme {
        /// What was asked.
        scheme: SignatureScheme,
        /// For what.
        purpose: &'static str,
        /// With which key.
        algorithm: KeyAlgorithm,
    },
    /// No TLS server signs this.
    #[error("no message of a TLS handshake: {0}")]
    Tls(&'static str),
    /// No certificate or request at all.
    #[error(transparent)]
    NoCertificate(#[from] PkiError),
    /// A certificate or request that this key does not sign.
    #[error(transparent)]
    Certificate(#[from] casemate_pki::Refusal),
    /// The key signs for devices only after it signed its own certificate: its subject becomes the issuer.
    #[error("the {role} key has signed no certificate of its own yet; provision the node")]
    NoIssuer {
        /// Whose key.
        role: KeyRole,
    },
    /// No trust list or file that is built here.
    #[error(transparent)]
    PhoneFile(#[from] PhoneFileError),
    /// A list was sent as a file, or a file as a list.
    #[error("{found:?} is no {purpose}")]
    OtherKind {
        /// The name in the header.
        found: String,
        /// What it was sent as.
        purpose: &'static str,
    },
    /// The header names another file than the request.
    #[error("the header names {found:?}, the request {asked:?}")]
    FileName {
        /// In the header.
        found: String,
        /// In the request.
        asked: String,
    },
    /// The file's signer is no certificate of the key that is to sign: no phone could verify it.
    #[error("the header says that {found:?} signs it, which is no certificate of the {role} key")]
    FileSigner {
        /// The signer's name in the header.
        found: String,
        /// Whose key is to sign.
        role: KeyRole,
    },
    /// The list's own signer is another key.
    #[error("the list says that {found:?} signs it, whose record is not of the {role} key")]
    OtherSigner {
        /// The signer's name in the header.
        found: String,
        /// Whose key is to sign.
        role: KeyRole,
    },
    /// A record makes phones trust a key that is none of ours, or not for that.
    #[error(
        "the list makes phones trust {subject:?} as {function}, which is not for any key of this node in that part"
    )]
    Record {
        /// Subject of the record's certificate.
        subject: String,
        /// The record's function.
        function: String,
    },
}

/// Judges `message` for `purpose`, to be signed with `scheme`.
///
/// # Errors
/// The first thing that does not fit.
pub fn judge(message: &[u8], purpose: &Purpose, scheme: SignatureScheme, known: &Known<'_>) -> Result<Judged, Unfit> {
    if message.len() > MESSAGE_LIMIT {
        return Err(Unfit::TooLong { length: message.len() });
    }
    if !is_scheme_of(purpose, scheme, known.algorithm) {
        return Err(Unfit::Scheme { scheme, purpose: purpose.name(), algorithm: known.algorithm });
    }
    match purpose {
        Purpose::SelfSigned => certificate::self_signed(message, known),
        Purpose::CertificateRequest => certificate::request(message, known),
        Purpose::DeviceCertificate { device, operation } => certificate::device(message, device, *operation, known),
        Purpose::TrustList => list::trust_list(message, known),
        Purpose::File { name } => list::file(message, name, known),
        Purpose::TlsHandshake => tls::judge(message, scheme).map(Judged::of),
    }
}

/// Each purpose has RSA schemes that no other has. A curve has one scheme for everything, and signs no lists or files.
const fn is_scheme_of(purpose: &Purpose, scheme: SignatureScheme, algorithm: KeyAlgorithm) -> bool {
    use SignatureScheme::{RsaPkcs1Sha256, RsaPkcs1Sha384, RsaPkcs1Sha512, RsaPssSha256, RsaPssSha384, RsaPssSha512};
    if !scheme.fits(algorithm) {
        return false;
    }
    match (purpose, algorithm.rsa_bits()) {
        (Purpose::TrustList | Purpose::File { .. }, None) => false,
        (_, None) => true,
        (Purpose::TrustList | Purpose::File { .. }, Some(_)) => matches!(scheme, RsaPkcs1Sha512),
        (Purpose::TlsHandshake, Some(_)) => {
            matches!(scheme, RsaPssSha256 | RsaPssSha384 | RsaPssSha512 | RsaPkcs1Sha384)
        }
        (Purpose::SelfSigned | Purpose::CertificateRequest | Purpose::DeviceCertificate { .. }, Some(_)) => {
            matches!(scheme, RsaPkcs1Sha256)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn purposes() -> Vec<Purpose> {
        vec![
            Purpose::SelfSigned,
            Purpose::CertificateRequest,
            Purpose::DeviceCertificate { device: "SEP001122334455".into(), operation: 1 },
            Purpose::TrustList,
            Purpose::File { name: "SEP001122334455.cnf.xml.sgn".into() },
            Purpose::TlsHandshake,
        ]
    }

    /// Which of three kinds of signature a purpose makes.
    fn kind(purpose: &Purpose) -> u8 {
        match purpose {
            Purpose::SelfSigned | Purpose::CertificateRequest | Purpose::DeviceCertificate { .. } => 0,
            Purpose::TrustList | Purpose::File { .. } => 1,
            Purpose::TlsHandshake => 2,
        }
    }

    #[test]
    fn no_rsa_scheme_serves_two_kinds_of_signature() {
        for scheme in SignatureScheme::ALL {
            let kinds: std::collections::BTreeSet<u8> = purposes()
                .iter()
                .filter(|purpose| is_scheme_of(purpose, scheme, KeyAlgorithm::Rsa2048))
                .map(kind)
                .collect();
            assert!(kinds.len() <= 1, "{scheme} serves {kinds:?}");
        }
    }

    #[test]
    fn a_curve_signs_no_lists_and_with_no_other_curves_scheme() {
        let p384 = KeyAlgorithm::P384;
        assert!(!is_scheme_of(&Purpose::TrustList, SignatureScheme::EcdsaP384Sha384, p384));
        assert!(is_scheme_of(&Purpose::TlsHandshake, SignatureScheme::EcdsaP384Sha384, p384));
        assert!(!is_scheme_of(&Purpose::TlsHandshake, SignatureScheme::EcdsaP256Sha256, p384));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(message: Vec<u8>, purpose in 0..6usize) {
            let identities = Identities::default();
            let known = Known {
                role: KeyRole::CallManager,
                algorithm: KeyAlgorithm::Rsa2048,
                spki: &[],
                certificates: &[],
                identities: &identities,
                limits: &JudgeLimits::default(),
                now: OffsetDateTime::UNIX_EPOCH,
            };
            for scheme in SignatureScheme::ALL {
                let _ = judge(&message, &purposes()[purpose], scheme, &known);
            }
        }
    }
}
