//! TLS 1.2 without the extended master secret (RFC 7627): refused with the reason in FIPS mode, allowed outside. The peer is
//! OpenSSL with the extension turned off.
#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use std::{
    fs,
    net::SocketAddr,
    process::{Command, Stdio},
};

use casemate_harness::{Lab, LabSettings, Ports};

const WITHOUT: &str = "openssl_conf = init\n[init]\nssl_conf = ssl\n[ssl]\nsystem_default = tls\n[tls]\n\
                       Options = -ExtendedMasterSecret\nCipherString = DEFAULT\n";

/// A TLS 1.2 handshake by OpenSSL's client; whether it came to its end.
fn handshake(lab: &Lab, address: SocketAddr, extension: bool) -> bool {
    let conf = lab.layout.root.join("etc/openssl-client.cnf");
    fs::write(&conf, WITHOUT).unwrap();
    let mut command = Command::new("openssl");
    command.args(["s_client", "-tls1_2", "-connect", &address.to_string()]);
    if !extension {
        command.env("OPENSSL_CONF", conf);
    }
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let done = text.contains("Cipher    : ECDHE") && text.contains("Verify return code");
    assert_eq!(done && text.contains("Extended master secret: yes"), done && extension, "{text}");
    done
}

#[test]
fn fips_mode_refuses_a_peer_without_it_and_says_why() {
    let lab = Lab::start(LabSettings::for_test("ems-fips")).unwrap();
    for port in [Ports::CAPF, Ports::TVS, Ports::HTTPS] {
        assert!(handshake(&lab, lab.address(port), true), "port {port}");
        assert!(!handshake(&lab, lab.address(port), false), "port {port}");
    }
    let refusals = lab.wait_for_events("TlsRefused", 3).unwrap();
    let reasons =
        refusals.iter().filter(|event| event["CASEMATE_REASON"].as_str().unwrap().contains("extended master secret"));
    assert_eq!(reasons.count(), 3, "{refusals:?}");
}

#[test]
fn outside_fips_mode_it_is_optional() {
    let lab = Lab::start(LabSettings { mode: "non-fips", ..LabSettings::for_test("ems-non-fips") }).unwrap();
    for port in [Ports::CAPF, Ports::TVS, Ports::HTTPS] {
        assert!(handshake(&lab, lab.address(port), true), "port {port}");
        assert!(handshake(&lab, lab.address(port), false), "port {port}");
    }
}
