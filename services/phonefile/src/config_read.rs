use quick_xml::{
    Reader, XmlVersion,
    events::{BytesStart, Event},
};

use crate::{
    CapfAuthMode, DeviceConfig, DeviceSecurityMode, PhoneFileError, TransportLayerProtocol,
    config::{CallManager, CapfServer, TvsServer, element},
};

/// Elements inside each other; configurations in the wild have under ten.
const MAX_DEPTH: usize = 32;
/// Elements in all; configurations in the wild have under a thousand.
const MAX_ELEMENTS: usize = 10_000;

impl DeviceConfig {
    /// Reads a configuration. Elements that are not of [`DeviceConfig`] are passed over. A document type is refused, so that
    /// no entity is ever expanded.
    ///
    /// # Errors
    /// [`PhoneFileError::Xml`], [`PhoneFileError::Element`].
    pub fn parse(xml: &[u8]) -> Result<Self, PhoneFileError> {
        let device = tree(xml)?;
        if device.name != "device" {
            return Err(refuse(format!("the outermost element is <{}>, not <device>", device.name)));
        }
        let config = Self {
            full_config: device.value("fullConfig", truth)?.unwrap_or(true),
            ip_address_mode: device.value("ipAddressMode", number)?,
            load_information: device.text("loadInformation")?,
            call_managers: call_managers(&device)?,
            tvs: tvs(&device)?,
            device_security_mode: device.value("deviceSecurityMode", security_mode)?,
            transport_layer_protocol: device.value("transportLayerProtocol", transport)?,
            capf_auth_mode: device.value("capfAuthMode", auth_mode)?,
            capf: capf(&device)?,
            // Empty means something here: the phone has no certificate that is known.
            cert_hash: device.child("certHash")?.map(|hash| hash.text.trim().to_owned()),
            encr_config: device.value("encrConfig", truth)?,
        };
        config.check()?;
        Ok(config)
    }
}

fn call_managers(device: &Node) -> Result<Vec<CallManager>, PhoneFileError> {
    let members = device.descend(&["devicePool", "callManagerGroup", "members"])?;
    let members = members.map(|members| members.all("member")).into_iter().flatten();
    members
        .map(|member| {
            let server = member.required("callManager")?;
            let ports = server.required("ports")?;
            Ok(CallManager {
                priority: member.priority()?,
                process_node_name: server.required("processNodeName")?.text.trim().to_owned(),
                sip_port: ports.value("sipPort", number)?.unwrap_or(5060),
                secured_sip_port: ports.value("securedSipPort", number)?.unwrap_or(5061),
            })
        })
        .collect()
}

fn tvs(device: &Node) -> Result<Vec<TvsServer>, PhoneFileError> {
    let members = device.descend(&["TVS", "members"])?;
    let members = members.map(|members| members.all("member")).into_iter().flatten();
    members
        .map(|member| {
            Ok(TvsServer {
                priority: member.priority()?,
                address: member.required("address")?.text.trim().to_owned(),
                port: member.value("port", number)?.unwrap_or(2445),
            })
        })
        .collect()
}

fn capf(device: &Node) -> Result<Vec<CapfServer>, PhoneFileError> {
    let servers = device.child("capfList")?.map(|list| list.all("capf")).into_iter().flatten();
    servers
        .map(|server| {
            Ok(CapfServer {
                phone_port: server.value("phonePort", number)?.unwrap_or(3804),
                process_node_name: server.text("processNodeName")?,
            })
        })
        .collect()
}

fn truth(text: &str) -> Option<bool> {
    text.parse().ok()
}

fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn security_mode(text: &str) -> Option<DeviceSecurityMode> {
    match text {
        "1" => Some(DeviceSecurityMode::NonSecure),
        "2" => Some(DeviceSecurityMode::Authenticated),
        "3" => Some(DeviceSecurityMode::Encrypted),
        _ => None,
    }
}

fn transport(text: &str) -> Option<TransportLayerProtocol> {
    number(text)
        .map(|number: u8| if number == 3 { TransportLayerProtocol::Tls } else { TransportLayerProtocol::Other(number) })
}

fn auth_mode(text: &str) -> Option<CapfAuthMode> {
    match text {
        "0" => Some(CapfAuthMode::NoOperation),
        "1" => Some(CapfAuthMode::AuthenticationString),
        "2" => Some(CapfAuthMode::NullString),
        "3" => Some(CapfAuthMode::LscThenMic),
        "4" => Some(CapfAuthMode::Mic),
        _ => None,
    }
}

/// An element with its text, its `priority`, and what is in it.
#[derive(Default)]
struct Node {
    name: String,
    priority: Option<String>,
    text: String,
    children: Vec<Node>,
}

