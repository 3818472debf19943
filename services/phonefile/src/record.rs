use std::net::Ipv4Addr;

use casemate_pki::{CertificateFacts, SpkiFacts};

use crate::{
    PhoneFileError, Role,
    tlv::{Reader, put, put_text},
};

const WHAT: &str = "trust list record";
const RECORD_LENGTH: u8 = 1;
const DNS_NAME: u8 = 2;
const SUBJECT_NAME: u8 = 3;
const FUNCTION: u8 = 4;
const ISSUER_NAME: u8 = 5;
const SERIAL_NUMBER: u8 = 6;
const PUBLIC_KEY: u8 = 7;
const SIGNATURE: u8 = 8;
const CERTIFICATE: u8 = 9;
const IP_ADDRESS: u8 = 10;
const CERTIFICATE_HASH: u8 = 11;
const HASH_ALGORITHM: u8 = 12;

/// Bytes of the first element, which RECORDLENGTH counts too.
const RECORD_HEAD: usize = 5;

/// One certificate of a trust list and what it is trusted for (phone-formats §2).
///
/// ```text
/// 1 length, [2 DNS name], 3 subject, 4 role, 5 issuer, 6 serial, 7 public key, [8 signature], 9 certificate, [10 IPv4],
/// [11 hash, 12 its algorithm]; the order after the first is free when read, and this when written
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
    /// Host, which Cisco always writes, if only as an empty text.
    pub dns_name: Option<String>,
    /// Subject as text.
    pub subject: String,
    /// What it is trusted for.
    pub role: Role,
    /// Issuer as text.
    pub issuer: String,
    /// Serial number, minimal big-endian, no sign byte.
    pub serial: Vec<u8>,
    /// PKCS#1 `RSAPublicKey`, or the uncompressed point of a curve.
    pub public_key: Vec<u8>,
    /// The certificate's own signature.
    pub signature: Option<Vec<u8>>,
    /// The certificate, DER.
    pub certificate: Vec<u8>,
    /// Address of the host, which Cisco always writes.
    pub ip_address: Option<Ipv4Addr>,
    /// Hash of the certificate in newer files. Not built.
    pub certificate_hash: Option<Vec<u8>>,
    /// Algorithm of that hash. Not built.
    pub hash_algorithm: Option<u8>,
}

impl Record {
    /// The record of a certificate in a role, for the host `dns_name` at `ip_address`.
    #[must_use]
    pub fn of(role: Role, certificate: &CertificateFacts, dns_name: &str, ip_address: Ipv4Addr) -> Self {
        Self {
            dns_name: Some(dns_name.to_owned()),
            subject: certificate.subject.clone(),
            role,
            issuer: certificate.issuer.clone(),
            serial: certificate.serial.clone(),
            public_key: certificate.public_key.clone(),
            signature: Some(certificate.signature.clone()),
            certificate: certificate.der.clone(),
            ip_address: Some(ip_address),
            certificate_hash: None,
            hash_algorithm: None,
        }
    }

    /// Whether the public key is RSA's: a DER SEQUENCE. A point starts with 4.
    #[must_use]
    pub fn is_rsa(&self) -> bool {
        self.public_key.first() == Some(&0x30)
    }

    /// That each field says what the certificate says. A phone looks at the fields, an operator at the certificate.
    ///
    /// # Errors
    /// [`PhoneFileError::RecordDiffers`], [`PhoneFileError::Certificate`], and [`PhoneFileError::RecordRefused`] for a key
    /// that is of no kind used here.
    pub fn check(&self) -> Result<SpkiFacts, PhoneFileError> {
        let certificate = CertificateFacts::parse(&self.certificate)?;
        let fields = [
            ("subject", self.subject == certificate.subject),
            ("issuer", self.issuer == certificate.issuer),
            ("serial number", self.serial == certificate.serial),
            ("public key", self.public_key == certificate.public_key),
            ("signature", self.signature.as_ref().is_none_or(|signature| *signature == certificate.signature)),
        ];
        match fields.into_iter().find(|(_, same)| !same) {
            Some((field, _)) => {
                Err(PhoneFileError::RecordDiffers { role: self.role, field, subject: certificate.subject })
            }
            None => Ok(SpkiFacts::parse(&certificate.spki_der)?),
        }
    }

