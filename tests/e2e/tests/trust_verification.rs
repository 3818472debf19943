//! What TVS tells a phone about certificates: those that the node publishes are valid in their roles, and nothing else is.
#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use std::{fs, path::Path, process::Command, time::Duration};

use casemate_harness::{Lab, LabSettings, Ports};
use casemate_phone::{
    tls::{Endpoint, TlsVersions},
    tlv::record::Role,
    trust::TrustList,
    tvs::{self, Verdict},
};
use rustls_pki_types::{CertificateDer, pem::PemObject};

const PHONE: &str = "SEP001122334455";

/// The roles of each published certificate: those of its records in the trust list, and application server for the certificates
/// of the web pages (guide 2747).
const IDENTITIES: [(&str, &[Role]); 7] = [
    ("CallManager", &[Role::Sast, Role::CcmTftp]),
    ("CallManager-ECDSA", &[Role::Tftp]),
    ("CAPF", &[Role::Capf]),
    ("TVS", &[Role::Tvs]),
    ("ITLRecovery", &[Role::Sast]),
    ("tomcat", &[Role::AppServer]),
    ("tomcat-ECDSA", &[Role::AppServer]),
];

fn der(path: &Path) -> Vec<u8> {
    CertificateDer::from_pem_file(path).unwrap().to_vec()
}

fn ask(lab: &Lab, versions: TlsVersions, certificate: &[u8]) -> Verdict {
    let host = lab.address(Ports::TVS).ip().to_string();
    let endpoint = Endpoint { service: "TVS", host, port: Ports::TVS, limit: Duration::from_secs(20) };
    let list = TrustList::read(&fs::read(lab.published("ctlprovider", "ITLFile.tlv")).unwrap()).unwrap();
    tvs::ask(&endpoint, versions, &list, PHONE, certificate).unwrap()
}

/// A certificate that says all the right things about itself, of a key that nobody knows.
fn strangers(lab: &Lab) -> Vec<u8> {
    let subject = Command::new("openssl")
        .args(["x509", "-noout", "-subject", "-nameopt", "compat", "-in"])
        .arg(lab.published("certmgr", "CallManager.pem"))
        .output()
        .unwrap();
    let subject = String::from_utf8(subject.stdout).unwrap();
    let name = subject.split("CN").nth(1).unwrap().trim_matches([' ', '=', '\n']);
    let name = name.split(['/', ',']).next().unwrap();
    let folder = lab.layout.root.join("phones");
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", &format!("/CN={name}")])
        .arg("-keyout")
        .arg(folder.join("stranger.key"))
        .arg("-out")
        .arg(folder.join("stranger.pem"))
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    der(&folder.join("stranger.pem"))
}

#[test]
fn published_certificates_are_valid_in_their_roles_and_no_others_are() {
    let lab = Lab::start(LabSettings::for_test("tvs")).unwrap();
    // The certificate that was published last, for TVS looks four times a second.
    let last = der(&lab.published("certmgr", "tomcat-ECDSA.pem"));
    lab.wait_for("TVS to know every certificate", Duration::from_secs(5), || {
        matches!(ask(&lab, TlsVersions::Both, &last), Verdict::Valid { .. })
    })
    .unwrap();
    let before = lab.audited("CertificateVerified").unwrap().len();
    for versions in [TlsVersions::Only12, TlsVersions::Only13] {
        for (name, expected) in IDENTITIES {
            let verdict = ask(&lab, versions, &der(&lab.published("certmgr", &format!("{name}.pem"))));
            let Verdict::Valid { roles, ttl } = verdict else { panic!("{name} is not valid") };
            assert_eq!(roles, expected, "{name}");
            assert_eq!(ttl, 3600, "{name}: seconds for which a phone may remember it, by default");
        }
    }
    let call_manager = der(&lab.published("certmgr", "CallManager.pem"));
    let mut forged = call_manager.clone();
    *forged.last_mut().unwrap() ^= 1;
    let cut = call_manager[..call_manager.len() - 1].to_vec();
    let followed = [&call_manager[..], b"\0"].concat();
    let wrong = [("a stranger's", strangers(&lab)), ("forged", forged), ("cut", cut), ("followed", followed)];
    for (what, certificate) in &wrong {
        assert_eq!(ask(&lab, TlsVersions::Both, certificate), Verdict::Invalid, "{what}");
    }
    // Each answer is in the trail, with who asked and what was said.
    let told = lab.audited("CertificateVerified").unwrap().split_off(before);
    assert_eq!(told.len(), 2 * IDENTITIES.len() + wrong.len());
    let valid = told.iter().filter(|event| event["CASEMATE_VALID"] == "true");
    assert_eq!(valid.count(), 2 * IDENTITIES.len());
    assert!(told.iter().all(|event| event["CASEMATE_DEVICE"].as_str().unwrap().contains(PHONE)), "{:?}", told[0]);
}

/// CAPF signed it, but it is a phone's: nothing that a phone should ever trust as a server.
#[test]
fn a_phones_certificate_is_no_identity() {
    let lab = Lab::start(LabSettings::for_test("tvs-lsc")).unwrap();
    lab.add_phone(PHONE, &["--null-string", "--key", "p-256"]).unwrap();
    let phone = lab.phone(PHONE);
    phone.play(&[]).unwrap();
    let lsc = phone.folder().join("lsc.pem");
    let asked = ["--ask-about", lsc.to_str().unwrap(), "--expect"];
    phone.play(&[&asked[..], &["invalid"]].concat()).unwrap();
    let refused = phone.play(&[&asked[..], &["valid"]].concat());
    assert!(refused.unwrap_err().to_string().contains("TVS answered invalid"));
}
