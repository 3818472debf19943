use casemate_pki::PkiError;

/// Why a phone's file was not read, built or trusted.
#[derive(Debug, thiserror::Error)]
pub enum PhoneFileError {
    /// The bytes are not the structure that they should be.
    #[error("not a valid {what} at byte {at}: {detail}")]
    Malformed {
        /// The structure: header, record, and so on.
        what: &'static str,
        /// Offset inside the structure.
        at: usize,
        /// What does not fit.
        detail: String,
    },
    /// The file is larger than the limit.
    #[error("{what} of {length} bytes is over the limit of {limit}; phones would not load it")]
    TooLarge {
        /// What kind of file.
        what: &'static str,
        /// Its length in bytes.
        length: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A value is too long for its 16-bit length.
    #[error("a value of {length} bytes does not fit tag {tag}")]
    ValueTooLong {
        /// The tag.
        tag: u8,
        /// Length of the value.
        length: usize,
    },
    /// A text has a character that cannot stand in it, or is too long.
    #[error("{value:?} cannot be a {what}")]
    Text {
        /// What it should be.
        what: &'static str,
        /// The text.
        value: String,
    },
    /// The list has none or more than two records of role SAST (phone-formats §2).
    #[error("a trust list has one or two SAST records, not {count}")]
    SastCount {
        /// How many there are.
        count: usize,
    },
    /// No SAST record is the signer's (phone-formats §2).
    #[error("the signer {signer} (serial {serial}) has no SAST record in its own list; phones would refuse it")]
    SignerNotInList {
        /// Subject of the signer.
        signer: String,
        /// Serial number in hexadecimal.
        serial: String,
    },
    /// A record does not say what its certificate says.
    #[error("the {role} record's {field} is not that of its certificate ({subject})")]
    RecordDiffers {
        /// Role of the record.
        role: crate::Role,
        /// Which field.
        field: &'static str,
        /// Subject of the certificate.
        subject: String,
    },
    /// A record that is never built: an unknown role, a key that phones do not take there.
    #[error("a {role} record for {subject} is not built: {detail}")]
    RecordRefused {
        /// Role of the record.
        role: crate::Role,
        /// Subject.
        subject: String,
        /// The reason.
        detail: &'static str,
    },
    /// Casemate signs with RSA-2048 and SHA-512 only (phone-formats §8).
    #[error("files are signed with RSA-2048 and SHA-512, not with {found}")]
    SchemeNotBuilt {
        /// What the header says.
        found: String,
    },
    /// The file is of a kind that is not signed here: an encrypted configuration.
    #[error("encrypted configurations are not built here")]
    EncryptedNotBuilt,
    /// The bytes mean the same as what Casemate would build, but are not the same.
    #[error("the bytes to be signed differ from what is built for the same content, at byte {at}")]
    NotCanonical {
        /// Offset of the first difference.
        at: usize,
    },
    /// What was laid out was read back as something else: writer and reader of the format disagree.
    #[error("{file:?} was laid out and read back as another content; it is not published, report this as a defect")]
    ReadBack {
        /// File name in the header.
        file: String,
    },
    /// The signature has another length than the header says.
    #[error("a signature of {length} bytes does not fit the header, which says {expected}")]
    SignatureLength {
        /// Its length.
        length: usize,
        /// What the header says.
        expected: usize,
    },
    /// No key that is trusted here is the signer's.
    #[error("the signer with serial {serial} of {issuer} is not known")]
    UnknownSigner {
        /// Serial number in hexadecimal.
        serial: String,
        /// Issuer as text.
        issuer: String,
    },
    /// The file is signed with SHA-1, or a key under 2048 bits, and the caller does not take that.
    #[error("a signature with {found} is not trusted here")]
    SchemeNotTrusted {
        /// What the header says.
        found: String,
    },
    /// The signature does not verify: the file was changed, or signed by another key.
    #[error("the signature of {file:?} does not verify")]
    BadSignature {
        /// File name in the header.
        file: String,
    },
    /// A certificate in a record cannot be read.
    #[error("a certificate in the trust list cannot be read")]
    Certificate(#[from] PkiError),
    /// A device configuration is not well-formed XML, or too deep, or has a document type.
    #[error("the device configuration is not XML that is taken here: {detail}")]
    Xml {
        /// What the reader says.
        detail: String,
    },
    /// An element of a device configuration is missing or has a value out of its range.
    #[error("<{element}> of the device configuration: {detail}")]
    Element {
        /// Name of the element.
        element: &'static str,
        /// What is wrong.
        detail: String,
    },
}
