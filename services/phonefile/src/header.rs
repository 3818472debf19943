use std::fmt;

use casemate_pki::CertificateFacts;
use serde::Serialize;

use crate::{
    PhoneFileError,
    tlv::{Reader, put, put_text},
};

/// What kind of file a header stands before: VERSION, tag 1 (phone-formats §1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FileKind {
    /// Version 1.2: a trust list.
    TrustList,
    /// Version 1.0: any file, signed.
    File,
    /// Version 2.0: an encrypted configuration.
    Encrypted,
}

impl FileKind {
    const fn version(self) -> [u8; 2] {
        match self {
            Self::TrustList => [1, 2],
            Self::File => [1, 0],
            Self::Encrypted => [2, 0],
        }
    }
}

/// Signer version, tag 28, of a trust list. 1.1 switches a phone's elliptic-curve features on: EC certificates, HTTPS 6971.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub enum SignerVersion {
    /// 1.0.
    #[serde(rename = "1.0")]
    V1_0,
    /// 1.1.
    #[serde(rename = "1.1")]
    V1_1,
}

/// Hash under the signature: DIGESTALGORITHM, tag 8.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Digest {
    /// 1. Never built; read for old files only.
    Sha1,
    /// 2. Defined, never seen used.
    Sha256,
    /// 3.
    Sha512,
}

impl Digest {
    const fn number(self) -> u8 {
        match self {
            Self::Sha1 => 1,
            Self::Sha256 => 2,
            Self::Sha512 => 3,
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha1 => "SHA-1",
            Self::Sha256 => "SHA-256",
            Self::Sha512 => "SHA-512",
        })
    }
}

/// Size of the signer's RSA key: SIGNATUREMODULUS, tag 11. There is no code for 3072 bits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Modulus {
    /// 0: 512 bits. Never verified.
    Bits512,
    /// 1: 1024 bits.
    Bits1024,
    /// 2: 2048 bits.
    Bits2048,
    /// 3: 4096 bits.
    Bits4096,
}

impl Modulus {
    const fn number(self) -> u8 {
        match self {
            Self::Bits512 => 0,
            Self::Bits1024 => 1,
            Self::Bits2048 => 2,
            Self::Bits4096 => 3,
        }
    }

    /// Length of the modulus, and of a signature, in bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Bits512 => 64,
            Self::Bits1024 => 128,
            Self::Bits2048 => 256,
            Self::Bits4096 => 512,
        }
    }
}

/// Who signed: SIGNERID, tag 3.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SignerId {
    /// Subject of the signer's certificate as text.
    pub subject: String,
    /// Its serial number, minimal big-endian, no sign byte.
    pub serial: Vec<u8>,
    /// Its issuer as text.
    pub issuer: String,
}

impl SignerId {
    /// The signer with this certificate.
    #[must_use]
    pub fn of(certificate: &CertificateFacts) -> Self {
        Self {
            subject: certificate.subject.clone(),
            serial: certificate.serial.clone(),
            issuer: certificate.issuer.clone(),
        }
    }
}

const WHAT: &str = "file header";
const VERSION: u8 = 1;
const HEADER_LENGTH: u8 = 2;
const SIGNER_ID: u8 = 3;
const SIGNER_NAME: u8 = 4;
const SERIAL_NUMBER: u8 = 5;
const CA_NAME: u8 = 6;
const SIGNATURE_INFO: u8 = 7;
const DIGEST_ALGORITHM: u8 = 8;
const SIGNATURE_ALGORITHM_INFO: u8 = 9;
const SIGNATURE_ALGORITHM: u8 = 10;
const SIGNATURE_MODULUS: u8 = 11;
const SIGNATURE: u8 = 12;
const PADDING: u8 = 13;
const FILE_NAME: u8 = 14;
const TIMESTAMP: u8 = 15;
const ENCRYPTION_INFO: u8 = 16;
const PLAINTEXT_DIGEST: u8 = 26;
const PLAINTEXT_HASH: u8 = 27;
const SIGNER_VERSION: u8 = 28;

/// Bytes before the value of the signature's element.
const SIGNATURE_HEAD: usize = 3;

