use std::fmt;

use aws_lc_rs::digest;
use casemate_pki::{CertificateFacts, SpkiFacts};
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{Content, Limits, Record, SignedFile, SignerVersion, TrustList};

/// A trust list for people and for `--json`. The guide's `show itl` (2784) prints MD5 and SHA-1 of the file; here it is
/// SHA-256, with SHA-1 beside it as an identifier that phones show.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ListView {
    /// Name in the header.
    pub file: String,
    /// Bytes of the whole file.
    pub length: usize,
    /// SHA-256 of the whole file, hexadecimal.
    pub sha256: String,
    /// SHA-1 of the whole file, hexadecimal.
    pub sha1: String,
    /// When it was made, RFC 3339.
    pub made: String,
    /// Which features it switches on.
    pub signer_version: Option<SignerVersion>,
    /// Subject of the signer.
    pub signer: String,
    /// Serial number of the signer, hexadecimal.
    pub signer_serial: String,
    /// How it is signed, as `RSA-2048 with SHA-512`.
    pub signed_with: String,
    /// The records.
    pub records: Vec<RecordView>,
    /// What an operator should know.
    pub warnings: Vec<String>,
}

/// A record for people.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct RecordView {
    /// Role, by name.
    pub role: String,
    /// Role, by number.
    pub role_number: u16,
    /// Host.
    pub host: Option<String>,
    /// IPv4 address.
    pub address: Option<String>,
    /// Subject.
    pub subject: String,
    /// Issuer.
    pub issuer: String,
    /// Serial number, hexadecimal.
    pub serial: String,
    /// Kind and size of the key, as `RSA-2048`, or why that is not known.
    pub key: String,
    /// End of validity, RFC 3339; nothing if the certificate cannot be read.
    pub not_after: Option<String>,
    /// SHA-256 of the certificate, hexadecimal.
    pub sha256: String,
    /// SHA-1 of the certificate, hexadecimal.
    pub sha1: String,
    /// Whether it signed this list.
    pub signed_this_list: bool,
}

impl ListView {
    /// The view of a file that is a trust list; nothing for another.
    #[must_use]
    pub fn of(file: &SignedFile<'_>, limits: &Limits) -> Option<Self> {
        let Content::TrustList(list) = &file.content else { return None };
        let signer = list.signer();
        Some(Self {
            file: list.file_name().to_owned(),
            length: file.bytes().len(),
            sha256: hash(&digest::SHA256, file.bytes()),
            sha1: hash(&digest::SHA1_FOR_LEGACY_USE_ONLY, file.bytes()),
            made: date(OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(i64::from(list.timestamp()))),
            signer_version: list.signer_version(),
            signer: signer.subject.clone(),
            signer_serial: hex::encode(&signer.serial),
            signed_with: format!("RSA-{} with {}", file.modulus.bytes() * 8, file.digest),
            records: list.records().iter().map(|record| RecordView::of(record, list)).collect(),
            warnings: list.warnings(limits).iter().map(ToString::to_string).collect(),
        })
    }
}

impl RecordView {
    fn of(record: &Record, list: &TrustList) -> Self {
        let certificate = CertificateFacts::parse(&record.certificate).ok();
        let key = certificate.as_ref().map(|certificate| SpkiFacts::parse(&certificate.spki_der));
        let signer = list.signer();
        Self {
            role: record.role.to_string(),
            role_number: record.role.number(),
            host: record.dns_name.clone(),
            address: record.ip_address.map(|address| address.to_string()),
            subject: record.subject.clone(),
            issuer: record.issuer.clone(),
            serial: hex::encode(&record.serial),
            key: match key {
                Some(Ok(key)) => key.algorithm.to_string(),
                Some(Err(error)) => error.to_string(),
                None => "the certificate cannot be read".to_owned(),
            },
            not_after: certificate.map(|certificate| date(certificate.not_after)),
            sha256: hash(&digest::SHA256, &record.certificate),
            sha1: hash(&digest::SHA1_FOR_LEGACY_USE_ONLY, &record.certificate),
            signed_this_list: record.role == crate::Role::Sast
                && record.serial == signer.serial
                && record.issuer == signer.issuer,
        }
    }
}

fn hash(algorithm: &'static digest::Algorithm, bytes: &[u8]) -> String {
    hex::encode(digest::digest(algorithm, bytes))
}

fn date(date: OffsetDateTime) -> String {
    date.format(&Rfc3339).unwrap_or_else(|_| date.to_string())
}

impl fmt::Display for ListView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, {} bytes, made {}", self.file, self.length, self.made)?;
        writeln!(f, "  SHA-256    {}", self.sha256)?;
        writeln!(f, "  SHA-1      {} (identifier only)", self.sha1)?;
        writeln!(f, "  signed by  {}", self.signer)?;
        writeln!(f, "             serial {}, {}", self.signer_serial, self.signed_with)?;
        let version = match self.signer_version {
            Some(SignerVersion::V1_1) => "1.1 (elliptic curves, configuration over HTTPS 6971)",
            Some(SignerVersion::V1_0) => "1.0",
            None => "not stated",
        };
        writeln!(f, "  version    {version}")?;
        for (number, record) in (1..).zip(&self.records) {
            writeln!(f, "\nrecord {number} of {}: {record}", self.records.len())?;
        }
        self.warnings.iter().try_for_each(|warning| writeln!(f, "\nwarning: {warning}"))
    }
}

impl fmt::Display for RecordView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} ({})", self.role, self.role_number)?;
        if self.signed_this_list {
            writeln!(f, "  this certificate signed the list")?;
        }
        let host = self.host.as_deref().filter(|host| !host.is_empty()).unwrap_or("-");
        writeln!(f, "  host       {host}, {}", self.address.as_deref().unwrap_or("-"))?;
        writeln!(f, "  subject    {}", self.subject)?;
        writeln!(f, "  issuer     {}", self.issuer)?;
        writeln!(f, "  serial     {}", self.serial)?;
        writeln!(f, "  key        {}", self.key)?;
        writeln!(f, "  not after  {}", self.not_after.as_deref().unwrap_or("-"))?;
        writeln!(f, "  SHA-256    {}", self.sha256)?;
        write!(f, "  SHA-1      {} (identifier only)", self.sha1)
    }
}
