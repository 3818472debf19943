use std::collections::BTreeSet;

use casemate_hsm_api::KeyAlgorithm;
use casemate_pki::CertificateFacts;

use crate::{
    Content, Limits, ListWarning, PhoneFileError, Record, Role, Sha1, SignedFile, SignerId, SignerKey, SignerVersion,
    header::{Digest, FileKind, Header, Modulus},
    tlv::Reader,
};

/// The name that every initial trust list carries, also one made for a single device (phone-formats §1, tag 14).
pub const ITL_FILE_NAME: &str = "ITLFile.tlv";
/// The name that every certificate trust list carries.
pub const CTL_FILE_NAME: &str = "CTLFile.tlv";

/// The content of a trust list. It holds the rules of phone-formats §2: one or two SAST records, the signer among them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TrustList {
    file_name: String,
    timestamp: u32,
    signer_version: Option<SignerVersion>,
    signer: SignerId,
    records: Vec<Record>,
}

impl TrustList {
    /// A list signed by `signer`, with `timestamp` in seconds since 1970.
    ///
    /// # Errors
    /// [`PhoneFileError::SastCount`], [`PhoneFileError::SignerNotInList`].
    pub fn new(
        file_name: &str,
        timestamp: u32,
        signer_version: Option<SignerVersion>,
        signer: SignerId,
        records: Vec<Record>,
    ) -> Result<Self, PhoneFileError> {
        let list = Self { file_name: file_name.to_owned(), timestamp, signer_version, signer, records };
        let count = list.sast().count();
        if !(1..=2).contains(&count) {
            return Err(PhoneFileError::SastCount { count });
        }
        let signer = &list.signer;
        if !list.sast().any(|record| record.serial == signer.serial && record.issuer == signer.issuer) {
            let serial = hex::encode(&signer.serial);
            return Err(PhoneFileError::SignerNotInList { signer: signer.subject.clone(), serial });
        }
        Ok(list)
    }

    /// The list that is `file`, if that is one, of whatever size, and one of its own SAST signed it: the list that phones hold who
    /// fetched it, if they trusted its signer.
    #[must_use]
    pub fn verified(file: &[u8]) -> Option<Self> {
        let signed = SignedFile::parse(file, &Limits { list_bytes: usize::MAX, ..Limits::default() }).ok()?;
        let Content::TrustList(list) = &signed.content else { return None };
        signed.verify(&list.list_signers(), Sha1::Refused).ok()?;
        Some(list.clone())
    }

    /// Name in the header.
    #[must_use]
    pub fn file_name(&self) -> &str {
        &self.file_name
    }

    /// Seconds since 1970.
    #[must_use]
    pub const fn timestamp(&self) -> u32 {
        self.timestamp
    }

    /// Which features of a phone it switches on.
    #[must_use]
    pub const fn signer_version(&self) -> Option<SignerVersion> {
        self.signer_version
    }

    /// Who signs it.
    #[must_use]
    pub const fn signer(&self) -> &SignerId {
        &self.signer
    }

    /// The records, in their order.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The keys that may sign the next list for a phone that holds this one.
    #[must_use]
    pub fn list_signers(&self) -> Vec<SignerKey> {
        self.sast().map(SignerKey::of).collect()
    }

    /// The keys that may sign files for a phone that holds this list.
    #[must_use]
    pub fn file_signers(&self) -> Vec<SignerKey> {
        self.records.iter().filter(|record| record.role.signs_files() && record.is_rsa()).map(SignerKey::of).collect()
    }

    /// The certificates that may sign the next list for a phone that holds this one, the signer's first.
    fn signer_certificates(&self) -> impl Iterator<Item = &[u8]> {
        let is_signer = |record: &&Record| record.serial == self.signer.serial && record.issuer == self.signer.issuer;
        let (own, other): (Vec<_>, Vec<_>) = self.sast().partition(is_signer);
        own.into_iter().chain(other).map(|record| &*record.certificate)
    }