/// The header of every signed file, without its signature.
///
/// ```text
/// 1, 2, [28], 3{4, 5, 6}, 7{8, 9{10, 11}}, 12 (signature), 14, 15, [16, 26, 27], padding to a multiple of 4
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Header {
    pub(crate) kind: FileKind,
    pub(crate) signer_version: Option<SignerVersion>,
    pub(crate) signer: SignerId,
    pub(crate) digest: Digest,
    pub(crate) modulus: Modulus,
    pub(crate) file_name: String,
    pub(crate) timestamp: u32,
}

/// A header and what stands around it.
pub(crate) struct Split<'a> {
    pub(crate) header: Header,
    /// Offset of the signature's element.
    pub(crate) signature_at: usize,
    /// The signature; empty in bytes that are to be signed.
    pub(crate) signature: &'a [u8],
    pub(crate) body: &'a [u8],
}

/// Whether the signature's element is in the bytes. HEADERLENGTH counts it either way.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Form {
    Signed,
    ToBeSigned,
}

impl Header {
    pub(crate) fn split(bytes: &[u8], form: Form) -> Result<Split<'_>, PhoneFileError> {
        let mut reader = Reader::new(WHAT, bytes);
        let kind = kind(&mut reader)?;
        let header_length = usize::from(u16::from_be_bytes(reader.fixed(HEADER_LENGTH)?));
        let signer_version = signer_version(&mut reader, kind)?;
        let signer = signer_id(reader.expect(SIGNER_ID)?)?;
        let (digest, modulus) = signature_info(reader.expect(SIGNATURE_INFO)?)?;
        let signature_at = reader.at();
        let signature: &[u8] = match form {
            Form::Signed => reader.expect(SIGNATURE)?,
            Form::ToBeSigned => &[],
        };
        if form == Form::Signed && signature.len() != modulus.bytes() {
            return Err(reader.malformed("the signature is not as long as the modulus"));
        }
        let counted = signature_at + SIGNATURE_HEAD + modulus.bytes();
        let left = header_length.checked_sub(counted);
        let left = left.ok_or_else(|| reader.malformed("HEADERLENGTH ends before the header does"))?;
        let mut tail = Reader::new(WHAT, reader.take(left)?);
        let file_name = tail.expect_text(FILE_NAME)?;
        let timestamp = u32::from_be_bytes(tail.fixed(TIMESTAMP)?);
        if kind == FileKind::Encrypted {
            tail.expect(ENCRYPTION_INFO)?;
            tail.fixed::<1>(PLAINTEXT_DIGEST)?;
            tail.expect(PLAINTEXT_HASH)?;
        }
        let padding = tail.rest();
        if padding.len() > 3 || padding.iter().any(|byte| *byte != PADDING) || header_length % 4 != 0 {
            return Err(tail.malformed("the header is not padded with 0 to 3 bytes 0x0D to a multiple of 4"));
        }
        let header = Self { kind, signer_version, signer, digest, modulus, file_name, timestamp };
        Ok(Split { header, signature_at, signature, body: reader.rest() })
    }

    /// The header without the signature's element, and the offset where that belongs.
    pub(crate) fn without_signature(&self) -> Result<(Vec<u8>, usize), PhoneFileError> {
        if self.kind == FileKind::Encrypted {
            return Err(PhoneFileError::EncryptedNotBuilt);
        }
        let mut tail = Vec::new();
        put_text(&mut tail, FILE_NAME, &self.file_name)?;
        put(&mut tail, TIMESTAMP, &self.timestamp.to_be_bytes())?;
        let unpadded = self.front(0)?.len() + SIGNATURE_HEAD + self.modulus.bytes() + tail.len();
        let header_length = unpadded.next_multiple_of(4);
        tail.resize(tail.len() + header_length - unpadded, PADDING);
        let header_length = u16::try_from(header_length)
            .map_err(|_| PhoneFileError::ValueTooLong { tag: HEADER_LENGTH, length: header_length })?;
        let mut header = self.front(header_length)?;
        let signature_at = header.len();
        header.extend(tail);
        Ok((header, signature_at))
    }

    fn front(&self, header_length: u16) -> Result<Vec<u8>, PhoneFileError> {
        let mut out = Vec::new();
        put(&mut out, VERSION, &self.kind.version())?;
        put(&mut out, HEADER_LENGTH, &header_length.to_be_bytes())?;
        match self.signer_version {
            Some(SignerVersion::V1_0) => put(&mut out, SIGNER_VERSION, &[1, 0])?,
            Some(SignerVersion::V1_1) => put(&mut out, SIGNER_VERSION, &[1, 1])?,
            None => {}
        }
        let mut signer = Vec::new();
        put_text(&mut signer, SIGNER_NAME, &self.signer.subject)?;
        put(&mut signer, SERIAL_NUMBER, &self.signer.serial)?;
        put_text(&mut signer, CA_NAME, &self.signer.issuer)?;
        put(&mut out, SIGNER_ID, &signer)?;
        let mut algorithm = Vec::new();
        put(&mut algorithm, SIGNATURE_ALGORITHM, &[0])?;
        put(&mut algorithm, SIGNATURE_MODULUS, &[self.modulus.number()])?;
        let mut info = Vec::new();
        put(&mut info, DIGEST_ALGORITHM, &[self.digest.number()])?;
        put(&mut info, SIGNATURE_ALGORITHM_INFO, &algorithm)?;
        put(&mut out, SIGNATURE_INFO, &info)?;
        Ok(out)
    }
}

