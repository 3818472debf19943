use std::io;

use quick_xml::{
    Writer,
    events::{BytesDecl, BytesText, Event},
};

use crate::{
    CapfAuthMode, DeviceConfig, DeviceSecurityMode, PhoneFileError, TransportLayerProtocol,
    config::{CallManager, CapfServer, TvsServer, element},
};

type Xml = Writer<Vec<u8>>;

impl DeviceConfig {
    /// The configuration as XML, without spaces between elements.
    ///
    /// # Errors
    /// [`PhoneFileError::Element`]: too many servers, a name that cannot stand there, the mode "authenticated", which has no
    /// encryption (guide-contradictions, line 1996: encrypted mode instead).
    pub fn to_xml(&self) -> Result<Vec<u8>, PhoneFileError> {
        self.check()?;
        if self.device_security_mode == Some(DeviceSecurityMode::Authenticated) {
            let detail = "the mode authenticated (2) is TLS without encryption and is not offered; use encrypted (3)";
            return Err(element("deviceSecurityMode", detail.to_owned()));
        }
        let mut xml = Writer::new(Vec::new());
        self.write(&mut xml).map_err(|error| PhoneFileError::Xml { detail: error.to_string() })?;
        Ok(xml.into_inner())
    }

    fn write(&self, xml: &mut Xml) -> io::Result<()> {
        xml.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
        xml.create_element("device").write_inner_content(|xml| {
            leaf(xml, "fullConfig", &self.full_config.to_string())?;
            if self.full_config {
                leaf(xml, "deviceProtocol", "SIP")?;
            }
            optional(xml, "ipAddressMode", self.ip_address_mode)?;
            write_call_managers(xml, &self.call_managers)?;
            write_tvs(xml, &self.tvs)?;
            optional(xml, "loadInformation", self.load_information.as_ref())?;
            optional(xml, "deviceSecurityMode", self.device_security_mode.map(DeviceSecurityMode::number))?;
            optional(xml, "transportLayerProtocol", self.transport_layer_protocol.map(TransportLayerProtocol::number))?;
            optional(xml, "capfAuthMode", self.capf_auth_mode.map(CapfAuthMode::number))?;
            write_capf(xml, &self.capf)?;
            optional(xml, "certHash", self.cert_hash.as_ref())?;
            optional(xml, "encrConfig", self.encr_config)
        })?;
        Ok(())
    }
}

impl DeviceSecurityMode {
    const fn number(self) -> u8 {
        match self {
            Self::NonSecure => 1,
            Self::Authenticated => 2,
            Self::Encrypted => 3,
        }
    }
}

impl TransportLayerProtocol {
    const fn number(self) -> u8 {
        match self {
            Self::Tls => 3,
            Self::Other(number) => number,
        }
    }
}

impl CapfAuthMode {
    const fn number(self) -> u8 {
        match self {
            Self::NoOperation => 0,
            Self::AuthenticationString => 1,
            Self::NullString => 2,
            Self::LscThenMic => 3,
            Self::Mic => 4,
        }
    }
}

fn write_call_managers(xml: &mut Xml, servers: &[CallManager]) -> io::Result<()> {
    if servers.is_empty() {
        return Ok(());
    }
    inside(xml, &["devicePool", "callManagerGroup", "members"], |xml| {
        servers.iter().try_for_each(|server| {
            member(xml, server.priority, |xml| {
                inside(xml, &["callManager"], |xml| {
                    inside(xml, &["ports"], |xml| {
                        leaf(xml, "sipPort", &server.sip_port.to_string())?;
                        leaf(xml, "securedSipPort", &server.secured_sip_port.to_string())
                    })?;
                    leaf(xml, "processNodeName", &server.process_node_name)
                })
            })
        })
    })
}

fn write_tvs(xml: &mut Xml, servers: &[TvsServer]) -> io::Result<()> {
    if servers.is_empty() {
        return Ok(());
    }
    inside(xml, &["TVS", "members"], |xml| {
        servers.iter().try_for_each(|server| {
            member(xml, server.priority, |xml| {
                leaf(xml, "port", &server.port.to_string())?;
                leaf(xml, "address", &server.address)
            })
        })
    })
}

fn write_capf(xml: &mut Xml, servers: &[CapfServer]) -> io::Result<()> {
    if servers.is_empty() {
        return Ok(());
    }
    inside(xml, &["capfList"], |xml| {
        servers.iter().try_for_each(|server| {
            inside(xml, &["capf"], |xml| {
                leaf(xml, "phonePort", &server.phone_port.to_string())?;
                optional(xml, "processNodeName", server.process_node_name.as_ref())
            })
        })
    })
}

/// Writes elements one in the other, and the content in the innermost.
fn inside(xml: &mut Xml, path: &[&'static str], content: impl FnOnce(&mut Xml) -> io::Result<()>) -> io::Result<()> {
    use quick_xml::events::{BytesEnd, BytesStart};
    for name in path {
        xml.write_event(Event::Start(BytesStart::new(*name)))?;
    }
    content(xml)?;
    path.iter().rev().try_for_each(|name| xml.write_event(Event::End(BytesEnd::new(*name))))
}

fn member(xml: &mut Xml, priority: u8, content: impl FnOnce(&mut Xml) -> io::Result<()>) -> io::Result<()> {
    let priority = priority.to_string();
    xml.create_element("member").with_attribute(("priority", &*priority)).write_inner_content(content)?;
    Ok(())
}

fn leaf(xml: &mut Xml, name: &str, value: &str) -> io::Result<()> {
    xml.create_element(name).write_text_content(BytesText::new(value))?;
    Ok(())
}

fn optional(xml: &mut Xml, name: &str, value: Option<impl ToString>) -> io::Result<()> {
    value.map_or(Ok(()), |value| leaf(xml, name, &value.to_string()))
}
