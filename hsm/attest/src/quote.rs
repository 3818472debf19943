use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

use crate::AttestError;

/// The registers that a statement must tell: firmware and its settings, boot loader and keys of secure boot (0 to 7, TCG PC Client
/// Platform Firmware Profile 1.06, 3.3.4), and the unified kernel image that systemd-stub measures (11, UAPI group, Linux TPM PCR
/// registry).
pub const QUOTED_PCRS: [u8; 9] = [0, 1, 2, 3, 4, 5, 6, 7, 11];

/// One platform configuration register: a hash over all that was measured into it since the machine was started.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Pcr {
    /// Its number.
    pub index: u8,
    /// Its value in the SHA-256 bank.
    #[serde(with = "hex::serde")]
    pub sha256: [u8; 32],
}

/// The TPM's word on what its machine was started with: `TPM2_Quote`, with the nonce of the statement, by the same attestation key.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Quote {
    /// The registers, lowest number first: at least [`QUOTED_PCRS`].
    pub pcrs: Vec<Pcr>,
    /// `TPMS_ATTEST` of `TPM2_Quote`: what was signed.
    #[serde(with = "hex::serde")]
    pub quoted: Vec<u8>,
    /// ECDSA with P-256 and SHA-256 by the attestation key, DER.
    #[serde(with = "hex::serde")]
    pub signature: Vec<u8>,
}

impl Quote {
    /// What a TPM signs of these registers (`pcrDigest`, TPM 2.0 part 1, 17.5): the hash of their values, one after the other.
    #[must_use]
    pub fn digest(pcrs: &[Pcr]) -> Vec<u8> {
        let mut context = digest::Context::new(&digest::SHA256);
        pcrs.iter().for_each(|pcr| context.update(&pcr.sha256));
        context.finish().as_ref().to_vec()
    }

    /// That the listed registers are the ones that the TPM selected, those that must be there among them, with the values of which
    /// it signed `digest`.
    pub(crate) fn holds(&self, selected: &[u8], digest: &[u8]) -> Result<(), AttestError> {
        let differ = |detail| Err(AttestError::Pcrs { detail });
        if !self.pcrs.iter().map(|pcr| pcr.index).eq(selected.iter().copied()) {
            return differ("the TPM quoted other registers than are listed");
        }
        if !QUOTED_PCRS.iter().all(|index| selected.contains(index)) {
            return differ("registers are missing: at least 0 to 7 and 11 must be quoted");
        }
        if Self::digest(&self.pcrs) != digest {
            return differ("the TPM quoted other values than are listed");
        }
        Ok(())
    }
}
