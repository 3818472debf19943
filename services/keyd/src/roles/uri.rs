//! Where a key lives, as a person writes it: `tpm`, or a PKCS#11 URI with the attributes that name a token.

use std::{fmt, path::PathBuf};

use casemate_hsm_pkcs11::TokenName;

/// A token as `role-tokens.toml` names it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    /// The node's TPM.
    Tpm,
    /// A token behind a PKCS#11 module.
    Pkcs11(TokenUri),
}

/// The part of a PKCS#11 URI (RFC 7512) that is of use here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TokenUri {
    /// `token`, `serial`, or both.
    pub name: TokenName,
    /// `module-path`.
    pub module: Option<PathBuf>,
    /// `pin-source`.
    pub pin: Option<PathBuf>,
}

/// A text that names no token.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum UriError {
    /// Neither `tpm` nor a PKCS#11 URI.
    #[error("it is neither \"tpm\" nor a PKCS#11 URI (pkcs11:...)")]
    Scheme,
    /// An attribute that is not `token`, `serial`, `module-path` or `pin-source`, or stands in the wrong part.
    #[error(
        "{0:?} is no attribute that is used here: token and serial before the question mark, module-path and pin-source after it"
    )]
    Attribute(String),
    /// An attribute without `=`.
    #[error("{0:?} is no attribute with a value")]
    NoValue(String),
    /// An attribute that stands there twice.
    #[error("{0} is said twice")]
    Twice(&'static str),
    /// An attribute without a value.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// `%` without two hexadecimal digits, or octets that are no UTF-8 text without control characters.
    #[error("the percent-encoding of {0} is wrong: two hexadecimal digits follow each %, and the whole is UTF-8 text")]
    Encoding(&'static str),
    /// A character that RFC 7512 wants percent-encoded.
    #[error("{character:?} in {attribute} has to be percent-encoded")]
    Character {
        /// Of which attribute.
        attribute: &'static str,
        /// Which character.
        character: char,
    },
    /// Neither `token` nor `serial`.
    #[error("it names no token: token or serial is missing")]
    NoToken,
    /// A path that does not begin at the root.
    #[error("{0} is no absolute path")]
    Relative(&'static str),
}

/// Where an attribute may stand.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Part {
    Path,
    Query,
}

const ATTRIBUTES: [(&str, Part); 4] =
    [("token", Part::Path), ("serial", Part::Path), ("module-path", Part::Query), ("pin-source", Part::Query)];

impl Place {
    /// Reads `tpm` or a PKCS#11 URI. The scheme's letters may be of either case (RFC 3986, 3.1), an attribute's may not.
    ///
    /// # Errors
    /// As [`UriError`] says: what is not understood is refused, for another token might be meant.
    pub fn parse(text: &str) -> Result<Self, UriError> {
        if text == "tpm" {
            return Ok(Self::Tpm);
        }
        let (scheme, rest) = text.split_once(':').ok_or(UriError::Scheme)?;
        if !scheme.eq_ignore_ascii_case("pkcs11") {
            return Err(UriError::Scheme);
        }
        let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
        let mut values = [const { None }; 4];
        for said in path.split(';').filter(|_| !path.is_empty()) {
            take(said, Part::Path, &mut values)?;
        }
        for said in query.into_iter().flat_map(|query| query.split('&')) {
            take(said, Part::Query, &mut values)?;
        }
        let [token, serial, module, pin] = values;
        let name = match (token, serial) {
            (Some(label), Some(serial)) => TokenName::Both { label, serial },
            (Some(label), None) => TokenName::Label(label),
            (None, Some(serial)) => TokenName::Serial(serial),
            (None, None) => return Err(UriError::NoToken),
        };
        let pin = pin.map(|pin| pin.strip_prefix("file:").map_or(pin.clone(), ToOwned::to_owned));
        let module = module.map(|path| absolute(path, "module-path")).transpose()?;
        Ok(Self::Pkcs11(TokenUri { name, module, pin: pin.map(|path| absolute(path, "pin-source")).transpose()? }))
    }

    /// Whether both are the same token, wherever their PINs are.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

/// The token without its PIN's source: `tpm` or a PKCS#11 URI.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Pkcs11(uri) = self else { return f.write_str("tpm") };
        match &uri.name {
            TokenName::Label(label) => write!(f, "pkcs11:token={}", Encoded(label))?,
            TokenName::Serial(serial) => write!(f, "pkcs11:serial={}", Encoded(serial))?,
            TokenName::Both { label, serial } => {
                write!(f, "pkcs11:token={};serial={}", Encoded(label), Encoded(serial))?;
            }
        }
        uri.module.as_ref().map_or(Ok(()), |path| write!(f, "?module-path={}", Encoded(&path.to_string_lossy())))
    }
}

