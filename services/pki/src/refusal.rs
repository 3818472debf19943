use time::{Duration, OffsetDateTime};

use crate::PkiError;

/// Why a certificate or request is not signed. The text is for the audit trail: what was asked, and what was expected.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It is not of version 3, the only one with extensions.
    #[error("the certificate is of version {found}, not 3")]
    Version {
        /// The version.
        found: u8,
    },
    /// The issuer's DER differs from the CAPF certificate's subject.
    #[error("the issuer {found:?} is not the subject of the CAPF certificate, byte for byte")]
    Issuer {
        /// The issuer as text.
        found: String,
    },
    /// A self-signed certificate names another issuer.
    #[error("subject {subject:?} and issuer {issuer:?} of a self-signed certificate differ")]
    NotSelfIssued {
        /// Subject as text.
        subject: String,
        /// Issuer as text.
        issuer: String,
    },
    /// BasicConstraints is absent or not critical.
    #[error("BasicConstraints is absent or not critical")]
    BasicConstraints,
    /// BasicConstraints makes the subject an authority.
    #[error("BasicConstraints says CA:TRUE for a device")]
    CaTrue,
    /// KeyUsage is absent or not critical.
    #[error("KeyUsage is absent or not critical")]
    KeyUsage,
    /// KeyUsage lets the key sign certificates or revocation lists.
    #[error("KeyUsage has keyCertSign or cRLSign for a device")]
    SigningUsage,
    /// The common name is not exactly the expected one.
    #[error("the common names are {found:?}; exactly {expected:?} is expected")]
    CommonName {
        /// All common names.
        found: Vec<String>,
        /// The one that belongs there.
        expected: String,
    },
    /// An alternative name names something else.
    #[error("the alternative name {found} is not that of {expected:?}")]
    AltName {
        /// The name.
        found: String,
        /// What it should name.
        expected: String,
    },
    /// A critical extension that the profile does not have.
    #[error("the critical extension {oid} is not known here")]
    UnknownCriticalExtension {
        /// Dotted identifier.
        oid: String,
    },
    /// The end of validity is not after its start.
    #[error("validity from {not_before} to {not_after} is none")]
    ValidityOrder {
        /// Start.
        not_before: OffsetDateTime,
        /// End.
        not_after: OffsetDateTime,
    },
    /// Valid for longer than allowed.
    #[error("validity of {found} is longer than the {limit} allowed")]
    ValidityTooLong {
        /// From start to end.
        found: Duration,
        /// The limit.
        limit: Duration,
    },
    /// Valid for longer than the certificate of the key that is to sign it.
    #[error("validity until {not_after} is longer than that of the issuer's certificate, which ends at {issuer_ends}")]
    OutlivesIssuer {
        /// End.
        not_after: OffsetDateTime,
        /// The issuer's end.
        issuer_ends: OffsetDateTime,
    },
    /// The start of validity is not near now.
    #[error("validity starts at {not_before}, more than {tolerance} from now ({now})")]
    ValidityStart {
        /// Start.
        not_before: OffsetDateTime,
        /// This machine's clock.
        now: OffsetDateTime,
        /// How far it may be.
        tolerance: Duration,
    },
    /// The serial number is of fewer than 64 or more than 128 bits.
    #[error("the serial number {serial} is not of 64 to 128 bits")]
    Serial {
        /// In hexadecimal.
        serial: String,
    },
    /// It says that it is signed with another algorithm than the key's.
    #[error("the signature algorithm is {found}; the key signs certificates with {expected}")]
    SignatureAlgorithm {
        /// Dotted identifier.
        found: String,
        /// Dotted identifier.
        expected: String,
    },
    /// The public key is one of our own identities': a device would be given our name.
    #[error("the public key is one of Casemate's own identity keys, no device's")]
    OwnKey,
    /// The public key of a self-signature or request is not that of the signing key.
    #[error("the public key is not that of the {role} key, which is to sign")]
    NotOwnKey {
        /// The role of the signing key.
        role: casemate_hsm_api::KeyRole,
    },
    /// The subject has an attribute, or a count of them, that no identity has.
    #[error("the subject {subject:?} is not of an identity's form")]
    Subject {
        /// Subject as text.
        subject: String,
    },
    /// A value cannot be read or is of a kind that is never certified (weak RSA, unknown curve).
    #[error(transparent)]
    Content(#[from] PkiError),
    /// All that is known by name fits, but the whole is not what the profile makes: an extension more or less, another order,
    /// another encoding.
    #[error("it differs from the {profile} profile at byte {at}, or in an extension that the profile does not have")]
    NotTheProfile {
        /// Whose profile.
        profile: String,
        /// Offset of the first byte that differs.
        at: usize,
    },
}

/// Compares what is to be signed with what the profile makes.
pub(crate) fn same(found: &[u8], made: &[u8], profile: impl std::fmt::Display) -> Result<(), Refusal> {
    if found == made {
        return Ok(());
    }
    let at = found.iter().zip(made).take_while(|(found, made)| found == made).count();
    Err(Refusal::NotTheProfile { profile: profile.to_string(), at })
}
