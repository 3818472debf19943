use x509_parser::{certification_request::X509CertificationRequestInfo, extensions::ParsedExtension, prelude::FromDer};

use crate::{
    PkiError,
    der::{CONTEXT_0, INTEGER, Reader, SEQUENCE},
    name::{COMMON_NAME, Name},
    tbs::public_key_bits,
};

const WHAT: &str = "CertificationRequestInfo";

/// What a `CertificationRequestInfo` says (RFC 2986, 4.1): the part of a request that is signed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CsrFacts {
    /// The whole structure.
    pub der: Vec<u8>,
    /// Subject as text, in the form of [`crate::TbsFacts::subject`].
    pub subject: String,
    /// Subject, the DER `Name`.
    pub subject_der: Vec<u8>,
    /// Every common name of the subject.
    pub common_names: Vec<String>,
    /// The `SubjectPublicKeyInfo`.
    pub spki_der: Vec<u8>,
    /// The DNS names that it asks for.
    pub dns_names: Vec<String>,
}

impl CsrFacts {
    /// Reads a `CertificationRequestInfo` that is all of `der`.
    ///
    /// # Errors
    /// [`PkiError::Malformed`].
    pub fn parse(der: &[u8]) -> Result<Self, PkiError> {
        let mut fields = Reader::new(WHAT, Reader::only(WHAT, SEQUENCE, der)?.content);
        if fields.expect(INTEGER)?.content != [0] {
            return Err(PkiError::malformed(WHAT, "the version is not 1"));
        }
        let subject_der = fields.expect(SEQUENCE)?.whole;
        let spki_der = fields.expect(SEQUENCE)?.whole;
        fields.expect(CONTEXT_0)?;
        fields.finish()?;
        public_key_bits(spki_der)?;
        let subject = Name::parse(subject_der)?;
        Ok(Self {
            der: der.to_vec(),
            subject: subject.text(),
            subject_der: subject_der.to_vec(),
            common_names: subject.values(COMMON_NAME),
            spki_der: spki_der.to_vec(),
            dns_names: dns_names(der)?,
        })
    }
}

fn dns_names(der: &[u8]) -> Result<Vec<String>, PkiError> {
    use x509_parser::{cri_attributes::ParsedCriAttribute, extensions::GeneralName};
    let (_, info) =
        X509CertificationRequestInfo::from_der(der).map_err(|error| PkiError::malformed(WHAT, error.to_string()))?;
    let mut names = Vec::new();
    for attribute in info.iter_attributes() {
        let ParsedCriAttribute::ExtensionRequest(request) = attribute.parsed_attribute() else { continue };
        for extension in &request.extensions {
            if let ParsedExtension::SubjectAlternativeName(value) = extension.parsed_extension() {
                names.extend(value.general_names.iter().filter_map(|name| match name {
                    GeneralName::DNSName(text) => Some((*text).to_owned()),
                    _ => None,
                }));
            }
        }
    }
    Ok(names)
}
