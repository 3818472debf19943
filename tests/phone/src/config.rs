//! What the phone needs of its configuration, `SEP<MAC>.cnf.xml` (phone-formats §4, "Config elements").

use quick_xml::Reader;
use quick_xml::events::Event;

use crate::error::{PhoneError, Result};

/// Deepest nesting that the phone follows.
const MAX_DEPTH: usize = 16;
/// A phone knows this many CAPF and this many TVS servers.
const MAX_SERVERS: usize = 5;
const WHAT: &str = "device configuration";

/// How CAPF is to know the phone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CapfAuthMode {
    /// 0: no operation.
    NoOperation,
    /// 1: by authentication string.
    AuthString,
    /// 2: by null string.
    NullString,
    /// 3: by LSC, then MIC.
    Lsc,
    /// 4: by MIC.
    Mic,
}

/// A server that the configuration names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Server {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: Option<u16>,
}

/// The part of a device's configuration that matters before the first call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceConfig {
    /// What the phone is to do at CAPF; no operation when the element is missing.
    pub auth_mode: CapfAuthMode,
    /// CAPF servers in order.
    pub capf: Vec<Server>,
    /// TVS servers in order.
    pub tvs: Vec<Server>,
}

impl DeviceConfig {
    /// Reads the XML.
    ///
    /// # Errors
    /// [`PhoneError::Malformed`] when it is no XML with root `device`, carries a document type, or an element that the
    /// phone needs has a value that it cannot have.
    pub fn parse(xml: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(xml).map_err(|_| malformed("it is not UTF-8"))?;
        let mut reader = Reader::from_str(text);
        let mut collector = Collector::default();
        loop {
            match reader.read_event().map_err(|_| malformed("it is not well-formed XML"))? {
                Event::Start(start) => collector.open(start.name().as_ref())?,
                Event::Empty(empty) => {
                    collector.open(empty.name().as_ref())?;
                    collector.close()?;
                }
                Event::End(_) => collector.close()?,
                Event::Text(text) => collector.text.push_str(&text.xml10_content()),
                Event::CData(text) => collector.text.push_str(&text.xml10_content()),
                Event::GeneralRef(_) => collector.has_reference = true,
                Event::DocType(_) => return Err(malformed("it carries a document type")),
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
                Event::Eof => return collector.finish(),
            }
        }
    }
}

#[derive(Default)]
struct Collector {
    path: Vec<String>,
    seen_root: bool,
    text: String,
    has_reference: bool,
    auth_mode: Option<CapfAuthMode>,
    capf: Vec<Server>,
    tvs: Vec<Server>,
}

impl Collector {
    fn open(&mut self, name: &str) -> Result<()> {
        if self.path.is_empty() && (self.seen_root || name != "device") {
            return Err(malformed("its root is not one device element"));
        }
        if self.path.len() == MAX_DEPTH {
            return Err(malformed("it is nested too deeply"));
        }
        self.seen_root = true;
        self.path.push(name.to_owned());
        self.text.clear();
        self.has_reference = false;
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        let list = match path.as_slice() {
            ["device", "capfList", "capf"] => &mut self.capf,
            ["device", "TVS", "members", "member"] => &mut self.tvs,
            _ => return Ok(()),
        };
        if list.len() == MAX_SERVERS {
            return Err(malformed("it names more than five servers of one kind"));
        }
        list.push(Server::default());
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        let text = self.text.trim().to_owned();
        let referenced = std::mem::take(&mut self.has_reference);
        self.text.clear();
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        let used = match path.as_slice() {
            ["device", "capfAuthMode"] => {
                if self.auth_mode.replace(auth_mode(&text)?).is_some() {
                    return Err(malformed("capfAuthMode appears twice"));
                }
                true
            }
            ["device", "capfList", "capf", field] => {
                fill(self.capf.last_mut(), field, "processNodeName", "phonePort", text)?
            }
            ["device", "TVS", "members", "member", field] => fill(self.tvs.last_mut(), field, "address", "port", text)?,
            _ => false,
        };
        if used && referenced {
            return Err(malformed("a value that the phone needs holds an entity"));
        }
        self.path.pop();
        Ok(())
    }

