use std::{net::IpAddr, time::Duration};

use casemate_capf::{
    authentication::Mode,
    control::{DeviceConfig as Device, PAGE_LIMIT, Request, Response},
};
use casemate_phonefile::{
    CallManager, CapfAuthMode, CapfServer, DeviceConfig, DeviceSecurityMode, TransportLayerProtocol, TvsServer,
};
use casemate_runtime::{config::NodeSection, control, peer::LocalServer};

use crate::{CtlproviderError, CtlproviderSettings, Wanted};

/// The devices that changed after the change `sequence`, a page of them, in the order of their changes.
pub(crate) fn changed_since(
    capf: &LocalServer,
    sequence: i64,
    settings: &CtlproviderSettings,
) -> Result<Vec<Device>, CtlproviderError> {
    let request = Request::DevicesSince { sequence, limit: settings.page.clamp(1, PAGE_LIMIT) };
    match control::call(capf, &request, Duration::from_millis(settings.capf_timeout_ms))? {
        Response::Devices(devices) => Ok(devices),
        Response::Refused(reason) => Err(CtlproviderError::CapfRefused(reason)),
        Response::Added { .. } | Response::Phones(_) => Err(CtlproviderError::WrongAnswer),
    }
}

/// The configuration file that `device` is to get.
pub(crate) fn wanted(
    device: &Device,
    node: &NodeSection,
    settings: &CtlproviderSettings,
) -> Result<Wanted, CtlproviderError> {
    let name = format!("{}.cnf.xml", device.name);
    let xml = device_config(device.mode, node, settings).to_xml();
    match xml {
        Ok(body) => Ok(Wanted { name, body }),
        Err(source) => Err(CtlproviderError::Content { file: name, source }),
    }
}

/// What a device's configuration says: where this node's services are, and how the device proves itself to CAPF, if an operation
/// pends for it.
#[must_use]
pub fn device_config(pending: Option<Mode>, node: &NodeSection, settings: &CtlproviderSettings) -> DeviceConfig {
    let server = server(node);
    let encrypted = settings.device_security == DeviceSecurityMode::Encrypted;
    DeviceConfig {
        ip_address_mode: Some(if node.address.is_ipv4() { 0 } else { 1 }),
        call_managers: vec![CallManager {
            priority: 0,
            process_node_name: server.clone(),
            sip_port: settings.sip_port,
            secured_sip_port: settings.sip_tls_port,
        }],
        tvs: vec![TvsServer { priority: 0, address: server.clone(), port: settings.tvs_port }],
        device_security_mode: Some(settings.device_security),
        transport_layer_protocol: encrypted.then_some(TransportLayerProtocol::Tls),
        capf_auth_mode: Some(match pending {
            None => CapfAuthMode::NoOperation,
            Some(Mode::AuthenticationString) => CapfAuthMode::AuthenticationString,
            Some(Mode::NullString) => CapfAuthMode::NullString,
        }),
        capf: vec![CapfServer { phone_port: settings.capf_port, process_node_name: Some(server) }],
        ..DeviceConfig::empty(true)
    }
}

/// The address that phones reach this node at; its name where it listens on every address.
fn server(node: &NodeSection) -> String {
    match node.address {
        address if address.is_unspecified() => node.host.clone(),
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => address.to_string(),
    }
}