impl Node {
    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// The child of this name; two of them would be read differently by different phones.
    fn child(&self, name: &'static str) -> Result<Option<&Self>, PhoneFileError> {
        let mut children = self.children.iter().filter(|child| child.name == name);
        match (children.next(), children.next()) {
            (_, Some(_)) => Err(element(name, "it stands there twice".to_owned())),
            (first, None) => Ok(first),
        }
    }

    fn required(&self, name: &'static str) -> Result<&Self, PhoneFileError> {
        self.child(name)?.ok_or_else(|| element(name, "it is missing".to_owned()))
    }

    fn descend(&self, path: &[&'static str]) -> Result<Option<&Self>, PhoneFileError> {
        path.iter().try_fold(Some(self), |node, name| node.map_or(Ok(None), |node| node.child(name)))
    }

    /// The text of a child, if there is any.
    fn text(&self, name: &'static str) -> Result<Option<String>, PhoneFileError> {
        let text = self.child(name)?.map(|child| child.text.trim().to_owned());
        Ok(text.filter(|text| !text.is_empty()))
    }

    fn value<T>(&self, name: &'static str, read: impl Fn(&str) -> Option<T>) -> Result<Option<T>, PhoneFileError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        read(&text).map(Some).ok_or_else(|| element(name, format!("{text:?} is no value of it")))
    }

    fn priority(&self) -> Result<u8, PhoneFileError> {
        let text = self.priority.as_deref().unwrap_or_default();
        number(text).ok_or_else(|| element("member", format!("priority {text:?} is no number")))
    }
}

fn tree(xml: &[u8]) -> Result<Node, PhoneFileError> {
    let text = std::str::from_utf8(xml).map_err(|error| refuse(error.to_string()))?;
    let mut reader = Reader::from_str(text);
    let mut root = None;
    let mut open: Vec<Node> = Vec::new();
    let mut count = 0;
    loop {
        let event = reader.read_event().map_err(|error| refuse(error.to_string()))?;
        if matches!(event, Event::Start(_) | Event::Empty(_)) {
            count += 1;
            if root.is_some() || count > MAX_ELEMENTS || open.len() >= MAX_DEPTH {
                return Err(refuse("more than one outermost element, or too many or too deep".to_owned()));
            }
        }
        match event {
            Event::Start(start) => open.push(node(&start)?),
            Event::Empty(start) => close(node(&start)?, &mut open, &mut root),
            Event::End(_) => {
                let node = open.pop().ok_or_else(|| refuse("an end without a start".to_owned()))?;
                close(node, &mut open, &mut root);
            }
            Event::Text(text) => add(&mut open, &text.xml10_content())?,
            Event::CData(text) => add(&mut open, &text.xml10_content())?,
            Event::GeneralRef(reference) => {
                let c = match reference.resolve_char_ref().map_err(|error| refuse(error.to_string()))? {
                    Some(c) => c,
                    None => {
                        predefined(&reference).ok_or_else(|| refuse("an entity that XML does not have".to_owned()))?
                    }
                };
                add(&mut open, c.encode_utf8(&mut [0; 4]))?;
            }
            Event::DocType(_) => return Err(refuse("a document type".to_owned())),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            Event::Eof => break,
        }
    }
    if !open.is_empty() {
        return Err(refuse("it ends inside an element".to_owned()));
    }
    root.ok_or_else(|| refuse("it holds no element".to_owned()))
}

fn node(start: &BytesStart<'_>) -> Result<Node, PhoneFileError> {
    let priority = start.try_get_attribute("priority").map_err(|error| refuse(error.to_string()))?;
    let priority = priority.map(|attribute| attribute.normalized_value(XmlVersion::Implicit1_0)).transpose();
    let priority = priority.map_err(|error| refuse(error.to_string()))?.map(std::borrow::Cow::into_owned);
    Ok(Node { name: start.name().as_ref().to_owned(), priority, ..Node::default() })
}

fn close(node: Node, open: &mut [Node], root: &mut Option<Node>) {
    match open.last_mut() {
        Some(parent) => parent.children.push(node),
        None => *root = Some(node),
    }
}

/// Text outside of the outermost element can only be space.
fn add(open: &mut [Node], text: &str) -> Result<(), PhoneFileError> {
    match open.last_mut() {
        Some(node) => node.text.push_str(text),
        None if text.trim().is_empty() => {}
        None => return Err(refuse("text outside of the outermost element".to_owned())),
    }
    Ok(())
}

fn predefined(name: &str) -> Option<char> {
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        _ => return None,
    })
}

const fn refuse(detail: String) -> PhoneFileError {
    PhoneFileError::Xml { detail }
}
