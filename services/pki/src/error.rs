/// Why a certificate, request or key could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The bytes are not the DER structure that they should be: cut short, with bytes left over, or with a wrong tag.
    #[error("not a valid {what}: {detail}")]
    Malformed {
        /// The structure in the words of RFC 5280.
        what: &'static str,
        /// What does not fit.
        detail: String,
    },
    /// The public key's algorithm or curve is none that Casemate uses.
    #[error("public keys of algorithm {oid} are not used here; RSA, P-256, P-384 and P-521 are")]
    KeyAlgorithm {
        /// Object identifier of the algorithm or curve, or what stands in its place.
        oid: String,
    },
    /// The RSA modulus is of a size that is too weak or odd.
    #[error("an RSA key of {bits} bits is refused; 2048, 3072 and 4096 are taken")]
    KeySize {
        /// Length of the modulus.
        bits: usize,
    },
    /// The RSA public exponent is even, below 65537 or above 256 bits (FIPS 186-5, A.1.1).
    #[error("the RSA key's public exponent is not an odd number from 65537 to 2^256")]
    KeyExponent,
    /// The FIPS module does not take the key: a point that is not on its curve, a modulus that cannot be one.
    #[error("the {algorithm} public key is refused by the cryptographic module: {detail}")]
    KeyInvalid {
        /// What the key claims to be.
        algorithm: casemate_hsm_api::KeyAlgorithm,
        /// The module's reason.
        detail: String,
    },
    /// The host name cannot stand in a certificate: empty, over 64 characters with its prefix, or not a DNS name.
    #[error("{host:?} cannot be a certificate's host name: {detail}")]
    HostName {
        /// What was given.
        host: String,
        /// Which rule it breaks.
        detail: &'static str,
    },
    /// The device name cannot stand in a certificate.
    #[error("{device:?} cannot be a device name: 1 to 64 letters, digits, '-', '_' and '.' are taken")]
    DeviceName {
        /// What was given.
        device: String,
    },
    /// A setting for the subject is not allowed there: empty, over 64 characters, or a country of other than two letters.
    #[error("{value:?} cannot be the subject's {attribute}; correct the certificate settings")]
    SubjectSetting {
        /// Short name of the attribute: `O`, `OU`, `L`, `ST` or `C`.
        attribute: &'static str,
        /// What was given.
        value: String,
    },
    /// A date is outside the years 1950 to 9999.
    #[error("the date {date} cannot stand in a certificate")]
    Date {
        /// The date.
        date: time::OffsetDateTime,
    },
    /// The signing key signs with an algorithm that no certificate of ours carries.
    #[error("certificates are not signed with {algorithm}")]
    SignatureAlgorithm {
        /// What the key says of itself.
        algorithm: String,
    },
    /// The signing key is not the one that the issuer's certificate carries.
    #[error("the signing key is not the key of the issuer's certificate ({issuer}); was it replaced?")]
    WrongIssuerKey {
        /// Subject of the issuer's certificate.
        issuer: String,
    },
    /// The certificate or request could not be built; most often the signer failed.
    #[error("the certificate could not be built")]
    Build(#[from] rcgen::Error),
    /// The FIPS module gave no random bytes.
    #[error("the cryptographic module gave no random bytes")]
    Random,
}

impl PkiError {
    pub(crate) fn malformed(what: &'static str, detail: impl Into<String>) -> Self {
        Self::Malformed { what, detail: detail.into() }
    }
}
