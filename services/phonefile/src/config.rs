use serde::{Deserialize, Serialize};

use crate::PhoneFileError;

/// Phones take at most five servers of a kind, with priorities 0 to 4 (phone-formats §4).
pub const MAX_SERVERS: usize = 5;

/// How a phone secures its signalling: `deviceSecurityMode`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceSecurityMode {
    /// 1.
    NonSecure,
    /// 2: TLS without encryption. Read, never written: its cipher suites are on no list of allowed ones.
    Authenticated,
    /// 3.
    Encrypted,
}

/// `transportLayerProtocol`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TransportLayerProtocol {
    /// 3.
    Tls,
    /// Another number, as it stands.
    Other(u8),
}

/// What a phone shall do with CAPF, and how it proves who it is: `capfAuthMode`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CapfAuthMode {
    /// 0: there is nothing to do.
    NoOperation,
    /// 1: the user types a string of digits.
    AuthenticationString,
    /// 2: no proof.
    NullString,
    /// 3: the phone's LSC, or its MIC if it has none.
    LscThenMic,
    /// 4: the phone's MIC.
    Mic,
}

/// A call control server: `devicePool/callManagerGroup/members/member`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct CallManager {
    /// 0 is asked first; at most 4.
    pub priority: u8,
    /// Host or address.
    pub process_node_name: String,
    /// Port of plain SIP.
    pub sip_port: u16,
    /// Port of SIP over TLS.
    pub secured_sip_port: u16,
}

/// A trust verification server: `TVS/members/member`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct TvsServer {
    /// 0 is asked first; at most 4.
    pub priority: u8,
    /// Host or address.
    pub address: String,
    /// Port, 2445.
    pub port: u16,
}

/// An enrolment server: `capfList/capf`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct CapfServer {
    /// Port, 3804.
    pub phone_port: u16,
    /// Host or address; files in the wild leave it out.
    pub process_node_name: Option<String>,
}

/// The parts of a phone's configuration, `SEP<MAC>.cnf.xml`, that decide its trust and its enrolment (phone-formats §4). Other
/// elements are passed over when read.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct DeviceConfig {
    /// False only in the short companion of an encrypted configuration.
    pub full_config: bool,
    /// 0 IPv4, 1 IPv6, 2 both.
    pub ip_address_mode: Option<u8>,
    /// Firmware.
    pub load_information: Option<String>,
    /// Call control.
    pub call_managers: Vec<CallManager>,
    /// Trust verification.
    pub tvs: Vec<TvsServer>,
    /// Security of signalling.
    pub device_security_mode: Option<DeviceSecurityMode>,
    /// Transport of signalling.
    pub transport_layer_protocol: Option<TransportLayerProtocol>,
    /// What to do with CAPF.
    pub capf_auth_mode: Option<CapfAuthMode>,
    /// Enrolment.
    pub capf: Vec<CapfServer>,
    /// MD5 of the phone's certificate in hexadecimal, with which a phone notices that it must enrol: an identifier only.
    pub cert_hash: Option<String>,
    /// Whether the configuration itself is encrypted.
    pub encr_config: Option<bool>,
}

impl DeviceConfig {
    /// A configuration with nothing in it, full or the short companion.
    #[must_use]
    pub const fn empty(full_config: bool) -> Self {
        Self {
            full_config,
            ip_address_mode: None,
            load_information: None,
            call_managers: Vec::new(),
            tvs: Vec::new(),
            device_security_mode: None,
            transport_layer_protocol: None,
            capf_auth_mode: None,
            capf: Vec::new(),
            cert_hash: None,
            encr_config: None,
        }
    }

    /// What holds for every configuration, read or written: counts, priorities, names.
    pub(crate) fn check(&self) -> Result<(), PhoneFileError> {
        priorities("callManagerGroup", self.call_managers.iter().map(|server| server.priority))?;
        priorities("TVS", self.tvs.iter().map(|server| server.priority))?;
        if self.capf.len() > MAX_SERVERS {
            return Err(element("capfList", format!("{} servers; phones take {MAX_SERVERS}", self.capf.len())));
        }
        let nodes = self.call_managers.iter().map(|server| &server.process_node_name);
        let capf = self.capf.iter().filter_map(|server| server.process_node_name.as_ref());
        nodes.chain(capf).try_for_each(|name| token("processNodeName", name))?;
        self.tvs.iter().try_for_each(|server| token("address", &server.address))?;
        self.load_information.iter().try_for_each(|name| token("loadInformation", name))?;
        match &self.cert_hash {
            Some(hash) if !hash.is_empty() && !is_md5(hash) => {
                Err(element("certHash", "neither empty nor 32 hexadecimal digits".to_owned()))
            }
            _ => Ok(()),
        }
    }
}

fn is_md5(hash: &str) -> bool {
    hash.len() == 32 && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn priorities(name: &'static str, priorities: impl Iterator<Item = u8>) -> Result<(), PhoneFileError> {
    let mut seen = Vec::new();
    for priority in priorities {
        if usize::from(priority) >= MAX_SERVERS || seen.contains(&priority) {
            return Err(element(name, format!("priority {priority} is over 4 or stands there twice")));
        }
        seen.push(priority);
    }
    Ok(())
}

/// A name without space or control characters.
fn token(name: &'static str, value: &str) -> Result<(), PhoneFileError> {
    let is_plain = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}');
    if (1..=255).contains(&value.len()) && value.chars().all(is_plain) {
        Ok(())
    } else {
        Err(element(name, format!("{value:?} is empty, over 255 bytes, or holds spaces or control characters")))
    }
}

pub(crate) const fn element(element: &'static str, detail: String) -> PhoneFileError {
    PhoneFileError::Element { element, detail }
}
