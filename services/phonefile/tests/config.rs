//! Device configurations.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in test functions; these are their own helpers

use casemate_phonefile::{
    CallManager, CapfAuthMode, CapfServer, DeviceConfig, DeviceSecurityMode, PhoneFileError, TransportLayerProtocol,
    TvsServer,
};
use proptest::prelude::*;

fn config() -> DeviceConfig {
    DeviceConfig {
        ip_address_mode: Some(0),
        load_information: Some("sip88xx.14-2-1&<".to_owned()),
        call_managers: vec![CallManager {
            priority: 0,
            process_node_name: "cm.example.net".to_owned(),
            sip_port: 5060,
            secured_sip_port: 5061,
        }],
        tvs: vec![TvsServer { priority: 0, address: "127.0.0.1".to_owned(), port: 22445 }],
        device_security_mode: Some(DeviceSecurityMode::Encrypted),
        transport_layer_protocol: Some(TransportLayerProtocol::Tls),
        capf_auth_mode: Some(CapfAuthMode::AuthenticationString),
        capf: vec![CapfServer { phone_port: 23804, process_node_name: Some("127.0.0.1".to_owned()) }],
        cert_hash: Some(String::new()),
        encr_config: Some(false),
        ..DeviceConfig::empty(true)
    }
}

#[test]
fn the_elements_stand_where_phones_look_for_them() {
    let xml = String::from_utf8(config().to_xml().unwrap()).unwrap();
    for part in [
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><device><fullConfig>true</fullConfig>",
        "<devicePool><callManagerGroup><members><member priority=\"0\"><callManager><ports><sipPort>5060</sipPort>",
        "<TVS><members><member priority=\"0\"><port>22445</port><address>127.0.0.1</address></member></members></TVS>",
        "<loadInformation>sip88xx.14-2-1&amp;&lt;</loadInformation>",
        "<deviceSecurityMode>3</deviceSecurityMode><transportLayerProtocol>3</transportLayerProtocol>",
        "<capfAuthMode>1</capfAuthMode>",
        "<capfList><capf><phonePort>23804</phonePort><processNodeName>127.0.0.1</processNodeName></capf></capfList>",
        "<certHash></certHash><encrConfig>false</encrConfig></device>",
    ] {
        assert!(xml.contains(part), "{part} in {xml}");
    }
    assert_eq!(DeviceConfig::parse(xml.as_bytes()).unwrap(), config());
}

#[test]
fn files_of_other_writers_are_read() {
    let sample = DeviceConfig::parse(include_bytes!("vectors/SEP001122334455.cnf.xml")).unwrap();
    assert_eq!(sample, DeviceConfig::empty(true));
    let wild = "<?xml version='1.0'?>\n<!-- made by hand -->\n<device>\n <vendorConfig><a b='c'/></vendorConfig>\n \
        <TVS><members><member priority='4'><address> tvs&#46;example </address></member></members></TVS>\n \
        <capfAuthMode>2</capfAuthMode>\n <capfList><capf><phonePort>3804</phonePort></capf></capfList>\n\
        <deviceSecurityMode>2</deviceSecurityMode><loadInformation/><encrConfig>true</encrConfig>\n</device>\n";
    let read = DeviceConfig::parse(wild.as_bytes()).unwrap();
    assert_eq!(read.tvs, [TvsServer { priority: 4, address: "tvs.example".to_owned(), port: 2445 }]);
    assert_eq!(read.capf, [CapfServer { phone_port: 3804, process_node_name: None }]);
    assert_eq!(read.capf_auth_mode, Some(CapfAuthMode::NullString));
    assert_eq!((read.load_information, read.encr_config), (None, Some(true)));
}