    /// Takes one record from the front.
    pub(crate) fn take(list: &mut Reader<'_>) -> Result<Self, PhoneFileError> {
        let length = usize::from(u16::from_be_bytes(list.fixed(RECORD_LENGTH)?));
        let rest = length.checked_sub(RECORD_HEAD).ok_or_else(|| list.malformed("RECORDLENGTH is under 5"))?;
        let mut fields = Fields::default();
        let mut reader = Reader::new(WHAT, list.take(rest)?);
        while !reader.is_empty() {
            let (tag, value) = reader.element()?;
            fields.note(&reader, tag, value)?;
        }
        fields.record(&reader)
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) -> Result<(), PhoneFileError> {
        let mut fields = Vec::new();
        if let Some(name) = &self.dns_name {
            put_text(&mut fields, DNS_NAME, name)?;
        }
        put_text(&mut fields, SUBJECT_NAME, &self.subject)?;
        put(&mut fields, FUNCTION, &self.role.number().to_be_bytes())?;
        put_text(&mut fields, ISSUER_NAME, &self.issuer)?;
        put(&mut fields, SERIAL_NUMBER, &self.serial)?;
        put(&mut fields, PUBLIC_KEY, &self.public_key)?;
        if let Some(signature) = &self.signature {
            put(&mut fields, SIGNATURE, signature)?;
        }
        put(&mut fields, CERTIFICATE, &self.certificate)?;
        if let Some(address) = self.ip_address {
            put(&mut fields, IP_ADDRESS, &address.octets())?;
        }
        if let Some(hash) = &self.certificate_hash {
            put(&mut fields, CERTIFICATE_HASH, hash)?;
        }
        if let Some(algorithm) = self.hash_algorithm {
            put(&mut fields, HASH_ALGORITHM, &[algorithm])?;
        }
        let length = fields.len() + RECORD_HEAD;
        let length = u16::try_from(length).map_err(|_| PhoneFileError::ValueTooLong { tag: RECORD_LENGTH, length })?;
        put(out, RECORD_LENGTH, &length.to_be_bytes())?;
        out.extend(fields);
        Ok(())
    }
}

/// The fields of a record as they come.
#[derive(Default)]
struct Fields {
    dns_name: Option<String>,
    subject: Option<String>,
    role: Option<Role>,
    issuer: Option<String>,
    serial: Option<Vec<u8>>,
    public_key: Option<Vec<u8>>,
    signature: Option<Vec<u8>>,
    certificate: Option<Vec<u8>>,
    ip_address: Option<Ipv4Addr>,
    certificate_hash: Option<Vec<u8>>,
    hash_algorithm: Option<u8>,
}

impl Fields {
    fn note(&mut self, reader: &Reader<'_>, tag: u8, value: &[u8]) -> Result<(), PhoneFileError> {
        let bytes = || value.to_vec();
        let was_there = match tag {
            DNS_NAME => self.dns_name.replace(reader.text(tag, value)?).is_some(),
            SUBJECT_NAME => self.subject.replace(reader.text(tag, value)?).is_some(),
            FUNCTION => self.role.replace(u16::from_be_bytes(reader.array(tag, value)?).into()).is_some(),
            ISSUER_NAME => self.issuer.replace(reader.text(tag, value)?).is_some(),
            SERIAL_NUMBER => self.serial.replace(bytes()).is_some(),
            PUBLIC_KEY => self.public_key.replace(bytes()).is_some(),
            SIGNATURE => self.signature.replace(bytes()).is_some(),
            CERTIFICATE => self.certificate.replace(bytes()).is_some(),
            IP_ADDRESS => self.ip_address.replace(reader.array::<4>(tag, value)?.into()).is_some(),
            CERTIFICATE_HASH => self.certificate_hash.replace(bytes()).is_some(),
            HASH_ALGORITHM => self.hash_algorithm.replace(u8::from_be_bytes(reader.array(tag, value)?)).is_some(),
            tag => return Err(reader.malformed(format!("tag {tag} is not known"))),
        };
        if was_there { Err(reader.malformed(format!("tag {tag} stands there twice"))) } else { Ok(()) }
    }

    fn record(self, reader: &Reader<'_>) -> Result<Record, PhoneFileError> {
        let missing = |tag: u8| move || reader.malformed(format!("tag {tag} is missing"));
        Ok(Record {
            dns_name: self.dns_name,
            subject: self.subject.ok_or_else(missing(SUBJECT_NAME))?,
            role: self.role.ok_or_else(missing(FUNCTION))?,
            issuer: self.issuer.ok_or_else(missing(ISSUER_NAME))?,
            serial: self.serial.ok_or_else(missing(SERIAL_NUMBER))?,
            public_key: self.public_key.ok_or_else(missing(PUBLIC_KEY))?,
            signature: self.signature,
            certificate: self.certificate.ok_or_else(missing(CERTIFICATE))?,
            ip_address: self.ip_address,
            certificate_hash: self.certificate_hash,
            hash_algorithm: self.hash_algorithm,
        })
    }
}
