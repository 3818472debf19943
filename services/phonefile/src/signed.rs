use crate::{
    Digest, FileKind, Limits, Modulus, PhoneFile, PhoneFileError, SignerId, TrustList,
    header::{Form, Header, signature_element},
};

/// What a signed file holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Content<'a> {
    /// A trust list.
    TrustList(TrustList),
    /// A file as it is.
    File(PhoneFile<'a>),
    /// An encrypted configuration (phone-formats §4); its body is the ciphertext.
    Encrypted(PhoneFile<'a>),
}

/// A file with its signature, as phones fetch it. Reading it proves nothing: [`SignedFile::verify`] does.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SignedFile<'a> {
    /// Hash under the signature.
    pub digest: Digest,
    /// Size of the signer's key.
    pub modulus: Modulus,
    /// The signature.
    pub signature: &'a [u8],
    /// What is signed.
    pub content: Content<'a>,
    bytes: &'a [u8],
    signature_at: usize,
}

impl<'a> SignedFile<'a> {
    /// Reads a signed file.
    ///
    /// # Errors
    /// [`PhoneFileError::Malformed`], [`PhoneFileError::TooLarge`], and for lists [`PhoneFileError::SastCount`] and
    /// [`PhoneFileError::SignerNotInList`].
    pub fn parse(bytes: &'a [u8], limits: &Limits) -> Result<Self, PhoneFileError> {
        let split = Header::split(bytes, Form::Signed)?;
        let (digest, modulus) = (split.header.digest, split.header.modulus);
        let (what, limit) = match split.header.kind {
            FileKind::TrustList => ("a trust list", limits.list_bytes),
            FileKind::File | FileKind::Encrypted => ("a signed file", limits.file_bytes),
        };
        if bytes.len() > limit {
            return Err(PhoneFileError::TooLarge { what, length: bytes.len(), limit });
        }
        let content = match split.header.kind {
            FileKind::TrustList => Content::TrustList(TrustList::from_parts(split.header, split.body)?),
            FileKind::File => Content::File(PhoneFile::from_parts(split.header, split.body)),
            FileKind::Encrypted => Content::Encrypted(PhoneFile::from_parts(split.header, split.body)),
        };
        Ok(Self { digest, modulus, signature: split.signature, content, bytes, signature_at: split.signature_at })
    }

    /// The whole file.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Who signed.
    #[must_use]
    pub const fn signer(&self) -> &SignerId {
        match &self.content {
            Content::TrustList(list) => list.signer(),
            Content::File(file) | Content::Encrypted(file) => &file.signer,
        }
    }

    /// Name in the header.
    #[must_use]
    pub fn file_name(&self) -> &str {
        match &self.content {
            Content::TrustList(list) => list.file_name(),
            Content::File(file) | Content::Encrypted(file) => &file.name,
        }
    }

    /// What was signed: the file without the signature's element.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        let after = self.signature_at + signature_element(self.modulus);
        let parts = [self.bytes.get(..self.signature_at), self.bytes.get(after..)];
        parts.into_iter().flatten().flatten().copied().collect()
    }
}
