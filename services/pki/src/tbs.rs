use time::OffsetDateTime;
use x509_parser::{certificate::Validity, prelude::FromDer, x509::AlgorithmIdentifier};

use crate::{
    PkiError,
    der::{self, BIT_STRING, CONTEXT_0, CONTEXT_3, INTEGER, Reader, SEQUENCE},
    extension::Extensions,
    name::{COMMON_NAME, Name},
};

const WHAT: &str = "TBSCertificate";

/// What a `TBSCertificate` says (RFC 5280, 4.1.2): the part of a certificate that is signed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TbsFacts {
    /// The whole structure.
    pub der: Vec<u8>,
    /// 1, 2 or 3.
    pub version: u8,
    /// Serial number, minimal big-endian, no sign byte.
    pub serial: Vec<u8>,
    /// Dotted identifier of the algorithm with which it is to be signed.
    pub signature_algorithm: String,
    /// Issuer as text: attributes in the certificate's order, joined with `,` (phone-formats §1).
    pub issuer: String,
    /// Issuer, the DER `Name`.
    pub issuer_der: Vec<u8>,
    /// Start of validity.
    pub not_before: OffsetDateTime,
    /// End of validity.
    pub not_after: OffsetDateTime,
    /// Subject as text, as the issuer.
    pub subject: String,
    /// Subject, the DER `Name`.
    pub subject_der: Vec<u8>,
    /// Every common name of the subject.
    pub common_names: Vec<String>,
    /// The `SubjectPublicKeyInfo`, any algorithm.
    pub spki_der: Vec<u8>,
    /// Content of the public key's BIT STRING: PKCS#1 `RSAPublicKey` for RSA, the uncompressed X9.62 point for a curve.
    pub public_key: Vec<u8>,
    /// The extensions.
    pub extensions: Extensions,
}

impl TbsFacts {
    /// Reads a `TBSCertificate` that is all of `der`. Unique identifiers (`[1]`, `[2]`) are refused: RFC 5280 says not to
    /// make any.
    ///
    /// # Errors
    /// [`PkiError::Malformed`] for anything that is not DER, is left over, or occurs twice.
    pub fn parse(der: &[u8]) -> Result<Self, PkiError> {
        let mut fields = Reader::new(WHAT, Reader::only(WHAT, SEQUENCE, der)?.content);
        let version = version(fields.optional(CONTEXT_0)?.map(|element| element.content))?;
        let serial = der::unsigned("serial number", fields.expect(INTEGER)?.content)?;
        let signature_algorithm = algorithm(fields.expect(SEQUENCE)?.whole)?;
        let issuer_der = fields.expect(SEQUENCE)?.whole;
        let validity = library::<Validity>("Validity", fields.expect(SEQUENCE)?.whole)?;
        let subject_der = fields.expect(SEQUENCE)?.whole;
        let spki_der = fields.expect(SEQUENCE)?.whole;
        let extensions = match fields.optional(CONTEXT_3)? {
            Some(_) if version != 3 => return Err(PkiError::malformed(WHAT, "extensions before version 3")),
            Some(element) => Extensions::parse(element.content)?,
            None => Extensions::default(),
        };
        fields.finish()?;
        let subject = Name::parse(subject_der)?;
        Ok(Self {
            der: der.to_vec(),
            version,
            serial,
            signature_algorithm,
            issuer: Name::parse(issuer_der)?.text(),
            issuer_der: issuer_der.to_vec(),
            not_before: validity.not_before.to_datetime(),
            not_after: validity.not_after.to_datetime(),
            subject: subject.text(),
            subject_der: subject_der.to_vec(),
            common_names: subject.values(COMMON_NAME),
            spki_der: spki_der.to_vec(),
            public_key: public_key_bits(spki_der)?,
            extensions,
        })
    }

    /// How long the certificate is valid.
    #[must_use]
    pub fn lifetime(&self) -> time::Duration {
        self.not_after - self.not_before
    }
}

fn version(explicit: Option<&[u8]>) -> Result<u8, PkiError> {
    match explicit {
        None => Ok(1),
        Some([INTEGER, 1, number @ 1..=2]) => Ok(number + 1),
        Some(_) => Err(PkiError::malformed(WHAT, "the version is none of 1, 2, 3")),
    }
}

/// The dotted identifier of an `AlgorithmIdentifier` (RFC 5280, 4.1.1.2).
pub(crate) fn algorithm(whole: &[u8]) -> Result<String, PkiError> {
    let algorithm = library::<AlgorithmIdentifier<'_>>("AlgorithmIdentifier", whole)?;
    Ok(algorithm.algorithm.to_id_string())
}

/// The BIT STRING of a `SubjectPublicKeyInfo`, which for every algorithm in use is whole bytes.
pub(crate) fn public_key_bits(spki: &[u8]) -> Result<Vec<u8>, PkiError> {
    const SPKI: &str = "SubjectPublicKeyInfo";
    let mut fields = Reader::new(SPKI, Reader::only(SPKI, SEQUENCE, spki)?.content);
    fields.expect(SEQUENCE)?;
    let bits = whole_bytes(SPKI, fields.expect(BIT_STRING)?.content)?;
    fields.finish()?;
    Ok(bits.to_vec())
}

/// The bytes of a BIT STRING that has no unused bits.
pub(crate) fn whole_bytes<'a>(what: &'static str, content: &'a [u8]) -> Result<&'a [u8], PkiError> {
    match content {
        [0, bytes @ ..] => Ok(bytes),
        _ => Err(PkiError::malformed(what, "a BIT STRING that is not whole bytes")),
    }
}

/// Reads one structure with the library, and sees that it took all of it.
fn library<'a, T: FromDer<'a, x509_parser::error::X509Error>>(
    what: &'static str,
    whole: &'a [u8],
) -> Result<T, PkiError> {
    let (rest, value) = T::from_der(whole).map_err(|error| PkiError::malformed(what, error.to_string()))?;
    if rest.is_empty() { Ok(value) } else { Err(PkiError::malformed(what, "bytes are left over")) }
}