/// A value in which everything is percent-encoded that may have to be.
struct Encoded<'a>(&'a str);

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.bytes().try_for_each(|byte| match char::from(byte) {
            plain if is_unreserved(plain) => write!(f, "{plain}"),
            _ => write!(f, "%{byte:02X}"),
        })
    }
}

/// RFC 3986, 2.3.
const fn is_unreserved(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '-' | '.' | '_' | '~')
}

/// What may stand in a value as it is (RFC 7512, 2.3: `pk11-path-char` and `pk11-query-char`).
const fn is_plain(character: char, part: Part) -> bool {
    let both = matches!(character, ':' | '[' | ']' | '@' | '!' | '$' | '\'' | '(' | ')' | '*' | '+' | ',' | '=');
    let here = match part {
        Part::Path => matches!(character, '&'),
        Part::Query => matches!(character, '/' | '?' | '|'),
    };
    is_unreserved(character) || both || here
}

fn take(said: &str, part: Part, values: &mut [Option<String>; 4]) -> Result<(), UriError> {
    let (name, value) = said.split_once('=').ok_or_else(|| UriError::NoValue(said.to_owned()))?;
    let found = ATTRIBUTES.iter().zip(values).find(|((known, place), _)| *known == name && *place == part);
    let ((name, _), slot) = found.ok_or_else(|| UriError::Attribute(name.to_owned()))?;
    if slot.is_some() {
        return Err(UriError::Twice(name));
    }
    if value.is_empty() {
        return Err(UriError::Empty(name));
    }
    *slot = Some(decode(value, name, part)?);
    Ok(())
}

fn decode(value: &str, attribute: &'static str, part: Part) -> Result<String, UriError> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        if character == '%' {
            let digit = |next: Option<char>| next.and_then(|next| next.to_digit(16));
            let (high, low) = (digit(characters.next()), digit(characters.next()));
            let byte = high.zip(low).and_then(|(high, low)| u8::try_from(high << 4 | low).ok());
            bytes.push(byte.ok_or(UriError::Encoding(attribute))?);
        } else if is_plain(character, part) {
            bytes.extend(character.encode_utf8(&mut [0; 4]).bytes());
        } else {
            return Err(UriError::Character { attribute, character });
        }
    }
    let text = String::from_utf8(bytes).map_err(|_| UriError::Encoding(attribute))?;
    // A label with a line's end would write lines of its own wherever it is told.
    if text.chars().any(char::is_control) { Err(UriError::Encoding(attribute)) } else { Ok(text) }
}

