//! Distinguished names (RFC 5280, 4.1.2.4) and their text (RFC 4514, with the attributes in the certificate's order, as the
//! trust lists carry them: phone-formats §1).
use x509_parser::asn1_rs::{FromDer, Oid};

use crate::{
    PkiError,
    der::{OBJECT_IDENTIFIER, Reader, SEQUENCE, SET},
};

const WHAT: &str = "Name";

pub(crate) const COMMON_NAME: &str = "2.5.4.3";
pub(crate) const COUNTRY: &str = "2.5.4.6";
pub(crate) const LOCALITY: &str = "2.5.4.7";
pub(crate) const STATE: &str = "2.5.4.8";
pub(crate) const ORGANIZATION: &str = "2.5.4.10";
pub(crate) const ORGANIZATIONAL_UNIT: &str = "2.5.4.11";

/// One attribute: its type, the element of its value.
pub(crate) struct Attribute<'a> {
    pub(crate) oid: String,
    tag: u8,
    content: &'a [u8],
    whole: &'a [u8],
}

/// A relative distinguished name with its DER, so that it can be copied.
pub(crate) struct Rdn<'a> {
    pub(crate) der: &'a [u8],
    pub(crate) attributes: Vec<Attribute<'a>>,
}

pub(crate) struct Name<'a> {
    pub(crate) rdns: Vec<Rdn<'a>>,
}

impl<'a> Name<'a> {
    /// Reads a whole `Name`.
    pub(crate) fn parse(der: &'a [u8]) -> Result<Self, PkiError> {
        let mut sets = Reader::new(WHAT, Reader::only(WHAT, SEQUENCE, der)?.content);
        let mut rdns = Vec::new();
        while !sets.is_empty() {
            let set = sets.expect(SET)?;
            let mut members = Reader::new(WHAT, set.content);
            let mut attributes = Vec::new();
            while !members.is_empty() {
                attributes.push(attribute(members.expect(SEQUENCE)?.content)?);
            }
            if attributes.is_empty() {
                return Err(PkiError::malformed(WHAT, "an empty set of attributes"));
            }
            rdns.push(Rdn { der: set.whole, attributes });
        }
        Ok(Self { rdns })
    }

    /// All values of one attribute type, as text; a value that is no text is shown as `#` and its DER in hexadecimal.
    pub(crate) fn values(&self, oid: &str) -> Vec<String> {
        let all = self.rdns.iter().flat_map(|rdn| &rdn.attributes);
        all.filter(|attribute| attribute.oid == oid).map(|a| a.text().unwrap_or_else(|| a.hexadecimal())).collect()
    }

    /// The text of RFC 4514, 2, but in the order of the certificate.
    pub(crate) fn text(&self) -> String {
        let rdns = self.rdns.iter().map(|rdn| {
            let attributes: Vec<String> = rdn.attributes.iter().map(Attribute::pair).collect();
            attributes.join("+")
        });
        rdns.collect::<Vec<_>>().join(",")
    }
}

fn attribute(content: &[u8]) -> Result<Attribute<'_>, PkiError> {
    let mut pair = Reader::new(WHAT, content);
    let oid = dotted(WHAT, pair.expect(OBJECT_IDENTIFIER)?.whole)?;
    let value = pair.element()?;
    pair.finish()?;
    Ok(Attribute { oid, tag: value.tag, content: value.content, whole: value.whole })
}

impl Attribute<'_> {
    fn pair(&self) -> String {
        // Types without a short name in RFC 4514, 3 are written with their number, and then the value in hexadecimal (2.4).
        match (short_name(&self.oid), self.text()) {
            (Some(name), Some(text)) => format!("{name}={}", escape(&text)),
            (Some(name), None) => format!("{name}={}", self.hexadecimal()),
            (None, _) => format!("{}={}", self.oid, self.hexadecimal()),
        }
    }

    fn hexadecimal(&self) -> String {
        format!("#{}", hex::encode(self.whole))
    }

    /// The value as text if it is a string type.
    fn text(&self) -> Option<String> {
        match self.tag {
            // UTF8String, NumericString, PrintableString, IA5String, VisibleString
            0x0c | 0x12 | 0x13 | 0x16 | 0x1a => String::from_utf8(self.content.to_vec()).ok(),
            // TeletexString: read as the ASCII that it holds in practice
            0x14 => self.content.is_ascii().then(|| String::from_utf8_lossy(self.content).into_owned()),
            // BMPString
            0x1e => {
                let (units, rest) = self.content.as_chunks::<2>();
                let units: Vec<u16> = units.iter().map(|unit| u16::from_be_bytes(*unit)).collect();
                if rest.is_empty() { String::from_utf16(&units).ok() } else { None }
            }
            _ => None,
        }
    }
}