/// Appends the signature's element.
pub(crate) fn put_signature(out: &mut Vec<u8>, signature: &[u8]) -> Result<(), PhoneFileError> {
    put(out, SIGNATURE, signature)
}

/// Length of the signature's element.
pub(crate) const fn signature_element(modulus: Modulus) -> usize {
    SIGNATURE_HEAD + modulus.bytes()
}

fn kind(reader: &mut Reader<'_>) -> Result<FileKind, PhoneFileError> {
    let version: [u8; 2] = reader.fixed(VERSION)?;
    [FileKind::TrustList, FileKind::File, FileKind::Encrypted]
        .into_iter()
        .find(|kind| kind.version() == version)
        .ok_or_else(|| reader.malformed(format!("version {}.{} is not known", version[0], version[1])))
}

fn signer_version(reader: &mut Reader<'_>, kind: FileKind) -> Result<Option<SignerVersion>, PhoneFileError> {
    match (kind, reader.optional(SIGNER_VERSION)?) {
        (_, None) => Ok(None),
        (FileKind::TrustList, Some([1, 0])) => Ok(Some(SignerVersion::V1_0)),
        (FileKind::TrustList, Some([1, 1])) => Ok(Some(SignerVersion::V1_1)),
        (_, Some(_)) => Err(reader.malformed("the signer version is not 1.0 or 1.1 of a trust list")),
    }
}

/// Cisco writes 4, 5, 6; others 4, 6, 5.
fn signer_id(value: &[u8]) -> Result<SignerId, PhoneFileError> {
    let mut reader = Reader::new("SIGNERID", value);
    let subject = reader.expect_text(SIGNER_NAME)?;
    let issuer_first = if reader.peek() == Some(CA_NAME) { Some(reader.expect_text(CA_NAME)?) } else { None };
    let serial = reader.expect(SERIAL_NUMBER)?.to_vec();
    let issuer = match issuer_first {
        Some(issuer) => issuer,
        None => reader.expect_text(CA_NAME)?,
    };
    reader.finish()?;
    Ok(SignerId { subject, serial, issuer })
}

fn signature_info(value: &[u8]) -> Result<(Digest, Modulus), PhoneFileError> {
    let mut reader = Reader::new("SIGNATUREINFO", value);
    let [digest] = reader.fixed(DIGEST_ALGORITHM)?;
    let digest = [Digest::Sha1, Digest::Sha256, Digest::Sha512].into_iter().find(|known| known.number() == digest);
    let digest = digest.ok_or_else(|| reader.malformed("the digest algorithm is not known"))?;
    let mut algorithm = Reader::new("SIGNATUREALGOINFO", reader.expect(SIGNATURE_ALGORITHM_INFO)?);
    if algorithm.fixed(SIGNATURE_ALGORITHM)? != [0] {
        return Err(algorithm.malformed("the signature algorithm is not RSA PKCS#1 v1.5"));
    }
    let [modulus] = algorithm.fixed(SIGNATURE_MODULUS)?;
    let known = [Modulus::Bits512, Modulus::Bits1024, Modulus::Bits2048, Modulus::Bits4096];
    let modulus = known.into_iter().find(|known| known.number() == modulus);
    let modulus = modulus.ok_or_else(|| algorithm.malformed("the size of the modulus is not known"))?;
    algorithm.finish()?;
    reader.finish()?;
    Ok((digest, modulus))
}
