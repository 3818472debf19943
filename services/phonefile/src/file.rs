use crate::{
    PhoneFileError, SignerId,
    header::{Digest, FileKind, Header, Modulus},
};

/// What the name of a signed file ends with (phone-formats §3).
pub const SIGNED_SUFFIX: &str = ".sgn";

/// A file that is signed as it is, as `SEP001122334455.cnf.xml.sgn` (phone-formats §3).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PhoneFile<'a> {
    /// Name as phones ask for it, with its suffix.
    pub name: String,
    /// Seconds since 1970.
    pub timestamp: u32,
    /// Who signs it: a certificate with role TFTP or CCM+TFTP in the phone's list.
    pub signer: SignerId,
    /// The file itself.
    pub body: &'a [u8],
}

impl<'a> PhoneFile<'a> {
    /// What a file must be beyond being readable for Casemate to sign it.
    pub(crate) fn check_for_signing(&self) -> Result<(), PhoneFileError> {
        let stem = self.name.strip_suffix(SIGNED_SUFFIX).unwrap_or_default();
        let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        let fits =
            !stem.is_empty() && !stem.starts_with('.') && self.name.len() <= 128 && self.name.bytes().all(is_safe);
        // The encrypted form has a header of its own; under this one a phone would take ciphertext for XML.
        if fits && !stem.ends_with(".enc") {
            Ok(())
        } else {
            Err(PhoneFileError::Text { what: "signed file's name", value: self.name.clone() })
        }
    }

    pub(crate) fn from_parts(header: Header, body: &'a [u8]) -> Self {
        Self { name: header.file_name, timestamp: header.timestamp, signer: header.signer, body }
    }

    pub(crate) fn header(&self) -> Header {
        Header {
            kind: FileKind::File,
            signer_version: None,
            signer: self.signer.clone(),
            digest: Digest::Sha512,
            modulus: Modulus::Bits2048,
            file_name: self.name.clone(),
            timestamp: self.timestamp,
        }
    }
}
