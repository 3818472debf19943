//! Which file a name from the network means.

use std::fmt;

/// Longest name that is looked at, in bytes. The longest that is served has 24.
pub const NAME_LIMIT: usize = 128;

/// How a request came: what may be served differs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Transport {
    /// UDP 69, in the clear.
    Tftp,
    /// TCP 6970, in the clear.
    Http,
    /// TCP 6971, the server authenticated.
    Https,
}

impl Transport {
    /// The word of the audit trail.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tftp => "tftp",
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// The twelve hexadecimal digits of a phone's MAC address, in capitals as phones send them.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Mac([u8; 12]);

impl Mac {
    fn parse(digits: &[u8]) -> Option<Self> {
        let mac: [u8; 12] = digits.try_into().ok()?;
        mac.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'A'..=b'F')).then_some(Self(mac))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|digit| write!(f, "{}", char::from(*digit)))
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mac({self})")
    }
}

/// A file that ctlprovider publishes.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Published {
    /// The initial trust list.
    TrustList,
    /// A phone's signed configuration (phone-formats §3).
    Signed(Mac),
    /// The same configuration without signature, for HTTPS alone.
    Unsigned(Mac),
}

impl Published {
    /// The name in the published folder.
    #[must_use]
    pub fn file_name(&self) -> String {
        match self {
            Self::TrustList => "ITLFile.tlv".into(),
            Self::Signed(mac) => format!("SEP{mac}.cnf.xml.sgn"),
            Self::Unsigned(mac) => format!("SEP{mac}.cnf.xml"),
        }
    }
}

/// Why a name is refused. A name that is merely not served is no refusal: phones ask for many files that need not exist.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NameError {
    /// Longer than [`NAME_LIMIT`].
    #[error("the name is over {NAME_LIMIT} bytes")]
    TooLong,
    /// It holds `/` or `\`: there is one folder.
    #[error("the name holds a path separator")]
    Separator,
    /// It holds `..`.
    #[error("the name points to a parent folder")]
    Parent,
    /// It holds NUL, `%`, or what is not printable ASCII.
    #[error("the name holds a character that no phone file has")]
    Character,
    /// The bare configuration, asked for in the clear: a list with a TFTP record makes phones demand signed files, so whoever
    /// asks for this is not a phone that trusts us (phone-formats §3).
    #[error("an unsigned configuration is served over HTTPS only")]
    Unsigned,
}

/// The published file that `name` means over `transport`, or nothing for a name that is not served (phone-formats §2, request
/// order: an absent `CTLFile.tlv`, `CTLSEP<MAC>.tlv` or `.enc.sgn` is a plain not-found).
///
/// # Errors
/// The name is one that no phone sends; the caller audits it.
pub fn locate(name: &[u8], transport: Transport) -> Result<Option<Published>, NameError> {
    harmless(name)?;
    if name == b"ITLFile.tlv" || middle(name, b"ITLSEP", b".tlv").and_then(Mac::parse).is_some() {
        return Ok(Some(Published::TrustList));
    }
    if let Some(mac) = middle(name, b"SEP", b".cnf.xml.sgn").and_then(Mac::parse) {
        // Over HTTPS a phone asks for `.sgn` and wants the bare file: the connection is what it trusts (phone-formats §2).
        return Ok(Some(if transport == Transport::Https { Published::Unsigned(mac) } else { Published::Signed(mac) }));
    }
    match middle(name, b"SEP", b".cnf.xml").and_then(Mac::parse) {
        Some(mac) if transport == Transport::Https => Ok(Some(Published::Unsigned(mac))),
        Some(_) => Err(NameError::Unsigned),
        None => Ok(None),
    }
}

fn harmless(name: &[u8]) -> Result<(), NameError> {
    if name.len() > NAME_LIMIT {
        return Err(NameError::TooLong);
    }
    if name.windows(2).any(|pair| pair == b"..") {
        return Err(NameError::Parent);
    }
    if name.iter().any(|byte| matches!(byte, b'/' | b'\\')) {
        return Err(NameError::Separator);
    }
    // `%` too: no name that is served needs an escape, and an escaped `..` is what a probe sends.
    if name.iter().any(|byte| !matches!(byte, b' '..=b'~') || *byte == b'%') {
        return Err(NameError::Character);
    }
    Ok(())
}

