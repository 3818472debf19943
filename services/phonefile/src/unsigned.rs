use crate::{
    Digest, FileKind, Limits, Modulus, PhoneFile, PhoneFileError, SignerId, TrustList,
    header::{Form, Header, put_signature, signature_element},
};

/// A file that waits for its signature: RSA PKCS#1 v1.5 with SHA-512 by an RSA key of 2048 bits.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unsigned {
    bytes: Vec<u8>,
    signature_at: usize,
}

impl Unsigned {
    /// Lays a trust list out.
    ///
    /// # Errors
    /// [`PhoneFileError::TooLarge`]; a record that phones would not take, or that differs from its certificate.
    pub fn trust_list(list: &TrustList, limits: &Limits) -> Result<Self, PhoneFileError> {
        list.check_for_signing()?;
        let unsigned = Self::lay_out(&list.header(), &list.body()?)?;
        unsigned.within("a trust list", limits.list_bytes)
    }

    /// Lays a file out.
    ///
    /// # Errors
    /// [`PhoneFileError::TooLarge`], [`PhoneFileError::Text`] for a name that no file may have.
    pub fn file(file: &PhoneFile<'_>, limits: &Limits) -> Result<Self, PhoneFileError> {
        file.check_for_signing()?;
        let unsigned = Self::lay_out(&file.header(), file.body)?;
        unsigned.within("a signed file", limits.file_bytes)
    }

    /// The message: the file with the whole signature element left out (phone-formats §1). HEADERLENGTH counts it already.
    #[must_use]
    pub fn to_be_signed(&self) -> &[u8] {
        &self.bytes
    }

    /// The file.
    ///
    /// # Errors
    /// [`PhoneFileError::SignatureLength`].
    pub fn with_signature(&self, signature: &[u8]) -> Result<Vec<u8>, PhoneFileError> {
        let (length, expected) = (signature.len(), Modulus::Bits2048.bytes());
        if length != expected {
            return Err(PhoneFileError::SignatureLength { length, expected });
        }
        let (front, tail) = self.bytes.split_at(self.signature_at);
        let mut file = Vec::with_capacity(self.bytes.len() + signature_element(Modulus::Bits2048));
        file.extend(front);
        put_signature(&mut file, signature)?;
        file.extend(tail);
        Ok(file)
    }

    fn lay_out(header: &Header, body: &[u8]) -> Result<Self, PhoneFileError> {
        let (mut bytes, signature_at) = header.without_signature()?;
        bytes.extend(body);
        Ok(Self { bytes, signature_at })
    }

    fn within(self, what: &'static str, limit: usize) -> Result<Self, PhoneFileError> {
        let length = self.bytes.len() + signature_element(Modulus::Bits2048);
        if length > limit { Err(PhoneFileError::TooLarge { what, length, limit }) } else { Ok(self) }
    }
}

/// A message that somebody wants signed, read back by whoever holds the key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ToBeSigned<'a> {
    /// A trust list.
    TrustList(TrustList),
    /// A file.
    File(PhoneFile<'a>),
}

impl<'a> ToBeSigned<'a> {
    /// Reads a message. Everything that [`Unsigned`] would refuse to lay out is refused, and every message that is not byte
    /// for byte what it lays out for the same content.
    ///
    /// # Errors
    /// [`PhoneFileError::Malformed`], [`PhoneFileError::NotCanonical`], [`PhoneFileError::SchemeNotBuilt`],
    /// [`PhoneFileError::EncryptedNotBuilt`], and those of [`Unsigned::trust_list`] and [`Unsigned::file`].
    pub fn parse(message: &'a [u8], limits: &Limits) -> Result<Self, PhoneFileError> {
        let limit = limits.list_bytes.max(limits.file_bytes);
        if message.len() > limit {
            return Err(PhoneFileError::TooLarge { what: "a file to be signed", length: message.len(), limit });
        }
        let split = Header::split(message, Form::ToBeSigned)?;
        let (digest, modulus) = (split.header.digest, split.header.modulus);
        if (digest, modulus) != (Digest::Sha512, Modulus::Bits2048) {
            return Err(PhoneFileError::SchemeNotBuilt { found: format!("RSA-{} and {digest}", modulus.bytes() * 8) });
        }
        let (parsed, again) = match split.header.kind {
            FileKind::TrustList => {
                let list = TrustList::from_parts(split.header, split.body)?;
                let again = Unsigned::trust_list(&list, limits)?;
                (Self::TrustList(list), again)
            }
            FileKind::File => {
                let file = PhoneFile::from_parts(split.header, split.body);
                let again = Unsigned::file(&file, limits)?;
                (Self::File(file), again)
            }
            FileKind::Encrypted => return Err(PhoneFileError::EncryptedNotBuilt),
        };
        if again.bytes == message {
            return Ok(parsed);
        }
        let at = message.iter().zip(&again.bytes).take_while(|(found, built)| found == built).count();
        Err(PhoneFileError::NotCanonical { at })
    }

    /// Who is to sign.
    #[must_use]
    pub const fn signer(&self) -> &SignerId {
        match self {
            Self::TrustList(list) => list.signer(),
            Self::File(file) => &file.signer,
        }
    }

    /// Name in the header.
    #[must_use]
    pub fn file_name(&self) -> &str {
        match self {
            Self::TrustList(list) => list.file_name(),
            Self::File(file) => &file.name,
        }
    }
}
