use crate::{AttestError, read::Reader};

/// `TPM_GENERATED_VALUE`, with which nothing begins that a restricted key signs and the TPM did not make.
const MAGIC: u32 = 0xff54_4347;

/// `TPM_ST_ATTEST_CERTIFY`.
const CERTIFY: u16 = 0x8017;

/// What matters in a `TPMS_ATTEST` of `TPM2_Certify` (TPM 2.0 part 2, 10.12.12):
/// ```text
/// magic u32 | type u16 | qualifiedSigner TPM2B | extraData TPM2B | clockInfo 17 | firmwareVersion u64
/// | name TPM2B | qualifiedName TPM2B
/// ```
pub(crate) struct Certify<'a> {
    /// The auditor's nonce.
    pub(crate) nonce: &'a [u8],
    /// Name of the key that was certified.
    pub(crate) name: &'a [u8],
}

impl<'a> Certify<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, AttestError> {
        let mut reader = Reader::new(bytes, "the TPM's attestation");
        if reader.u32()? != MAGIC || reader.u16()? != CERTIFY {
            return Err(reader.malformed());
        }
        reader.sized()?;
        let nonce = reader.sized()?;
        reader.take(17 + 8)?;
        let name = reader.sized()?;
        reader.sized()?;
        reader.end()?;
        Ok(Self { nonce, name })
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
