//! One record of a trust list: a certificate and what it may do (phone-formats §2).
//!
//! Tags: 1 record length (first), 2 DNS name, 3 subject, 4 role, 5 issuer, 6 serial, 7 public key, 8 the certificate's
//! signature, 9 certificate, 10 IPv4 address, 11 certificate hash, 12 its algorithm. After 1, any order, each once.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA512, digest};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

use super::{Elements, byte, minimal, short, text};
use crate::error::{PhoneError, Result};

const WHAT: &str = "trust list record";
/// Tag 1 with its length and value.
const LENGTH_ELEMENT: usize = 5;

/// What a record's certificate may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// System Administrator Security Token: signs lists.
    Sast,
    /// Call processing.
    Ccm,
    /// Call processing, and signs files.
    CcmTftp,
    /// Signs files; or, with an EC key, serves them over HTTPS.
    Tftp,
    /// Enrols phones.
    Capf,
    /// An application server.
    AppServer,
    /// Answers about certificates that the phone does not know.
    Tvs,
    /// A role that nobody has explained.
    Other(u16),
}

impl Role {
    /// The role with this number in a list.
    #[must_use]
    pub fn from_number(number: u16) -> Self {
        match number {
            0 => Self::Sast,
            1 => Self::Ccm,
            2 => Self::CcmTftp,
            3 => Self::Tftp,
            4 => Self::Capf,
            7 => Self::AppServer,
            21 => Self::Tvs,
            other => Self::Other(other),
        }
    }
}

/// The kind and size of a certificate's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// RSA with this many bits of modulus.
    Rsa(usize),
    /// An elliptic curve with this many bits.
    Ec(usize),
}

/// A record whose parts agree with the certificate it carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What the certificate may do.
    pub role: Role,
    /// Subject, in the list's text form.
    pub subject: String,
    /// Issuer, in the list's text form.
    pub issuer: String,
    /// Serial number without leading zero bytes.
    pub serial: Vec<u8>,
    /// RSA: PKCS#1 `RSAPublicKey` DER; EC: the uncompressed point.
    pub public_key: Vec<u8>,
    /// Kind and size of that key.
    pub key_kind: KeyKind,
    /// The certificate in DER.
    pub certificate: Vec<u8>,
}

#[derive(Default)]
struct Fields<'a> {
    values: [Option<&'a [u8]>; 13],
}

impl<'a> Fields<'a> {
    fn read(record: &'a [u8]) -> Result<Self> {
        let mut fields = Self::default();
        let mut elements = Elements::new(WHAT, record);
        while let Some(element) = elements.next_element()? {
            let slot = match element.tag {
                1..=12 => fields.values.get_mut(usize::from(element.tag)),
                _ => None,
            };
            let Some(slot) = slot else { return Err(malformed("an unknown element")) };
            if slot.replace(element.value).is_some() {
                return Err(malformed("an element appears twice"));
            }
        }
        Ok(fields)
    }

    fn get(&self, tag: usize) -> Option<&'a [u8]> {
        self.values.get(tag).copied().flatten()
    }

    fn must(&self, tag: usize, why: &'static str) -> Result<&'a [u8]> {
        self.get(tag).ok_or(malformed(why))
    }
}

impl Record {
    /// Reads the record that starts `bytes`; returns it and what follows.
    ///
    /// # Errors
    /// [`PhoneError::Malformed`] when it breaks the format, or says about its certificate what the certificate does not.
    pub fn split_from(bytes: &[u8]) -> Result<(Self, &[u8])> {
        let length = usize::from(short(WHAT, Elements::new(WHAT, bytes).expect(1, "its length is not first")?)?);
        match (bytes.get(..length), bytes.get(length..)) {
            (Some(record), Some(rest)) if length > LENGTH_ELEMENT => Ok((Self::parse(record)?, rest)),
            _ => Err(malformed("its length does not fit the list")),
        }
    }

    fn parse(record: &[u8]) -> Result<Self> {
        let fields = Fields::read(record)?;
        let certificate = fields.must(9, "no certificate")?;
        let parsed = certificate_of(certificate)?;
        let serial = minimal(fields.must(6, "no serial number")?);
        if serial != minimal(parsed.raw_serial()) {
            return Err(malformed("its serial number is not its certificate's"));
        }
        let public_key = fields.must(7, "no public key")?;
        if public_key != parsed.public_key().subject_public_key.data.as_ref() {
            return Err(malformed("its public key is not its certificate's"));
        }
        if fields.get(8).is_some_and(|signature| signature != parsed.signature_value.data.as_ref()) {
            return Err(malformed("its signature is not its certificate's"));
        }
        if let Some(name) = fields.get(2) {
            text(WHAT, name)?;
        }
        if fields.get(10).is_some_and(|address| address.len() != 4) {
            return Err(malformed("its address is not four bytes"));
        }
        check_hash(&fields, certificate)?;
        Ok(Self {
            role: Role::from_number(short(WHAT, fields.must(4, "no role")?)?),
            subject: text(WHAT, fields.must(3, "no subject")?)?.to_owned(),
            issuer: text(WHAT, fields.must(5, "no issuer")?)?.to_owned(),
            serial: serial.to_vec(),
            public_key: public_key.to_vec(),
            key_kind: key_kind(&parsed)?,
            certificate: certificate.to_vec(),
        })
    }
}

fn malformed(why: &'static str) -> PhoneError {
    PhoneError::Malformed { what: WHAT, why }
}

fn certificate_of(der: &[u8]) -> Result<X509Certificate<'_>> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(malformed("its certificate is not one X.509 certificate in DER")),
    }
}

fn key_kind(certificate: &X509Certificate<'_>) -> Result<KeyKind> {
    match certificate.public_key().parsed() {
        Ok(PublicKey::RSA(key)) => Ok(KeyKind::Rsa(minimal(key.modulus).len() * 8)),
        // An uncompressed point is 0x04 and two coordinates. 66 bytes a coordinate is P-521.
        Ok(PublicKey::EC(point)) => match point.data().len() {
            65 => Ok(KeyKind::Ec(256)),
            97 => Ok(KeyKind::Ec(384)),
            133 => Ok(KeyKind::Ec(521)),
            _ => Err(malformed("its EC key is on no curve that phones know")),
        },
        _ => Err(malformed("its key is neither RSA nor EC")),
    }
}

/// Elements 11 and 12, where a list carries them: an identifier, so SHA-1 is allowed here.
fn check_hash(fields: &Fields<'_>, certificate: &[u8]) -> Result<()> {
    let (hash, algorithm) = match (fields.get(11), fields.get(12)) {
        (None, None) => return Ok(()),
        (Some(hash), Some(algorithm)) => (hash, byte(WHAT, algorithm)?),
        _ => return Err(malformed("a certificate hash without its algorithm, or the reverse")),
    };
    let algorithm = match algorithm {
        1 => &SHA1_FOR_LEGACY_USE_ONLY,
        2 => &SHA256,
        3 => &SHA512,
        _ => return Err(malformed("an unknown hash algorithm")),
    };
    if digest(algorithm, certificate).as_ref() == hash {
        Ok(())
    } else {
        Err(malformed("its certificate hash is not its certificate's"))
    }
}