fn middle<'a>(name: &'a [u8], before: &[u8], after: &[u8]) -> Option<&'a [u8]> {
    name.strip_prefix(before)?.strip_suffix(after)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Transport; 3] = [Transport::Tftp, Transport::Http, Transport::Https];

    fn file(name: &str, transport: Transport) -> Option<String> {
        locate(name.as_bytes(), transport).unwrap().map(|published| published.file_name())
    }

    #[test]
    fn both_names_of_the_list_are_one_file() {
        for transport in ALL {
            assert_eq!(file("ITLFile.tlv", transport).unwrap(), "ITLFile.tlv");
            assert_eq!(file("ITLSEP001122AABBCC.tlv", transport).unwrap(), "ITLFile.tlv");
        }
    }

    #[test]
    fn https_gives_the_bare_configuration_and_the_others_the_signed_one() {
        let name = "SEP001122334455.cnf.xml.sgn";
        assert_eq!(file(name, Transport::Tftp).unwrap(), name);
        assert_eq!(file(name, Transport::Http).unwrap(), name);
        assert_eq!(file(name, Transport::Https).unwrap(), "SEP001122334455.cnf.xml");
        assert_eq!(file("SEP001122334455.cnf.xml", Transport::Https).unwrap(), "SEP001122334455.cnf.xml");
    }

    #[test]
    fn the_bare_configuration_is_refused_in_the_clear() {
        for transport in [Transport::Tftp, Transport::Http] {
            assert_eq!(locate(b"SEP001122334455.cnf.xml", transport), Err(NameError::Unsigned));
        }
    }

    #[test]
    fn what_phones_ask_for_and_is_not_served_is_plainly_absent() {
        for name in [
            "CTLFile.tlv",
            "CTLSEP001122334455.tlv",
            "SEP001122334455.cnf.xml.enc.sgn",
            "XMLDefault.cnf.xml.sgn",
            "ITLSEP00112233445.tlv",
            "ITLSEP00112233445566.tlv",
            "ITLSEP001122aabbcc.tlv",
            "ITLSEP00112233445G.tlv",
            "SEP.cnf.xml",
            ".ITLFile.tlv.new",
            "itlfile.tlv",
            "",
        ] {
            for transport in ALL {
                assert_eq!(locate(name.as_bytes(), transport), Ok(None), "{name}");
            }
        }
    }

    #[test]
    fn paths_and_odd_characters_are_refused() {
        let long = [b'a'; NAME_LIMIT + 1];
        for (name, reason) in [
            (&b"../certmgr/public/CAPF.pem"[..], NameError::Parent),
            (b"..", NameError::Parent),
            (b"a/ITLFile.tlv", NameError::Separator),
            (b"/etc/passwd", NameError::Separator),
            (b"a\\b", NameError::Separator),
            (b"ITLFile.tlv\0", NameError::Character),
            (b"ITLFile.tlv\n", NameError::Character),
            (b"%2e%2e", NameError::Character),
            ("ITLF\u{ef}le.tlv".as_bytes(), NameError::Character),
            (&long, NameError::TooLong),
        ] {
            assert_eq!(locate(name, Transport::Https), Err(reason));
        }
    }

    proptest! {
        #[test]
        fn no_name_leads_out_of_the_folder(name: Vec<u8>) {
            for transport in ALL {
                if let Ok(Some(published)) = locate(&name, transport) {
                    let file = published.file_name();
                    prop_assert!(file.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.'));
                    prop_assert!(!file.contains("..") && !file.starts_with('.'));
                }
            }
        }

        #[test]
        fn every_mac_is_served(mac in "[0-9A-F]{12}") {
            prop_assert_eq!(file(&format!("SEP{mac}.cnf.xml.sgn"), Transport::Tftp), Some(format!("SEP{mac}.cnf.xml.sgn")));
        }
    }
}
