//! The signed envelope that trust lists and signed files share (phone-formats §1).
//!
//! Order on the wire: 1 version, 2 header length, [28 signer version], 3 signer {4 name, 5 serial, 6 issuer},
//! 7 signature info {8 digest, 9 {10 algorithm, 11 modulus}}, 12 signature, 14 file name, 15 time stamp, padding 0x0D.

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey};

use super::{Elements, byte, long, minimal, short, text};
use crate::error::{PhoneError, Result};

/// Largest file that the phone takes into an envelope, in bytes.
pub const MAX_FILE: usize = 1 << 20;

const WHAT: &str = "signed file header";
const PADDING: u8 = 13;
/// Padding aligns to 4 bytes, so 3 bytes are the most that it can need.
const MAX_PADDING: usize = 3;
const DIGEST_SHA512: u8 = 3;
const RSA_PKCS1: u8 = 0;

/// Who signed a file, as its header says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer<'a> {
    /// Subject of the signer's certificate.
    pub name: &'a str,
    /// Serial number, without leading zero bytes.
    pub serial: &'a [u8],
    /// Issuer of the signer's certificate.
    pub issuer: &'a str,
}

/// A parsed envelope. Nothing in it may be believed before [`Envelope::verify`].
#[derive(Debug, Clone)]
pub struct Envelope<'a> {
    /// Major and minor version of the file's format: 1.2 for lists, 1.0 for signed files.
    pub version: (u8, u8),
    /// Version of the signer's features, in lists only; 1.1 switches on EC certificates and HTTPS.
    pub signer_version: Option<(u8, u8)>,
    /// Who signed.
    pub signer: Signer<'a>,
    /// The name under which the file was signed.
    pub file_name: &'a str,
    /// When it was signed, in Unix seconds.
    pub timestamp: u32,
    /// What follows the header.
    pub body: &'a [u8],
    signature: &'a [u8],
    before_signature: &'a [u8],
    after_signature: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Reads the header of `file`.
    ///
    /// # Errors
    /// [`PhoneError::Malformed`] when the header breaks a rule of phone-formats §1, and for the digests SHA-1 and
    /// SHA-256: this phone verifies SHA-512 alone.
    pub fn parse(file: &'a [u8]) -> Result<Self> {
        if file.len() > MAX_FILE {
            return Err(malformed("the file is larger than this phone takes"));
        }
        let mut elements = Elements::new(WHAT, file);
        let version = pair(elements.expect(1, "version is not the first element")?)?;
        let header_length = usize::from(short(WHAT, elements.expect(2, "header length is not the second element")?)?);
        let (Some(header), Some(body)) = (file.get(..header_length), file.get(header_length..)) else {
            return Err(malformed("the header is longer than the file"));
        };
        // From here on nothing is read from beyond the header.
        let mut elements = Elements::new(WHAT, header);
        elements.expect(1, "version is not the first element")?;
        elements.expect(2, "header length is not the second element")?;
        let mut signer_value = elements.next_element()?;
        let mut signer_version = None;
        if let Some(element) = signer_value
            && element.tag == 28
        {
            signer_version = Some(pair(element.value)?);
            signer_value = elements.next_element()?;
        }
        let signer = match signer_value {
            Some(element) if element.tag == 3 => parse_signer(element.value)?,
            _ => return Err(malformed("no signer where it must stand")),
        };
        let signature_length = parse_signature_info(elements.expect(7, "no signature info after the signer")?)?;
        let before_signature = header.get(..elements.position()).unwrap_or_default();
        let signature = elements.expect(12, "no signature after its info")?;
        if signature.len() != signature_length {
            return Err(malformed("the signature is not as long as its modulus code says"));
        }
        let after_signature = file.get(elements.position()..).unwrap_or_default();
        let file_name = text(WHAT, elements.expect(14, "no file name after the signature")?)?;
        let timestamp = long(WHAT, elements.expect(15, "no time stamp after the file name")?)?;
        check_padding(elements.rest(), header_length)?;
        Ok(Self {
            version,
            signer_version,
            signer,
            file_name,
            timestamp,
            body,
            signature,
            before_signature,
            after_signature,
        })
    }

    /// Verifies the signature with the signer's key: PKCS#1 v1.5 with SHA-512 over the whole file without element 12.
    ///
    /// `public_key` is a PKCS#1 `RSAPublicKey` in DER.
    ///
    /// # Errors
    /// [`PhoneError::WrongSignature`] when it does not verify.
    pub fn verify(&self, public_key: &[u8]) -> Result<()> {
        let signed = [self.before_signature, self.after_signature].concat();
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA512, public_key)
            .verify(&signed, self.signature)
            .map_err(|_| PhoneError::WrongSignature { file: self.file_name.to_owned() })
    }
}

fn malformed(why: &'static str) -> PhoneError {
    PhoneError::Malformed { what: WHAT, why }
}

fn pair(value: &[u8]) -> Result<(u8, u8)> {
    match value {
        [major, minor] => Ok((*major, *minor)),
        _ => Err(malformed("a version is not two bytes")),
    }
}

/// Inside the signer, Cisco writes 4, 5, 6 and others 4, 6, 5: any order, each once.
fn parse_signer(value: &[u8]) -> Result<Signer<'_>> {
    let mut elements = Elements::new(WHAT, value);
    let (mut name, mut serial, mut issuer) = (None, None, None);
    while let Some(element) = elements.next_element()? {
        let twice = match element.tag {
            4 => name.replace(text(WHAT, element.value)?).is_some(),
            5 => serial.replace(minimal(element.value)).is_some(),
            6 => issuer.replace(text(WHAT, element.value)?).is_some(),
            _ => return Err(malformed("an unknown element in the signer")),
        };
        if twice {
            return Err(malformed("the signer says something twice"));
        }
    }
    match (name, serial, issuer) {
        (Some(name), Some(serial), Some(issuer)) if !serial.is_empty() => Ok(Signer { name, serial, issuer }),
        _ => Err(malformed("the signer lacks its name, serial number or issuer")),
    }
}

/// Returns the length in bytes that the signature must have.
fn parse_signature_info(value: &[u8]) -> Result<usize> {
    let mut elements = Elements::new(WHAT, value);
    let digest = byte(WHAT, elements.expect(8, "no digest in the signature info")?)?;
    let algorithm = elements.expect(9, "no algorithm in the signature info")?;
    elements.finish()?;
    if digest != DIGEST_SHA512 {
        return Err(malformed("the digest is not SHA-512"));
    }
    let mut elements = Elements::new(WHAT, algorithm);
    let scheme = byte(WHAT, elements.expect(10, "no scheme in the signature algorithm")?)?;
    let modulus = byte(WHAT, elements.expect(11, "no modulus in the signature algorithm")?)?;
    elements.finish()?;
    if scheme != RSA_PKCS1 {
        return Err(malformed("the signature algorithm is not RSA"));
    }
    // Codes 0 and 1 are RSA-512 and RSA-1024: too short to believe. No code for 3072 is known.
    match modulus {
        2 => Ok(256),
        3 => Ok(512),
        _ => Err(malformed("the signer's modulus is neither 2048 nor 4096 bits")),
    }
}

fn check_padding(padding: &[u8], header_length: usize) -> Result<()> {
    if padding.len() > MAX_PADDING || padding.iter().any(|byte| *byte != PADDING) {
        return Err(malformed("after the time stamp stands something else than padding"));
    }
    if !header_length.is_multiple_of(4) {
        return Err(malformed("the header's length is not a multiple of 4"));
    }
    Ok(())
}
