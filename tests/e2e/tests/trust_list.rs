//! The trust list and the phones' files: what is in them, over every way to fetch them, and that they are signed when they change
//! and never because somebody asks.
#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use std::{fs, thread, time::Duration};

use casemate_harness::{Lab, LabSettings, Ports};
use casemate_phone::{
    PhoneError,
    tls::{Endpoint, TlsVersions},
    tlv::record::{KeyKind, Role},
    transfer::{FileServer, Via, http, tftp},
    trust::{Standing, TrustList},
};
use rustls_pki_types::{CertificateDer, pem::PemObject};

const PHONE: &str = "SEP001122334455";
const LIST: &str = "ITLFile.tlv";

fn endpoint(lab: &Lab, service: &'static str, port: u16) -> Endpoint {
    Endpoint { service, host: lab.address(port).ip().to_string(), port, limit: Duration::from_secs(20) }
}

fn files(lab: &Lab, via: Via) -> FileServer {
    FileServer {
        tftp: endpoint(lab, "TFTP", Ports::TFTP),
        http: endpoint(lab, "HTTP", Ports::HTTP),
        https: endpoint(lab, "HTTPS", Ports::HTTPS),
        via,
        tls: TlsVersions::Both,
    }
}

fn published(lab: &Lab, name: &str) -> Vec<u8> {
    fs::read(lab.published("ctlprovider", name)).unwrap()
}

fn identity(lab: &Lab, name: &str) -> Vec<u8> {
    let path = lab.published("certmgr", &format!("{name}.pem"));
    CertificateDer::from_pem_file(path).unwrap().to_vec()
}

/// Signatures of lists and of files that the key broker made, by its own account.
fn signatures(lab: &Lab) -> (usize, usize) {
    let used = lab.audited("KeyUsed").unwrap();
    let count = |purpose: &str| used.iter().filter(|event| event["CASEMATE_PURPOSE"] == purpose).count();
    (count("trust-list"), count("file"))
}

#[test]
fn the_list_says_who_the_node_is_and_comes_by_every_way() {
    let lab = Lab::start(LabSettings::for_test("trust-list")).unwrap();
    let bytes = published(&lab, LIST);
    let list = TrustList::read(&bytes).unwrap();
    assert_eq!(list.signer_version, (1, 1), "EC certificates and HTTPS are offered");
    let expected = [
        (Role::Sast, "ITLRecovery"),
        (Role::Sast, "CallManager"),
        (Role::CcmTftp, "CallManager"),
        (Role::Tftp, "CallManager-ECDSA"),
        (Role::Capf, "CAPF"),
        (Role::Tvs, "TVS"),
    ];
    assert_eq!(list.records.len(), expected.len());
    for (role, name) in expected {
        let found = list.with_role(role).filter(|record| record.certificate == identity(&lab, name));
        assert_eq!(found.count(), 1, "{name} as {role:?}");
    }
    let signer = list.signer().unwrap();
    assert_eq!((&signer.certificate, signer.key_kind), (&identity(&lab, "ITLRecovery"), KeyKind::Rsa(2048)));
    assert_eq!(list.standing(None), Standing::FirstUse);
    assert_eq!(list.standing(Some(&list)), Standing::KnownSigner);

    for name in [LIST, &format!("ITL{PHONE}.tlv")] {
        for via in [Via::Tftp, Via::Http] {
            assert_eq!(files(&lab, via).fetch(name).unwrap(), bytes, "{name} by {via:?}");
        }
    }
    // A plain RFC 1350 request, and blocks so small that the list takes hundreds.
    for block_size in [None, Some(16)] {
        let options = tftp::Options { block_size, ask_size: false, timeout: None, ..tftp::Options::default() };
        assert_eq!(tftp::fetch(&endpoint(&lab, "TFTP", Ports::TFTP), LIST, options).unwrap(), bytes, "{block_size:?}");
    }
    for via in [Via::Tftp, Via::Http] {
        let absent = files(&lab, via).fetch(&format!("CTL{PHONE}.tlv"));
        assert!(matches!(absent, Err(PhoneError::NotFound { .. })), "{via:?}: {absent:?}");
    }
    assert_eq!(lab.audited("TrustListBuilt").unwrap().len(), 1);
}

#[test]
fn a_configuration_is_signed_but_over_https_where_the_server_proves_itself() {
    let lab = Lab::start(LabSettings::for_test("trust-list-files")).unwrap();
    lab.add_phone(PHONE, &["--null-string"]).unwrap();
    let list = TrustList::read(&published(&lab, LIST)).unwrap();
    let name = format!("{PHONE}.cnf.xml.sgn");
    let (signed, body) = (published(&lab, &name), published(&lab, &format!("{PHONE}.cnf.xml")));
    for via in [Via::Tftp, Via::Http] {
        let file = files(&lab, via).fetch(&name).unwrap();
        assert_eq!(file, signed, "{via:?}");
        assert_eq!(list.open_signed(&name, &file).unwrap(), body, "{via:?}");
    }
    assert!(body.starts_with(b"<?xml") && signed != body);
    assert_eq!(files(&lab, Via::Https).fetch_https(&name, &list).unwrap(), body);
    // The server is who the list says in role TFTP, and nobody else: neither the RSA certificate nor another EC one.
    for name_of_wrong in ["CallManager", "tomcat-ECDSA"] {
        let pinned = vec![identity(&lab, name_of_wrong)];
        let refused = http::fetch_tls(&endpoint(&lab, "HTTPS", Ports::HTTPS), &name, TlsVersions::Both, pinned);
        assert!(matches!(refused, Err(PhoneError::ServerCertificate { .. })), "{name_of_wrong}: {refused:?}");
    }
    // One changed byte, anywhere, and the file is nobody's.
    for at in [signed.len() - 1, signed.len() / 2] {
        let mut changed = signed.clone();
        changed[at] ^= 1;
        assert!(list.open_signed(&name, &changed).is_err(), "byte {at} was changed");
    }
}

#[test]
fn files_are_signed_when_they_change_and_never_because_somebody_asks() {
    let lab = Lab::start(LabSettings::for_test("trust-list-once")).unwrap();
    let list = published(&lab, LIST);
    assert_eq!(signatures(&lab), (1, 0));
    lab.add_phone(PHONE, &["--null-string"]).unwrap();
    assert_eq!(signatures(&lab), (1, 1), "one file for one phone");

    // A restart finds everything as it should be.
    let name = format!("{PHONE}.cnf.xml.sgn");
    let file = published(&lab, &name);
    lab.stop_daemon("ctlprovider").unwrap();
    lab.start_daemon("ctlprovider").unwrap();
    lab.add_phone("SEP665544332211", &["--null-string"]).unwrap();
    assert_eq!(signatures(&lab), (1, 2), "the restarted one signed more than the new phone's file");
    assert_eq!((published(&lab, LIST), published(&lab, &name)), (list.clone(), file.clone()));

    // A hundred fetches of everything, and time for whoever would react to them.
    let known = TrustList::read(&list).unwrap();
    for n in 0..100 {
        let plain = files(&lab, if n % 2 == 0 { Via::Http } else { Via::Tftp });
        assert_eq!(plain.fetch(LIST).unwrap(), list);
        assert_eq!(plain.fetch(&name).unwrap(), file);
        if n % 10 == 0 {
            plain.fetch_https(&name, &known).unwrap();
        }
    }
    thread::sleep(Duration::from_secs(1));
    assert_eq!(signatures(&lab), (1, 2));
    assert_eq!((lab.audited("TrustListBuilt").unwrap().len(), lab.audited("FileSigned").unwrap().len()), (1, 2));
}
