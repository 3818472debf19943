use aws_lc_rs::digest;

use crate::{AttestError, read::Reader};

/// `TPM_GENERATED_VALUE`, with which nothing begins that a restricted key signs and the TPM did not make.
const MAGIC: u32 = 0xff54_4347;

/// `TPM_ST_ATTEST_CERTIFY` and `TPM_ST_ATTEST_QUOTE` (TPM 2.0 part 2, 6.9).
const CERTIFY: u16 = 0x8017;
const QUOTE: u16 = 0x8018;

/// `TPM_ALG_SHA256`.
const SHA256: u16 = 0x000b;

/// `TPM_RH_ENDORSEMENT` (TPM 2.0 part 2, 7.4).
const ENDORSEMENT: u32 = 0x4000_000b;

/// What every `TPMS_ATTEST` begins with (TPM 2.0 part 2, 10.12.12):
/// ```text
/// magic u32 | type u16 | qualifiedSigner TPM2B | extraData TPM2B | clockInfo | firmwareVersion u64
/// clockInfo: clock u64 | resetCount u32 | restartCount u32 | safe u8
/// ```
#[derive(Clone, Copy)]
pub(crate) struct Head<'a> {
    /// Qualified name of the key that signed.
    signer: &'a [u8],
    /// The auditor's nonce.
    pub(crate) nonce: &'a [u8],
    /// How often the TPM was started, cold and from sleep.
    pub(crate) starts: (u32, u32),
    /// As the TPM wrote it.
    firmware: u64,
}

impl<'a> Head<'a> {
    fn read(reader: &mut Reader<'a>, kind: u16) -> Result<Self, AttestError> {
        if reader.u32()? != MAGIC || reader.u16()? != kind {
            return Err(reader.malformed());
        }
        let signer = reader.sized()?;
        let nonce = reader.sized()?;
        reader.take(8)?;
        let starts = (reader.u32()?, reader.u32()?);
        reader.take(1)?;
        let firmware = (u64::from(reader.u32()?) << 32) | u64::from(reader.u32()?);
        Ok(Self { signer, nonce, starts, firmware })
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

/// What matters in a `TPMS_ATTEST` of `TPM2_Certify`: behind the head `name TPM2B | qualifiedName TPM2B`.
pub(crate) struct Certify<'a> {
    pub(crate) head: Head<'a>,
    /// Name of the key that was certified.
    pub(crate) name: &'a [u8],
}

impl<'a> Certify<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, AttestError> {
        let mut reader = Reader::new(bytes, "the TPM's attestation");
        let head = Head::read(&mut reader, CERTIFY)?;
        let name = reader.sized()?;
        reader.sized()?;
        reader.end()?;
        Ok(Self { head, name })
    }
}

/// What matters in a `TPMS_ATTEST` of `TPM2_Quote`, of registers of the SHA-256 bank alone: behind the head
/// ```text
/// count u32 = 1 | hash u16 | length u8 | a bit for each register, length bytes | pcrDigest TPM2B
/// ```
pub(crate) struct Quoted<'a> {
    pub(crate) head: Head<'a>,
    /// The registers that were selected, lowest number first.
    pub(crate) selected: Vec<u8>,
    /// The hash of their values.
    pub(crate) digest: &'a [u8],
}

impl<'a> Quoted<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, AttestError> {
        let mut reader = Reader::new(bytes, "the TPM's quote");
        let head = Head::read(&mut reader, QUOTE)?;
        if reader.u32()? != 1 || reader.u16()? != SHA256 {
            return Err(reader.unsupported());
        }
        let length = reader.take(1)?.first().copied().unwrap_or_default();
        let bits = reader.take(length.into())?;
        // No TPM has more than 32 (TPM 2.0 part 2, 10.6.1).
        let selected =
            (0..32).filter(|index| bits.get(usize::from(index / 8)).is_some_and(|byte| byte & (1 << (index % 8)) != 0));
        let selected = if bits.len() > 4 { return Err(reader.unsupported()) } else { selected.collect() };
        let digest = reader.sized()?;
        reader.end()?;
        Ok(Self { head, selected, digest })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Signed by nobody, of a TPM that was started twice, with the firmware 7.
    fn head_of(kind: u16) -> Vec<u8> {
        let (starts, firmware) = ([0, 0, 0, 2, 0, 0, 0, 0], 7_u64.to_be_bytes());
        let begin = [MAGIC.to_be_bytes().as_slice(), &kind.to_be_bytes(), &[0, 0], &[0, 1, 9]].concat();
        [begin.as_slice(), &[0; 8], &starts, &[1], &firmware].concat()
    }

    #[test]
    fn a_quote_is_read_with_its_registers_and_of_one_bank_alone() {
        let quote = |tail: &[u8]| [head_of(QUOTE).as_slice(), tail, &[0, 2, 5, 6]].concat();
        let read = quote(&[0, 0, 0, 1, 0, 0x0b, 3, 0xff, 0x08, 0]);
        let read = Quoted::parse(&read).unwrap();
        assert_eq!((read.selected.as_slice(), read.digest), (&[0, 1, 2, 3, 4, 5, 6, 7, 11][..], &[5, 6][..]));
        assert_eq!((read.head.nonce, read.head.starts, read.head.firmware), (&[9][..], (2, 0), 7));
        assert_eq!(read.head.firmware(b"a key of another hierarchy"), None, "it is disguised then");
        for other in [
            &[0, 0, 0, 1, 0, 0x04, 3, 0xff, 0x08, 0][..],
            &[0, 0, 0, 2, 0, 0x0b, 1, 0xff, 0, 0x0c, 1, 0xff],
            &[0, 0, 0, 1, 0, 0x0b, 5, 0xff, 0x08, 0, 0, 1],
            &[0, 0, 0, 0],
        ] {
            assert!(matches!(Quoted::parse(&quote(other)), Err(AttestError::Unsupported { .. })), "{other:?}");
        }
        let certify = [head_of(CERTIFY).as_slice(), &[0, 0, 0, 1, 0, 0x0b, 1, 0xff, 0, 0]].concat();
        assert!(Quoted::parse(&certify).is_err(), "another kind of attestation");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (Certify::parse(&bytes).is_ok(), Quoted::parse(&bytes).is_ok());
            let head = |kind: u16| [MAGIC.to_be_bytes().as_slice(), &kind.to_be_bytes(), &bytes].concat();
            let _ = (Certify::parse(&head(CERTIFY)).is_ok(), Quoted::parse(&head(QUOTE)).is_ok());
        }

        #[test]
        fn arbitrary_bytes_behind_the_head_of_a_quote_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = Quoted::parse(&[head_of(QUOTE), bytes].concat()).is_ok();
        }
    }
}