#[test]
fn what_phones_would_not_take_is_refused() {
    let refused = |spoil: fn(&mut DeviceConfig)| {
        let mut config = config();
        spoil(&mut config);
        matches!(config.to_xml(), Err(PhoneFileError::Element { .. }))
    };
    assert!(refused(|c| c.device_security_mode = Some(DeviceSecurityMode::Authenticated)));
    assert!(refused(|c| c.tvs[0].priority = 5));
    assert!(refused(|c| c.tvs.push(c.tvs[0].clone())));
    assert!(refused(|c| c.capf = vec![c.capf[0].clone(); 6]));
    assert!(refused(|c| c.capf[0].process_node_name = Some("a b".to_owned())));
    assert!(refused(|c| c.call_managers[0].process_node_name.clear()));
    assert!(refused(|c| c.load_information = Some("a\u{1}".to_owned())));
    assert!(refused(|c| c.cert_hash = Some("abc".to_owned())));
}

#[test]
fn hostile_xml_is_refused() {
    let deep = format!("<device>{}{}</device>", "<a>".repeat(100), "</a>".repeat(100));
    let many = format!("<device>{}</device>", "<a/>".repeat(10_001));
    for xml in [
        "<!DOCTYPE a [<!ENTITY b \"c\">]><device/>",
        "<device>&b;</device>",
        "<device>",
        "</device>",
        "<device/><device/>",
        "<other/>",
        "text",
        "",
        "<device><capfAuthMode>9</capfAuthMode></device>",
        "<device><capfAuthMode>1</capfAuthMode><capfAuthMode>2</capfAuthMode></device>",
        "<device><capfList><capf><phonePort>70000</phonePort></capf></capfList></device>",
        "<device><TVS><members><member><address>a</address></member></members></TVS></device>",
        &deep,
        &many,
    ] {
        assert!(DeviceConfig::parse(xml.as_bytes()).is_err(), "{xml:.80}");
    }
    assert!(DeviceConfig::parse(b"<device>\xff</device>").is_err());
}

prop_compose! {
    fn any_config()(
        full_config: bool,
        mode in proptest::option::of(any::<u8>()),
        load in proptest::option::of("[!-~é&<>\"']{1,40}"),
        names in proptest::collection::vec("[!-~]{1,30}", 0..=5),
        port: u16,
        transport in proptest::option::of(any::<u8>()),
        auth in proptest::option::of(0..5usize),
        hash in proptest::option::of("([0-9a-f]{32})?"),
        encr in proptest::option::of(any::<bool>()),
    ) -> DeviceConfig {
        let modes = [
            CapfAuthMode::NoOperation,
            CapfAuthMode::AuthenticationString,
            CapfAuthMode::NullString,
            CapfAuthMode::LscThenMic,
            CapfAuthMode::Mic,
        ];
        let servers = || (0..).zip(names.iter().cloned());
        DeviceConfig {
            full_config,
            ip_address_mode: mode,
            load_information: load,
            call_managers: servers()
                .map(|(priority, process_node_name)| CallManager { priority, process_node_name, sip_port: port, secured_sip_port: 5061 })
                .collect(),
            tvs: servers().map(|(priority, address)| TvsServer { priority, address, port }).collect(),
            device_security_mode: encr.map(|e| if e { DeviceSecurityMode::Encrypted } else { DeviceSecurityMode::NonSecure }),
            transport_layer_protocol: transport.map(|n| if n == 3 { TransportLayerProtocol::Tls } else { TransportLayerProtocol::Other(n) }),
            capf_auth_mode: auth.map(|at| modes[at]),
            capf: servers().map(|(_, name)| CapfServer { phone_port: port, process_node_name: Some(name) }).collect(),
            cert_hash: hash,
            encr_config: encr,
        }
    }
}

proptest! {
    #[test]
    fn every_configuration_survives(config in any_config()) {
        prop_assert_eq!(DeviceConfig::parse(&config.to_xml().unwrap()).unwrap(), config);
    }

    #[test]
    fn arbitrary_text_never_panics(text in "[<>/&;!?a-f \"'=\\[\\]#x0-9-]{0,200}", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = DeviceConfig::parse(text.as_bytes());
        let _ = DeviceConfig::parse(format!("<device>{text}</device>").as_bytes());
        let _ = DeviceConfig::parse(&bytes);
    }
}
