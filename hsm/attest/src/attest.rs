use aws_lc_rs::digest;

use crate::{AttestError, read::Reader};

/// `TPM_GENERATED_VALUE`, with which nothing begins that a restricted key signs and the TPM did not make.
const MAGIC: u32 = 0xff54_4347;

/// `TPM_ST_ATTEST_CERTIFY`.
const CERTIFY: u16 = 0x8017;

/// `TPM_RH_ENDORSEMENT` (TPM 2.0 part 2, 7.4).
const ENDORSEMENT: u32 = 0x4000_000b;

/// What matters in a `TPMS_ATTEST` of `TPM2_Certify` (TPM 2.0 part 2, 10.12.12):
/// ```text
/// magic u32 | type u16 | qualifiedSigner TPM2B | extraData TPM2B | clockInfo 17 | firmwareVersion u64
/// | name TPM2B | qualifiedName TPM2B
/// ```
pub(crate) struct Certify<'a> {
    /// Qualified name of the key that signed.
    signer: &'a [u8],
    /// The auditor's nonce.
    pub(crate) nonce: &'a [u8],
    /// As the TPM wrote it.
    firmware: u64,
    /// Name of the key that was certified.
    pub(crate) name: &'a [u8],
}

impl<'a> Certify<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, AttestError> {
        let mut reader = Reader::new(bytes, "the TPM's attestation");
        if reader.u32()? != MAGIC || reader.u16()? != CERTIFY {
            return Err(reader.malformed());
        }
        let signer = reader.sized()?;
        let nonce = reader.sized()?;
        reader.take(17)?;
        let firmware = (u64::from(reader.u32()?) << 32) | u64::from(reader.u32()?);
        let name = reader.sized()?;
        reader.sized()?;
        reader.end()?;
        Ok(Self { signer, nonce, firmware, name })
    }

    /// The TPM's firmware, if it is told: for a signer of another hierarchy than the endorsement or the platform the TPM writes it
    /// disguised (TPM 2.0 part 3, 18.1), so `attester`, the signer's name, must be a primary of the endorsement hierarchy. That is
    /// in its qualified name (part 1, 16).
    pub(crate) fn firmware(&self, attester: &[u8]) -> Option<u64> {
        let parent_and_name = [&ENDORSEMENT.to_be_bytes(), attester].concat();
        let qualified = digest::digest(&digest::SHA256, &parent_and_name);
        (self.signer == [&[0, 0x0b], qualified.as_ref()].concat()).then_some(self.firmware)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Certify::parse(&bytes);
            let head = [MAGIC.to_be_bytes().as_slice(), &CERTIFY.to_be_bytes()].concat();
            let _ = Certify::parse(&[head, bytes].concat());
        }
    }
}