    fn finish(self) -> Result<DeviceConfig> {
        if !self.seen_root || !self.path.is_empty() {
            return Err(malformed("it ends before its root does"));
        }
        let auth_mode = self.auth_mode.unwrap_or(CapfAuthMode::NoOperation);
        if self.capf.iter().chain(&self.tvs).any(|server| server.host.is_empty()) {
            return Err(malformed("a server without a host"));
        }
        if auth_mode != CapfAuthMode::NoOperation && self.capf.is_empty() {
            return Err(malformed("it sends the phone to CAPF but names none"));
        }
        Ok(DeviceConfig { auth_mode, capf: self.capf, tvs: self.tvs })
    }
}

fn fill(server: Option<&mut Server>, field: &str, host: &str, port: &str, text: String) -> Result<bool> {
    let Some(server) = server else { return Ok(false) };
    if field == host {
        server.host = text;
    } else if field == port {
        server.port = Some(text.parse().map_err(|_| malformed("a port that is no number"))?);
    } else {
        return Ok(false);
    }
    Ok(true)
}

fn auth_mode(text: &str) -> Result<CapfAuthMode> {
    match text {
        "0" => Ok(CapfAuthMode::NoOperation),
        "1" => Ok(CapfAuthMode::AuthString),
        "2" => Ok(CapfAuthMode::NullString),
        "3" => Ok(CapfAuthMode::Lsc),
        "4" => Ok(CapfAuthMode::Mic),
        _ => Err(malformed("capfAuthMode is not 0 to 4")),
    }
}

fn malformed(why: &'static str) -> PhoneError {
    PhoneError::Malformed { what: WHAT, why }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SAMPLE: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<device>
  <fullConfig>true</fullConfig>
  <capfAuthMode>1</capfAuthMode>
  <capfList><capf><phonePort>3804</phonePort><processNodeName>cm1.example</processNodeName></capf></capfList>
  <TVS><members><member priority="0"><address>10.0.0.1</address><port>2445</port></member></members></TVS>
  <name>A &amp; B</name>
</device>"#;

    #[test]
    fn what_the_phone_needs_is_found() {
        let config = DeviceConfig::parse(SAMPLE.as_bytes()).unwrap();
        assert_eq!(config.auth_mode, CapfAuthMode::AuthString);
        assert_eq!(config.capf, [Server { host: "cm1.example".to_owned(), port: Some(3804) }]);
        assert_eq!(config.tvs, [Server { host: "10.0.0.1".to_owned(), port: Some(2445) }]);
    }

    #[test]
    fn the_published_sample_has_no_operation() {
        let config = DeviceConfig::parse(include_bytes!("../tests/vectors/SEP001122334455.cnf.xml")).unwrap();
        assert_eq!(config.auth_mode, CapfAuthMode::NoOperation);
        assert!(config.capf.is_empty() && config.tvs.is_empty());
    }

    #[test]
    fn doubtful_files_are_refused() {
        let mutations = [
            ("<device>", "<phone>"),
            ("</device>", ""),
            ("</device>", "</device><device/>"),
            ("<capfAuthMode>1<", "<capfAuthMode>5<"),
            ("<capfAuthMode>1<", "<capfAuthMode>&#49;<"),
            ("<fullConfig>true</fullConfig>", "<capfAuthMode>0</capfAuthMode>"),
            ("<phonePort>3804<", "<phonePort>70000<"),
            ("<processNodeName>cm1.example</processNodeName>", ""),
            ("<capf>", "<capfs>"),
            ("<device>", "<!DOCTYPE device [<!ENTITY a \"b\">]><device>"),
        ];
        for (from, to) in mutations {
            assert!(SAMPLE.contains(from));
            assert!(DeviceConfig::parse(SAMPLE.replacen(from, to, 1).as_bytes()).is_err(), "{from} -> {to}");
        }
        let deep = format!("<device>{}", "<a>".repeat(MAX_DEPTH));
        assert!(DeviceConfig::parse(deep.as_bytes()).is_err());
        let many = format!("<capfList>{}", "<capf><processNodeName>a</processNodeName></capf>".repeat(5));
        assert!(DeviceConfig::parse(SAMPLE.replacen("<capfList>", &many, 1).as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = DeviceConfig::parse(&bytes);
        }

        #[test]
        fn cut_and_changed_files_never_panic(at in 0..SAMPLE.len(), byte: u8, cut: bool) {
            let mut bytes = SAMPLE.as_bytes().to_vec();
            if cut { bytes.truncate(at) } else { bytes[at] = byte }
            let _ = DeviceConfig::parse(&bytes);
        }
    }
}