    /// Who of `candidates` is to sign the list that follows this one, so that phones that hold this one take it: the one that
    /// signed this one if it is among them, and otherwise another SAST of this one. Nothing if phones know none of them.
    #[must_use]
    pub fn next_signer<'a>(&self, candidates: &[&'a CertificateFacts]) -> Option<&'a CertificateFacts> {
        let known = |certificate: &[u8]| candidates.iter().find(|candidate| candidate.der == certificate).copied();
        self.signer_certificates().find_map(known)
    }

    /// Whether phones that hold this list know `certificate` as one that may sign the next.
    #[must_use]
    pub fn knows_signer(&self, certificate: &[u8]) -> bool {
        self.signer_certificates().any(|known| known == certificate)
    }

    /// What an operator should know before phones get it.
    #[must_use]
    pub fn warnings(&self, limits: &Limits) -> Vec<ListWarning> {
        let certificates: BTreeSet<&[u8]> = self.records.iter().map(|record| &*record.certificate).collect();
        let (count, limit) = (certificates.len(), limits.list_certificates);
        if count > limit { vec![ListWarning::Certificates { count, limit }] } else { Vec::new() }
    }

    fn sast(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(|record| record.role == Role::Sast)
    }

    /// What a list must be beyond being readable for Casemate to sign it.
    pub(crate) fn check_for_signing(&self) -> Result<(), PhoneFileError> {
        if ![ITL_FILE_NAME, CTL_FILE_NAME].contains(&&*self.file_name) {
            return Err(PhoneFileError::Text { what: "trust list's name", value: self.file_name.clone() });
        }
        let signer =
            self.sast().find(|record| record.serial == self.signer.serial && record.issuer == self.signer.issuer);
        if signer.is_none_or(|record| record.subject != self.signer.subject) {
            let serial = hex::encode(&self.signer.serial);
            return Err(PhoneFileError::SignerNotInList { signer: self.signer.subject.clone(), serial });
        }
        self.records.iter().try_for_each(|record| self.check_record(record))
    }

    fn check_record(&self, record: &Record) -> Result<(), PhoneFileError> {
        let algorithm = record.check()?.algorithm;
        let refuse =
            |detail| Err(PhoneFileError::RecordRefused { role: record.role, subject: record.subject.clone(), detail });
        if matches!(record.role, Role::Unknown(_)) {
            return refuse("the role's meaning is not known");
        }
        if record.role == Role::Sast && algorithm != KeyAlgorithm::Rsa2048 {
            return refuse("phones take RSA keys of 2048 bits for list signers");
        }
        if algorithm.rsa_bits().is_none() && self.signer_version != Some(SignerVersion::V1_1) {
            return refuse("phones take elliptic curves from signer version 1.1 on");
        }
        if record.certificate_hash.is_some() || record.hash_algorithm.is_some() {
            return refuse("certificate hashes (tags 11 and 12) are not written");
        }
        Ok(())
    }

    pub(crate) fn from_parts(header: Header, body: &[u8]) -> Result<Self, PhoneFileError> {
        let mut reader = Reader::new("trust list", body);
        let mut records = Vec::new();
        while !reader.is_empty() {
            records.push(Record::take(&mut reader)?);
        }
        Self::new(&header.file_name, header.timestamp, header.signer_version, header.signer, records)
    }

    pub(crate) fn header(&self) -> Header {
        Header {
            kind: FileKind::TrustList,
            signer_version: self.signer_version,
            signer: self.signer.clone(),
            digest: Digest::Sha512,
            modulus: Modulus::Bits2048,
            file_name: self.file_name.clone(),
            timestamp: self.timestamp,
        }
    }

    pub(crate) fn body(&self) -> Result<Vec<u8>, PhoneFileError> {
        let mut out = Vec::new();
        self.records.iter().try_for_each(|record| record.write(&mut out))?;
        Ok(out)
    }
}
