//! Which file a name from the network means.

use std::fmt;

use casemate_audit::Event;

/// Longest name that is looked at, in bytes. The longest that is served has 27.
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

/// Longest device name, in bytes.
const DEVICE_LIMIT: usize = 15;

/// The name of a device, as CAPF takes it: `SEP` and the twelve hexadecimal digits of the MAC address in capitals, or a letter
/// and up to 14 letters, digits, `.`, `_` and `-`.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Device {
    /// The name, then zeros.
    text: [u8; DEVICE_LIMIT],
    length: usize,
}

impl Device {
    fn parse(name: &[u8]) -> Option<Self> {
        // Phones ask for this file when they have none of their own. It is nobody's.
        if name == b"XMLDefault" || !names_a_device(name) {
            return None;
        }
        let mut text = [0; DEVICE_LIMIT];
        text.get_mut(..name.len())?.copy_from_slice(name);
        Some(Self { text, length: name.len() })
    }
}

fn names_a_device(name: &[u8]) -> bool {
    match name.strip_prefix(b"SEP") {
        Some(mac) => mac.len() == 12 && mac.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'A'..=b'F')),
        None => {
            name.first().is_some_and(u8::is_ascii_alphabetic)
                && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte))
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.iter().take(self.length).try_for_each(|byte| write!(f, "{}", char::from(*byte)))
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({self})")
    }
}

/// A file that ctlprovider publishes.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Published {
    /// The initial trust list.
    TrustList,
    /// A phone's signed configuration (phone-formats §3).
    Signed(Device),
    /// The same configuration without signature, for HTTPS alone.
    Unsigned(Device),
}

impl Published {
    /// The name in the published folder.
    #[must_use]
    pub fn file_name(&self) -> String {
        match self {
            Self::TrustList => "ITLFile.tlv".into(),
            Self::Signed(device) => format!("{device}.cnf.xml.sgn"),
            Self::Unsigned(device) => format!("{device}.cnf.xml"),
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
    if name == b"ITLFile.tlv" || middle(name, b"ITL", b".tlv").and_then(Device::parse).is_some() {
        return Ok(Some(Published::TrustList));
    }
    if let Some(device) = middle(name, b"", b".cnf.xml.sgn").and_then(Device::parse) {
        // Over HTTPS a phone asks for `.sgn` and wants the bare file: the connection is what it trusts (phone-formats §2).
        return Ok(Some(if transport == Transport::Https {
            Published::Unsigned(device)
        } else {
            Published::Signed(device)
        }));
    }
    match middle(name, b"", b".cnf.xml").and_then(Device::parse) {
        Some(device) if transport == Transport::Https => Ok(Some(Published::Unsigned(device))),
        Some(_) => Err(NameError::Unsigned),
        None => Ok(None),
    }
}

/// The audit event of a file that `peer` asked for over `transport` and is not to have.
pub(crate) fn file_refused(transport: Transport, peer: &str, name: &[u8], reason: &str) -> Event {
    Event::FileRefused {
        service: transport.name().into(),
        peer: peer.into(),
        file: String::from_utf8_lossy(name).into_owned(),
        reason: reason.into(),
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
    fn soft_phones_have_files_too() {
        for device in ["CSFjdoe", "BOTJ.DOE", "x", "TCT_j-doe.1", "Abcdefghijklmno"] {
            let signed = format!("{device}.cnf.xml.sgn");
            assert_eq!(file(&signed, Transport::Tftp), Some(signed.clone()));
            assert_eq!(file(&signed, Transport::Https), Some(format!("{device}.cnf.xml")));
            assert_eq!(file(&format!("ITL{device}.tlv"), Transport::Http).unwrap(), "ITLFile.tlv");
            assert_eq!(locate(format!("{device}.cnf.xml").as_bytes(), Transport::Http), Err(NameError::Unsigned));
        }
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
            "XMLDefault.cnf.xml",
            ".cnf.xml.sgn",
            ".a.cnf.xml.sgn",
            "1abc.cnf.xml.sgn",
            "ABCDEFGHIJKLMNOP.cnf.xml.sgn",
            "CSFjdoe.cnf.xml.enc.sgn",
            "ITLabcdefghijklmnop.tlv",
            "SEPaabbccddeeff.cnf.xml.sgn",
            "CSF jdoe.cnf.xml.sgn",
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
            (b"a..b.cnf.xml.sgn", NameError::Parent),
            (b"a..cnf.xml.sgn", NameError::Parent),
            (b"..a.cnf.xml.sgn", NameError::Parent),
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
                    prop_assert!(file.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)));
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