fn absolute(path: String, attribute: &'static str) -> Result<PathBuf, UriError> {
    let path = PathBuf::from(path);
    if path.is_absolute() { Ok(path) } else { Err(UriError::Relative(attribute)) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pkcs11(name: TokenName, module: Option<&str>, pin: Option<&str>) -> Place {
        Place::Pkcs11(TokenUri { name, module: module.map(PathBuf::from), pin: pin.map(PathBuf::from) })
    }

    #[test]
    fn a_token_is_named_by_the_words_of_rfc_7512() {
        let label = |text: &str| TokenName::Label(text.to_owned());
        assert_eq!(Place::parse("tpm"), Ok(Place::Tpm));
        assert_eq!(Place::parse("pkcs11:token=prod"), Ok(pkcs11(label("prod"), None, None)));
        assert_eq!(Place::parse("PKCS11:token=a%20b%3B%C3%A9"), Ok(pkcs11(label("a b;é"), None, None)));
        assert_eq!(Place::parse("pkcs11:serial=0a"), Ok(pkcs11(TokenName::Serial("0a".into()), None, None)));
        let both = TokenName::Both { label: "a&b".into(), serial: "0a".into() };
        assert_eq!(
            Place::parse("pkcs11:serial=0a;token=a&b?pin-source=/etc/pin&module-path=/usr/lib/v.so"),
            Ok(pkcs11(both, Some("/usr/lib/v.so"), Some("/etc/pin")))
        );
        for file in ["pkcs11:token=a?pin-source=file:/p", "pkcs11:token=a?pin-source=file:%2Fp"] {
            assert_eq!(Place::parse(file), Ok(pkcs11(label("a"), None, Some("/p"))));
        }
    }

    #[test]
    fn what_might_mean_another_token_is_refused() {
        let refused = |text: &str| Place::parse(text).unwrap_err();
        for text in ["", "TPM", "prod", "pkcs12:token=a", "tpm:"] {
            assert_eq!(refused(text), UriError::Scheme, "{text}");
        }
        for (text, attribute) in [
            ("pkcs11:object=k;token=a", "object"),
            ("pkcs11:Token=a", "Token"),
            ("pkcs11:token=a;module-path=/m", "module-path"),
            ("pkcs11:token=a?token=b", "token"),
            ("pkcs11:token=a?pin-value=1234", "pin-value"),
        ] {
            assert_eq!(refused(text), UriError::Attribute(attribute.into()), "{text}");
        }
        assert_eq!(refused("pkcs11:token=a;token=b"), UriError::Twice("token"));
        assert_eq!(refused("pkcs11:token=a?pin-source=/a&pin-source=/a"), UriError::Twice("pin-source"));
        for text in ["pkcs11:", "pkcs11:?module-path=/m"] {
            assert_eq!(refused(text), UriError::NoToken, "{text}");
        }
        assert_eq!(refused("pkcs11:token="), UriError::Empty("token"));
        for text in ["pkcs11:token", "pkcs11:token=a;", "pkcs11:token=a?", "pkcs11:token=a?&"] {
            assert!(matches!(refused(text), UriError::NoValue(_)), "{text}");
        }
        for text in ["%", "%4", "%zz", "%+1", "%ff", "a%0Ab", "%00"] {
            assert_eq!(refused(&format!("pkcs11:token={text}")), UriError::Encoding("token"), "{text}");
        }
        for character in [' ', '/', '#', '?', 'é'] {
            let text = format!("pkcs11:token=a{character}");
            assert!(Place::parse(&text).is_err(), "{text}");
        }
        assert_eq!(refused("pkcs11:token=a b"), UriError::Character { attribute: "token", character: ' ' });
        assert_eq!(refused("pkcs11:token=a?module-path=m.so"), UriError::Relative("module-path"));
        assert_eq!(refused("pkcs11:token=a?pin-source=|cat"), UriError::Relative("pin-source"));
    }

    #[test]
    fn where_the_pin_is_does_not_make_another_token() {
        let parse = |text| Place::parse(text).unwrap();
        assert!(parse("pkcs11:token=a").is(&parse("pkcs11:token=a?pin-source=/p")));
        assert!(!parse("pkcs11:token=a").is(&parse("pkcs11:token=a?module-path=/m")));
        assert!(!parse("pkcs11:token=a").is(&parse("pkcs11:serial=a")));
    }

    proptest! {
        #[test]
        fn arbitrary_text_is_no_panic(text in "\\PC*", attributes in "pkcs11:[a-z=%;?&0-9/-]{0,40}") {
            let _ = Place::parse(&text);
            let _ = Place::parse(&attributes);
        }

        #[test]
        fn what_is_written_is_read_back(label in "\\PC{1,32}", serial in proptest::option::of("\\PC{1,16}"), module: bool) {
            let name = match serial {
                Some(serial) => TokenName::Both { label, serial },
                None => TokenName::Label(label),
            };
            let place = pkcs11(name, module.then_some("/usr/lib/a b%&?.so"), None);
            prop_assert_eq!(Place::parse(&place.to_string()), Ok(place));
        }
    }
}
