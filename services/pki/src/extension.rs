use x509_parser::{
    asn1_rs::Oid,
    extensions::{GeneralName, ParsedExtension, X509Extension},
    prelude::FromDer,
};

use crate::{
    PkiError,
    der::{BOOLEAN, OBJECT_IDENTIFIER, OCTET_STRING, Reader, SEQUENCE},
    name::dotted,
};

pub(crate) const BASIC_CONSTRAINTS: &str = "2.5.29.19";
pub(crate) const KEY_USAGE: &str = "2.5.29.15";

/// One extension as it stands (RFC 5280, 4.1.2.9).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Extension {
    /// Dotted object identifier.
    pub oid: String,
    /// Whether it is critical.
    pub critical: bool,
    /// DER of the value.
    pub value: Vec<u8>,
}

/// RFC 5280, 4.2.1.9.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BasicConstraints {
    /// Whether the extension is critical.
    pub critical: bool,
    /// Whether the subject is a certificate authority.
    pub ca: bool,
    /// How many authorities may stand below it.
    pub path_len: Option<u32>,
}

/// RFC 5280, 4.2.1.3.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KeyUsage {
    /// Whether the extension is critical.
    pub critical: bool,
    /// Bit n is set when the standard's bit n is: 0 digitalSignature, 5 keyCertSign, 6 cRLSign.
    pub bits: u16,
}

impl KeyUsage {
    /// Whether the key may sign certificates or revocation lists.
    #[must_use]
    pub const fn signs_certificates(self) -> bool {
        self.bits & (1 << 5 | 1 << 6) != 0
    }
}

/// One entry of the subject's alternative names (RFC 5280, 4.2.1.6).
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AltName {
    /// `dNSName`.
    Dns(String),
    /// `uniformResourceIdentifier`.
    Uri(String),
    /// Anything else, described.
    Other(String),
}

impl std::fmt::Display for AltName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dns(name) => write!(f, "DNS:{name}"),
            Self::Uri(name) => write!(f, "URI:{name}"),
            Self::Other(name) => f.write_str(name),
        }
    }
}

/// All extensions, and those read that Casemate judges by.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Extensions {
    /// All, in the order of the certificate. None occurs twice.
    pub all: Vec<Extension>,
    /// BasicConstraints, if present.
    pub basic_constraints: Option<BasicConstraints>,
    /// KeyUsage, if present.
    pub key_usage: Option<KeyUsage>,
    /// Dotted identifiers of ExtendedKeyUsage (RFC 5280, 4.2.1.12), in no certain order.
    pub extended_key_usages: Vec<String>,
    /// SubjectAltName.
    pub alt_names: Vec<AltName>,
    /// SubjectKeyIdentifier (RFC 5280, 4.2.1.2), if present.
    pub subject_key_identifier: Option<Vec<u8>>,
}

impl Extensions {
    /// Reads `Extensions ::= SEQUENCE OF Extension`, the content of the certificate's `[3]`.
    pub(crate) fn parse(der: &[u8]) -> Result<Self, PkiError> {
        const WHAT: &str = "Extensions";
        let mut list = Reader::new(WHAT, Reader::only(WHAT, SEQUENCE, der)?.content);
        let mut extensions = Self::default();
        while !list.is_empty() {
            let element = list.expect(SEQUENCE)?;
            let extension = extension(element.content)?;
            if extensions.all.iter().any(|other| other.oid == extension.oid) {
                return Err(PkiError::malformed(WHAT, format!("{} stands there twice", extension.oid)));
            }
            let (_, parsed) =
                X509Extension::from_der(element.whole).map_err(|error| PkiError::malformed(WHAT, error.to_string()))?;
            extensions.note(&extension, parsed.parsed_extension())?;
            extensions.all.push(extension);
        }
        Ok(extensions)
    }

    fn note(&mut self, extension: &Extension, parsed: &ParsedExtension<'_>) -> Result<(), PkiError> {
        let critical = extension.critical;
        match parsed {
            ParsedExtension::ParseError { error } => {
                return Err(PkiError::malformed("Extension", format!("{}: {error}", extension.oid)));
            }
            ParsedExtension::BasicConstraints(value) => {
                self.basic_constraints =
                    Some(BasicConstraints { critical, ca: value.ca, path_len: value.path_len_constraint });
            }
            ParsedExtension::KeyUsage(value) => self.key_usage = Some(KeyUsage { critical, bits: value.flags }),
            ParsedExtension::ExtendedKeyUsage(value) => {
                let known = [
                    (value.any, "2.5.29.37.0"),
                    (value.server_auth, "1.3.6.1.5.5.7.3.1"),
                    (value.client_auth, "1.3.6.1.5.5.7.3.2"),
                    (value.code_signing, "1.3.6.1.5.5.7.3.3"),
                    (value.email_protection, "1.3.6.1.5.5.7.3.4"),
                    (value.time_stamping, "1.3.6.1.5.5.7.3.8"),
                    (value.ocsp_signing, "1.3.6.1.5.5.7.3.9"),
                ];
                let known = known.into_iter().filter(|(is_set, _)| *is_set).map(|(_, oid)| oid.to_owned());
                self.extended_key_usages = known.chain(value.other.iter().map(Oid::to_id_string)).collect();
            }
            ParsedExtension::SubjectAlternativeName(value) => {
                self.alt_names = value.general_names.iter().map(alt_name).collect();
            }
            ParsedExtension::SubjectKeyIdentifier(value) => self.subject_key_identifier = Some(value.0.to_vec()),
            _ => {}
        }
        Ok(())
    }
}

fn extension(content: &[u8]) -> Result<Extension, PkiError> {
    const WHAT: &str = "Extension";
    let mut fields = Reader::new(WHAT, content);
    let oid = dotted(WHAT, fields.expect(OBJECT_IDENTIFIER)?.whole)?;
    let critical = match fields.optional(BOOLEAN)?.map(|element| element.content) {
        None => false,
        // DER leaves a default out, and writes true as 0xff (X.690, 11.1 and 11.5).
        Some([0xff]) => true,
        Some(_) => return Err(PkiError::malformed(WHAT, format!("{oid}: criticality not in DER"))),
    };
    let value = fields.expect(OCTET_STRING)?.content;
    fields.finish()?;
    let mut inside = Reader::new(WHAT, value);
    inside.element()?;
    inside.finish()?;
    Ok(Extension { oid, critical, value: value.to_vec() })
}

fn alt_name(name: &GeneralName<'_>) -> AltName {
    match name {
        GeneralName::DNSName(text) => AltName::Dns((*text).to_owned()),
        GeneralName::URI(text) => AltName::Uri((*text).to_owned()),
        other => AltName::Other(other.to_string()),
    }
}
