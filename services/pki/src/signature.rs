//! The signature algorithms that certificates of ours carry.
use casemate_hsm_api::KeyAlgorithm;
use rcgen::SignatureAlgorithm;
use yasna::{DERWriter, models::ObjectIdentifier};

use crate::PkiError;

/// How a certificate is signed (RFC 4055, 5; RFC 5758, 3.2). RSA keys sign certificates with SHA-256 alone: their other
/// schemes belong to lists and to TLS.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum CertificateSignature {
    RsaSha256,
    EcdsaSha256,
    EcdsaSha384,
    EcdsaSha512,
}

impl CertificateSignature {
    /// What a key of this kind signs certificates with.
    pub(crate) const fn of_key(algorithm: KeyAlgorithm) -> Self {
        match algorithm {
            KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => Self::RsaSha256,
            KeyAlgorithm::P256 => Self::EcdsaSha256,
            KeyAlgorithm::P384 => Self::EcdsaSha384,
            KeyAlgorithm::P521 => Self::EcdsaSha512,
        }
    }

    /// What a signer says that it signs with.
    pub(crate) fn of_signer(algorithm: &'static SignatureAlgorithm) -> Result<Self, PkiError> {
        [Self::RsaSha256, Self::EcdsaSha256, Self::EcdsaSha384, Self::EcdsaSha512]
            .into_iter()
            .find(|signature| signature.rcgen() == algorithm)
            .ok_or_else(|| PkiError::SignatureAlgorithm { algorithm: format!("{algorithm:?}") })
    }

    pub(crate) fn rcgen(self) -> &'static SignatureAlgorithm {
        match self {
            Self::RsaSha256 => &rcgen::PKCS_RSA_SHA256,
            Self::EcdsaSha256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            Self::EcdsaSha384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            Self::EcdsaSha512 => &rcgen::PKCS_ECDSA_P521_SHA512,
        }
    }

    const fn arcs(self) -> &'static [u64] {
        match self {
            Self::RsaSha256 => &[1, 2, 840, 113_549, 1, 1, 11],
            Self::EcdsaSha256 => &[1, 2, 840, 10_045, 4, 3, 2],
            Self::EcdsaSha384 => &[1, 2, 840, 10_045, 4, 3, 3],
            Self::EcdsaSha512 => &[1, 2, 840, 10_045, 4, 3, 4],
        }
    }

    /// The dotted identifier.
    pub(crate) fn oid(self) -> String {
        self.arcs().iter().map(u64::to_string).collect::<Vec<_>>().join(".")
    }

    /// Writes the `AlgorithmIdentifier`: RSA's has a NULL for parameters, ECDSA's none.
    pub(crate) fn write(self, writer: DERWriter<'_>) {
        writer.write_sequence(|writer| {
            writer.next().write_oid(&ObjectIdentifier::from_slice(self.arcs()));
            if self == Self::RsaSha256 {
                writer.next().write_null();
            }
        });
    }
}
