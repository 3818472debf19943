//! From nothing to a phone that holds a certificate signed by a key no program can read.
#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use std::{fs, path::Path, process::Command};

use casemate_harness::{Lab, LabSettings};
use casemate_pki::CertificateFacts;
use rustls_pki_types::{CertificateDer, pem::PemObject};

const PHONE: &str = "SEP001122334455";

fn openssl(arguments: &[&str]) -> String {
    let output = Command::new("openssl").args(arguments).output().expect("openssl is installed by .ci/install");
    let text = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&text));
    String::from_utf8_lossy(&text).into_owned()
}

fn certificate(path: &Path) -> CertificateFacts {
    CertificateFacts::parse(&CertificateDer::from_pem_file(path).unwrap()).unwrap()
}

#[test]
fn a_phone_with_an_authentication_string_gets_a_certificate_that_openssl_verifies() {
    let lab = Lab::start(LabSettings::for_test("enrolment-string")).unwrap();
    lab.add_phone(PHONE, &["--string", "12345678"]).unwrap();
    let phone = lab.phone(PHONE);
    let tomcat = lab.published("certmgr", "tomcat.pem");
    phone.play(&["--string", "12345678", "--ask-about", tomcat.to_str().unwrap()]).unwrap();

    let (capf, lsc) = (lab.published("certmgr", "CAPF.pem"), phone.folder().join("lsc.pem"));
    let verified = openssl(&["verify", "-x509_strict", "-CAfile", capf.to_str().unwrap(), lsc.to_str().unwrap()]);
    assert!(verified.contains("lsc.pem: OK"), "{verified}");
    assert_eq!(certificate(&lsc).issuer_der, certificate(&capf).subject_der);

    // The audit trail tells the whole story, in order, and the issue is there before the delivery.
    let story: Vec<_> = lab
        .audit()
        .unwrap()
        .iter()
        .filter(|event| event["CASEMATE_DEVICE"] == PHONE)
        .map(|event| event["CASEMATE_EVENT"].as_str().unwrap().to_owned())
        .collect();
    for event in ["DeviceAdded", "EnrolmentStarted", "CertificateIssued", "CertificateDelivered"] {
        assert!(story.iter().any(|told| told == event), "{event} is not in {story:?}");
    }
    let issued = lab.audited("CertificateIssued").unwrap();
    assert_eq!(issued.len(), 1);
    assert_eq!(issued[0]["CASEMATE_SERIAL"].as_str().unwrap(), hex::encode(&certificate(&lsc).serial));

    // It is on record with request, device, mode, key and operation; OpenSSL says what the digest of the phone's key is.
    let (public, der) = (phone.folder().join("public.pem"), phone.folder().join("public.der"));
    fs::write(&public, openssl(&["x509", "-in", lsc.to_str().unwrap(), "-noout", "-pubkey"])).unwrap();
    let (public, der) = (public.to_str().unwrap(), der.to_str().unwrap());
    openssl(&["pkey", "-pubin", "-in", public, "-outform", "DER", "-out", der]);
    let digest = openssl(&["dgst", "-sha256", "-r", der]);
    assert_eq!(issued[0]["CASEMATE_KEY_DIGEST"].as_str().unwrap(), digest.split(' ').next().unwrap());
    assert_eq!(issued[0]["CASEMATE_REQUEST_DIGEST"].as_str().unwrap().len(), 64);
    let recorded = ["MODE", "KEY", "OPERATION"].map(|name| issued[0][format!("CASEMATE_{name}")].as_str().unwrap());
    assert_eq!(recorded, ["authentication-string", "RSA-2048", "1"]);
}

#[test]
fn a_phone_that_starts_again_checks_the_list_and_keeps_its_certificate() {
    let lab = Lab::start(LabSettings::for_test("enrolment-again")).unwrap();
    lab.add_phone(PHONE, &["--string", "4711"]).unwrap();
    let phone = lab.phone(PHONE);
    phone.play(&["--string", "4711"]).unwrap();
    let lsc = fs::read(phone.folder().join("lsc.pem")).unwrap();
    phone.play(&[]).unwrap();
    assert_eq!(fs::read(phone.folder().join("lsc.pem")).unwrap(), lsc);
    assert_eq!(lab.audited("CertificateIssued").unwrap().len(), 1);
    let refused = lab.phone("SEP001122334455").play(&["--string", "4711", "--key", "p-256"]);
    assert_eq!(lab.audited("CertificateIssued").unwrap().len(), 1, "the string was consumed: {refused:?}");
}

#[test]
fn every_kind_of_key_and_every_version_of_the_protocol_enrols() {
    let lab = Lab::start(LabSettings::for_test("enrolment-kinds")).unwrap();
    let runs = [
        ("SEP00000000A001", "rsa-2048", "3"),
        ("SEP00000000A002", "rsa-2048", "2"),
        ("SEP00000000A003", "rsa-2048", "1"),
        ("SEP00000000A004", "rsa-3072", "3"),
        ("SEP00000000A005", "rsa-4096", "3"),
        ("SEP00000000A006", "p-256", "3"),
        ("SEP00000000A007", "p-384", "3"),
        ("SEP00000000A008", "p-521", "3"),
    ];
    for (name, key, version) in runs {
        lab.add_phone(name, &["--null-string", "--key", key]).unwrap();
        lab.phone(name).play(&["--key", key, "--capf-version", version]).unwrap();
    }
    let capf = lab.published("certmgr", "CAPF.pem");
    for (name, ..) in runs {
        let lsc = lab.phone(name).folder().join("lsc.pem");
        openssl(&["verify", "-x509_strict", "-CAfile", capf.to_str().unwrap(), lsc.to_str().unwrap()]);
    }
    let listed: serde_json::Value = serde_json::from_str(&lab.casemate(&["phone", "list", "--json"]).unwrap()).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), runs.len());
}

#[test]
fn files_come_by_tftp_http_and_https() {
    let lab = Lab::start(LabSettings::for_test("enrolment-transfers")).unwrap();
    for (number, via) in ["tftp", "http", "https"].into_iter().enumerate() {
        for tls in ["1.2", "1.3"] {
            let name = format!("SEP00000000B{number}{}0", &tls[2..]);
            lab.add_phone(&name, &["--null-string"]).unwrap();
            lab.phone(&name).play(&["--via", via, "--tls", tls]).unwrap();
        }
    }
}
