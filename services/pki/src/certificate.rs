use aws_lc_rs::digest;
use time::OffsetDateTime;
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use crate::{
    PkiError, TbsFacts,
    der::{BIT_STRING, Reader, SEQUENCE},
    extension::Extensions,
    tbs::{algorithm, whole_bytes},
};

const WHAT: &str = "Certificate";

/// What a certificate says (RFC 5280, 4.1). Reading it proves nothing: no signature is checked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CertificateFacts {
    /// The whole certificate.
    pub der: Vec<u8>,
    /// Serial number, minimal big-endian, no sign byte.
    pub serial: Vec<u8>,
    /// Subject as text: attributes in the certificate's order, joined with `,` (phone-formats §1).
    pub subject: String,
    /// Subject, the DER `Name`.
    pub subject_der: Vec<u8>,
    /// Every common name of the subject.
    pub common_names: Vec<String>,
    /// Issuer as text, as the subject.
    pub issuer: String,
    /// Issuer, the DER `Name`.
    pub issuer_der: Vec<u8>,
    /// The `SubjectPublicKeyInfo`.
    pub spki_der: Vec<u8>,
    /// The public key as a list record wants it: PKCS#1 `RSAPublicKey` for RSA, the uncompressed X9.62 point for a curve.
    pub public_key: Vec<u8>,
    /// Dotted identifier of the signature's algorithm.
    pub signature_algorithm: String,
    /// The signature's bytes.
    pub signature: Vec<u8>,
    /// Start of validity.
    pub not_before: OffsetDateTime,
    /// End of validity.
    pub not_after: OffsetDateTime,
    /// Whether BasicConstraints makes it a certificate authority.
    pub is_ca: bool,
    /// The extensions.
    pub extensions: Extensions,
    /// SHA-256 of the whole certificate.
    pub sha256: [u8; 32],
}

impl CertificateFacts {
    /// Reads a certificate that is all of `der`.
    ///
    /// # Errors
    /// [`PkiError::Malformed`], also for bytes after the certificate and for two algorithm fields that differ.
    pub fn parse(der: &[u8]) -> Result<Self, PkiError> {
        // A second reader, by other people: what only one of the two takes for a certificate is none.
        X509Certificate::from_der(der).map_err(|error| PkiError::malformed(WHAT, error.to_string()))?;
        let mut fields = Reader::new(WHAT, Reader::only(WHAT, SEQUENCE, der)?.content);
        let tbs = TbsFacts::parse(fields.expect(SEQUENCE)?.whole)?;
        let signature_algorithm = algorithm(fields.expect(SEQUENCE)?.whole)?;
        let signature = whole_bytes(WHAT, fields.expect(BIT_STRING)?.content)?;
        fields.finish()?;
        if signature_algorithm != tbs.signature_algorithm {
            return Err(PkiError::malformed(WHAT, "the two signature algorithms differ"));
        }
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest::digest(&digest::SHA256, der).as_ref());
        Ok(Self {
            der: der.to_vec(),
            serial: tbs.serial,
            subject: tbs.subject,
            subject_der: tbs.subject_der,
            common_names: tbs.common_names,
            issuer: tbs.issuer,
            issuer_der: tbs.issuer_der,
            spki_der: tbs.spki_der,
            public_key: tbs.public_key,
            signature_algorithm,
            signature: signature.to_vec(),
            not_before: tbs.not_before,
            not_after: tbs.not_after,
            is_ca: tbs.extensions.basic_constraints.is_some_and(|constraints| constraints.ca),
            extensions: tbs.extensions,
            sha256,
        })
    }

    /// SHA-256 of the `SubjectPublicKeyInfo`, hexadecimal: what the key broker calls the key's fingerprint.
    #[must_use]
    pub fn key_fingerprint(&self) -> String {
        hex::encode(digest::digest(&digest::SHA256, &self.spki_der))
    }
}

/// The first element of a signed structure: what was signed.
pub(crate) fn signed_part(what: &'static str, der: &[u8]) -> Result<Vec<u8>, PkiError> {
    let whole = Reader::only(what, SEQUENCE, der)?;
    Ok(Reader::new(what, whole.content).expect(SEQUENCE)?.whole.to_vec())
}
