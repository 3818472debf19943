use casemate_hsm_api::{KeyAlgorithm, SignatureScheme};
use serde::{Deserialize, Serialize};

use crate::{
    AttestError, AttestationKey, Enrolled, Pcr, PublicArea, Quote,
    attest::{Certify, Quoted},
};

/// A TPM's word on one of its keys, as `casemate hsm attest` writes it. It proves something only to who has enrolled the
/// attestation key ([`Enrolled`]) and gave the nonce.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Statement {
    /// `TPMT_PUBLIC` of the key.
    #[serde(with = "hex::serde")]
    pub public: Vec<u8>,
    /// `TPMS_ATTEST` of `TPM2_Certify`: what was signed.
    #[serde(with = "hex::serde")]
    pub certify: Vec<u8>,
    /// ECDSA with P-256 and SHA-256 by the attestation key, DER.
    #[serde(with = "hex::serde")]
    pub signature: Vec<u8>,
    /// What the TPM's machine was started with.
    pub quote: Quote,
    /// By which key, of which TPM.
    pub by: AttestationKey,
}

/// What a proven statement tells beside that it is true.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Proof {
    /// Version of the TPM's firmware, as its maker counts (`TPM_PT_FIRMWARE_VERSION_1` and `_2`); nothing if the TPM disguised it.
    pub firmware: Option<u64>,
    /// What the machine was started with, for the auditor to compare with what he knows.
    pub pcrs: Vec<Pcr>,
}

impl Statement {
    /// Proves that the key with this `SubjectPublicKeyInfo` (of the certificate that phones see) was made in the TPM of the
    /// enrolled attestation key and cannot leave it, and that the TPM said so, and with what its machine was started, after it was
    /// given `nonce`.
    ///
    /// # Errors
    /// Everything that it is not; the enrolment is looked at first, for without it nothing else means anything.
    pub fn prove(&self, enrolled: &Enrolled, nonce: &[u8], spki: &[u8]) -> Result<Proof, AttestError> {
        let attester = PublicArea::parse(&self.by.public)?;
        let known =
            attester.name() == enrolled.name && self.by.endorsement_certificate == enrolled.endorsement_certificate;
        if !known {
            return Err(AttestError::Unendorsed);
        }
        if let Some(detail) = attester.not_attesting() {
            return Err(AttestError::NoAttestationKey { detail });
        }
        let scheme = SignatureScheme::EcdsaP256Sha256;
        if attester.key().algorithm != KeyAlgorithm::P256 {
            return Err(AttestError::Unsupported { what: "the attestation key" });
        }
        for (bytes, signature) in [(&self.certify, &self.signature), (&self.quote.quoted, &self.quote.signature)] {
            if !attester.key().verifies(scheme, bytes, signature) {
                return Err(AttestError::Signature);
            }
        }
        let (said, quoted) = (Certify::parse(&self.certify)?, Quoted::parse(&self.quote.quoted)?);
        if said.head.nonce != nonce || quoted.head.nonce != nonce {
            return Err(AttestError::Nonce);
        }
        if said.head.starts != quoted.head.starts {
            return Err(AttestError::StartedBetween);
        }
        self.quote.holds(&quoted.selected, quoted.digest)?;
        let area = PublicArea::parse(&self.public)?;
        if said.name != area.name() {
            return Err(AttestError::OtherKey { detail: "the TPM certified another public area" });
        }
        if area.key().spki_der != spki {
            return Err(AttestError::OtherKey { detail: "it is not the key of the certificate" });
        }
        match area.not_bound() {
            Some(detail) => Err(AttestError::NotBound { detail }),
            None => Ok(Proof { firmware: said.head.firmware(attester.name()), pcrs: self.quote.pcrs.clone() }),
        }
    }
}