/// The dotted text of an OBJECT IDENTIFIER element.
pub(crate) fn dotted(what: &'static str, whole: &[u8]) -> Result<String, PkiError> {
    let (rest, oid) = Oid::from_der(whole).map_err(|error| PkiError::malformed(what, error.to_string()))?;
    // `iter` is nothing when an arc is too long to be shown; such identifiers are in no structure that is read here.
    if !rest.is_empty() || oid.iter().is_none() {
        return Err(PkiError::malformed(what, "an OBJECT IDENTIFIER that cannot be shown"));
    }
    Ok(oid.to_id_string())
}

fn short_name(oid: &str) -> Option<&'static str> {
    Some(match oid {
        COMMON_NAME => "CN",
        COUNTRY => "C",
        LOCALITY => "L",
        STATE => "ST",
        ORGANIZATION => "O",
        ORGANIZATIONAL_UNIT => "OU",
        "2.5.4.9" => "STREET",
        "0.9.2342.19200300.100.1.25" => "DC",
        "0.9.2342.19200300.100.1.1" => "UID",
        _ => return None,
    })
}

/// RFC 4514, 2.4.
fn escape(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut text = String::with_capacity(value.len());
    for (at, c) in value.chars().enumerate() {
        match c {
            '\0' => text.push_str("\\00"),
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => text.extend(['\\', c]),
            '#' if at == 0 => text.push_str("\\#"),
            ' ' if at == 0 || at == last => text.push_str("\\ "),
            plain => text.push(plain),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(attributes: &[(&[u64], &str)]) -> Vec<u8> {
        yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                for (oid, value) in attributes {
                    writer.next().write_set(|writer| {
                        writer.next().write_sequence(|writer| {
                            writer.next().write_oid(&yasna::models::ObjectIdentifier::from_slice(oid));
                            writer.next().write_utf8_string(value);
                        });
                    });
                }
            });
        })
    }

    #[test]
    fn the_text_keeps_the_order_and_escapes_values() {
        let der = name(&[
            (&[2, 5, 4, 3], "a,b"),
            (&[2, 5, 4, 11], " x "),
            (&[2, 5, 4, 10], "#1"),
            (&[2, 5, 4, 10], ""),
            (&[2, 5, 4, 5], "77"),
        ]);
        assert_eq!(Name::parse(&der).unwrap().text(), "CN=a\\,b,OU=\\ x\\ ,O=\\#1,O=,2.5.4.5=#0c023737");
    }

    #[test]
    fn bytes_left_over_anywhere_are_refused() {
        // SEQUENCE { SET { SEQUENCE { OID 2.5.4.3, UTF8String "a" } } }, then with a NULL more in the innermost SEQUENCE.
        assert!(Name::parse(&[0x30, 12, 0x31, 10, 0x30, 8, 6, 3, 0x55, 4, 3, 12, 1, b'a']).is_ok());
        assert!(Name::parse(&[0x30, 14, 0x31, 12, 0x30, 10, 6, 3, 0x55, 4, 3, 12, 1, b'a', 5, 0]).is_err());
    }

    proptest! {
        #[test]
        fn no_name_panics(der in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Name::parse(&der).map(|name| name.text());
        }

        #[test]
        fn every_value_is_read_back(value in ".{0,40}") {
            let der = name(&[(&[2, 5, 4, 3], &value)]);
            let name = Name::parse(&der).unwrap();
            prop_assert_eq!(name.values(COMMON_NAME), vec![value]);
            prop_assert!(!name.text().contains('\0'));
        }
    }
}
