//! The trust list: what it must be, and when the phone takes a new one (phone-formats §2).

use crate::error::{PhoneError, Result};
use crate::tlv::header::{Envelope, Signer};
use crate::tlv::record::{KeyKind, Record, Role};

/// The name inside every ITL, whatever name it was fetched under.
pub const LIST_NAME: &str = "ITLFile.tlv";
/// A list may carry this many tokens at most.
const MAX_SAST: usize = 2;
/// More records than any list that phones are known to take.
const MAX_RECORDS: usize = 64;
/// The largest list-signing key that phones are known to take, in bits.
const MAX_SIGNER_BITS: usize = 2048;
const LIST_VERSION: (u8, u8) = (1, 2);

/// A list whose signature was verified with the SAST record that it names, and which keeps every rule.
#[derive(Debug, Clone)]
pub struct TrustList {
    /// 1.1 when the list offers EC certificates and HTTPS.
    pub signer_version: (u8, u8),
    /// When it was signed, in Unix seconds.
    pub timestamp: u32,
    /// Its records in order.
    pub records: Vec<Record>,
    signer: usize,
    bytes: Vec<u8>,
}

/// What a verified list's signer is to a phone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The phone has no list: it takes this one on trust.
    FirstUse,
    /// Signed by a token that the phone's own list names.
    KnownSigner,
    /// Signed by a token that the phone does not know: TVS must be asked.
    UnknownSigner,
}

impl TrustList {
    /// Parses a list, verifies its signature with its own SAST record and checks the rules.
    ///
    /// # Errors
    /// [`PhoneError::Malformed`], [`PhoneError::WrongSignature`], or [`PhoneError::List`] for a broken rule.
    pub fn read(file: &[u8]) -> Result<Self> {
        let envelope = Envelope::parse(file)?;
        if envelope.version != LIST_VERSION {
            return Err(PhoneError::List("its version is not 1.2"));
        }
        if envelope.file_name != LIST_NAME {
            return Err(PhoneError::List("it was signed under another name than ITLFile.tlv"));
        }
        let signer_version = match envelope.signer_version {
            None | Some((1, 0)) => (1, 0),
            Some((1, 1)) => (1, 1),
            Some(_) => return Err(PhoneError::List("its signer version is neither 1.0 nor 1.1")),
        };
        let records = read_records(envelope.body)?;
        let signer = find(&records, &envelope.signer, &[Role::Sast])
            .ok_or(PhoneError::List("no SAST record has the serial number and issuer of its signer"))?;
        let Some(record) = records.get(signer) else {
            return Err(PhoneError::List("no SAST record has the serial number and issuer of its signer"));
        };
        if record.subject != envelope.signer.name {
            return Err(PhoneError::List("its header and its SAST record name the signer differently"));
        }
        envelope.verify(&record.public_key)?;
        check_rules(&records, signer_version)?;
        Ok(Self { signer_version, timestamp: envelope.timestamp, records, signer, bytes: file.to_vec() })
    }

    /// The list as it was received.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The SAST record that signed this list.
    #[must_use]
    pub fn signer(&self) -> Option<&Record> {
        self.records.get(self.signer)
    }

    /// All records with this role.
    pub fn with_role(&self, role: Role) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(move |record| record.role == role)
    }

    /// Whether the list switches on EC certificates and HTTPS provisioning.
    #[must_use]
    pub fn offers_ec(&self) -> bool {
        self.signer_version >= (1, 1)
    }

    /// What this list's signer is to a phone that holds `known`. Certificates are compared byte for byte.
    #[must_use]
    pub fn standing(&self, known: Option<&Self>) -> Standing {
        match (known, self.signer()) {
            (None, _) => Standing::FirstUse,
            (Some(known), Some(signer))
                if known.with_role(Role::Sast).any(|sast| sast.certificate == signer.certificate) =>
            {
                Standing::KnownSigner
            }
            _ => Standing::UnknownSigner,
        }
    }

    /// Verifies a signed file (phone-formats §3) fetched as `name`, and returns its body.
    ///
    /// # Errors
    /// [`PhoneError::UnknownFileSigner`] when the signer has no record with role TFTP or CCM+TFTP here;
    /// [`PhoneError::WrongSignature`]; [`PhoneError::Malformed`], also when the file was signed under another name.
    pub fn open_signed<'a>(&self, name: &str, file: &'a [u8]) -> Result<&'a [u8]> {
        let what = "signed file";
        let envelope = Envelope::parse(file)?;
        if envelope.version != (1, 0) || envelope.signer_version.is_some() {
            return Err(PhoneError::Malformed { what, why: "its version is not 1.0 without a signer version" });
        }
        if envelope.file_name != name {
            return Err(PhoneError::Malformed { what, why: "it was signed under another name than it was fetched by" });
        }
        let signer = find(&self.records, &envelope.signer, &[Role::Tftp, Role::CcmTftp])
            .and_then(|index| self.records.get(index))
            .ok_or_else(|| PhoneError::UnknownFileSigner {
                file: name.to_owned(),
                signer: envelope.signer.name.to_owned(),
            })?;
        envelope.verify(&signer.public_key)?;
        Ok(envelope.body)
    }
}

fn read_records(mut body: &[u8]) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    while !body.is_empty() {
        if records.len() == MAX_RECORDS {
            return Err(PhoneError::List("it has more records than this phone takes"));
        }
        let (record, rest) = Record::split_from(body)?;
        records.push(record);
        body = rest;
    }
    Ok(records)
}

/// Signer and record are matched by serial number and issuer.
fn find(records: &[Record], signer: &Signer<'_>, roles: &[Role]) -> Option<usize> {
    records.iter().position(|record| {
        roles.contains(&record.role) && record.serial == signer.serial && record.issuer == signer.issuer
    })
}

fn check_rules(records: &[Record], signer_version: (u8, u8)) -> Result<()> {
    let tokens = records.iter().filter(|record| record.role == Role::Sast);
    if tokens.clone().count() > MAX_SAST {
        return Err(PhoneError::List("it has more than two SAST records"));
    }
    if !tokens.clone().all(|token| matches!(token.key_kind, KeyKind::Rsa(bits) if bits <= MAX_SIGNER_BITS)) {
        return Err(PhoneError::List("a SAST record's key is not RSA of at most 2048 bits"));
    }
    for record in records.iter().filter(|record| matches!(record.key_kind, KeyKind::Ec(_))) {
        if !matches!(record.role, Role::Tftp | Role::Ccm) {
            return Err(PhoneError::List("an EC certificate has another role than TFTP or CCM"));
        }
        if signer_version < (1, 1) {
            return Err(PhoneError::List("it holds an EC certificate but its signer version is not 1.1"));
        }
    }
    // TVS is never asked about its own certificate, so the list must hold it.
    if !records.iter().any(|record| record.role == Role::Tvs) {
        return Err(PhoneError::List("it has no TVS record"));
    }
    Ok(())
}
