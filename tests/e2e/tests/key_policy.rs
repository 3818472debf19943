//! What each daemon, taken over by an attacker, could have signed: asked of the real broker under the real uids.
#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use std::{path::Path, process::Command};

use casemate_harness::{Lab, LabSettings, Owner};
use casemate_hsm_api::{KeyRole, SignatureScheme};
use casemate_keyring::{Purpose, Request, Response, SignRequest};
use rustls_pki_types::{CertificateDer, pem::PemObject};

/// Asks the broker under the uid of `daemon`; `None` when it closed without an answer.
fn ask(lab: &Lab, uid: u32, request: &Request) -> Option<Response> {
    let mut command = Command::new("setpriv");
    command.args(["--clear-groups", "--regid=64000", &format!("--reuid={uid}"), "--"]);
    command.arg(lab.reachable_copy("casemate-probe").unwrap()).arg(lab.layout.run().join("keyd.sock"));
    let output = command.arg(serde_json::to_string(request).unwrap()).output().unwrap();
    serde_json::from_slice(&output.stdout).ok()
}

fn sign(role: KeyRole, scheme: SignatureScheme, purpose: Purpose, message: &[u8]) -> Request {
    Request::Sign(SignRequest { role, key: None, scheme, purpose, message: message.to_vec() })
}

fn refused(answer: Option<&Response>) -> bool {
    matches!(answer, None | Some(Response::Refused(casemate_keyring::Refusal::Policy(_))))
}

/// Without root there is one uid for all daemons, and the kernel cannot tell them apart.
fn not_proven(lab: &Lab) -> bool {
    let Owner::One(why) = lab.layout.owner else { return false };
    println!("NOT PROVEN here, for {why}: that a daemon is refused what another may ask; run this test as root");
    true
}

/// What a TLS 1.3 server signs (RFC 8446, 4.4.3).
fn tls13() -> Vec<u8> {
    [&[0x20; 64][..], b"TLS 1.3, server CertificateVerify\0", &[7; 32]].concat()
}

#[test]
fn a_daemon_gets_signatures_of_its_own_purpose_and_no_other() {
    let lab = Lab::start(LabSettings::for_test("key-policy")).unwrap();
    let Owner::Each = lab.layout.owner else {
        panic!("this test needs root and a reachable folder: {:?}", lab.layout.owner)
    };
    let uid = |daemon| Owner::Each.uid(daemon);
    let handshake = |role, scheme| sign(role, scheme, Purpose::TlsHandshake, &tls13());

    // The broker does sign what is right, so a refusal below is a refusal.
    let own = ask(&lab, uid("capf"), &handshake(KeyRole::Capf, SignatureScheme::RsaPssSha256));
    assert!(matches!(own, Some(Response::Signature(_))), "{own:?}");
    let own = ask(&lab, uid("tftp"), &handshake(KeyRole::CallManagerEcdsa, SignatureScheme::EcdsaP384Sha384));
    assert!(matches!(own, Some(Response::Signature(_))), "{own:?}");

    let itl = std::fs::read(lab.published("ctlprovider", "ITLFile.tlv")).unwrap();
    let limits = casemate_phonefile::Limits::default();
    let list = casemate_phonefile::SignedFile::parse(&itl, &limits).unwrap().message();
    let list = |role| sign(role, SignatureScheme::RsaPkcs1Sha512, Purpose::TrustList, &list);
    let own = ask(&lab, uid("ctlprovider"), &list(KeyRole::ItlRecovery));
    assert!(matches!(own, Some(Response::Signature(_))), "{own:?}");

    let wrong = [
        // Trust lists: from nobody else, with no other key, and not dressed up as a handshake or the other way round.
        ("tftp", list(KeyRole::ItlRecovery)),
        ("tftp", list(KeyRole::CallManager)),
        ("capf", list(KeyRole::Capf)),
        ("certmgr", list(KeyRole::ItlRecovery)),
        ("ctlprovider", list(KeyRole::Capf)),
        ("tftp", sign(KeyRole::CallManager, SignatureScheme::RsaPkcs1Sha512, Purpose::TlsHandshake, &itl)),
        ("tftp", handshake(KeyRole::CallManager, SignatureScheme::RsaPkcs1Sha512)),
        ("ctlprovider", sign(KeyRole::ItlRecovery, SignatureScheme::RsaPkcs1Sha512, Purpose::TrustList, &tls13())),
        // Handshakes of another daemon's identity.
        ("capf", handshake(KeyRole::Tvs, SignatureScheme::RsaPssSha256)),
        ("tvs", handshake(KeyRole::Capf, SignatureScheme::RsaPssSha256)),
        ("ctlprovider", handshake(KeyRole::CallManager, SignatureScheme::RsaPssSha256)),
        // A handshake without the structure of one.
        ("capf", sign(KeyRole::Capf, SignatureScheme::RsaPssSha256, Purpose::TlsHandshake, b"anything")),
        // Making keys.
        ("capf", Request::Generate { role: KeyRole::Capf }),
        ("ctlprovider", Request::Generate { role: KeyRole::ItlRecovery }),
    ];
    for (daemon, request) in &wrong {
        let answer = ask(&lab, uid(daemon), request);
        assert!(refused(answer.as_ref()), "{daemon} got {answer:?} for {request:?}");
    }
    assert!(lab.audited("KeyUseRefused").unwrap().len() >= wrong.len());
    // Root may look, not sign; a stranger may not even look.
    assert!(refused(ask(&lab, 0, &handshake(KeyRole::Capf, SignatureScheme::RsaPssSha256)).as_ref()));
    assert!(matches!(ask(&lab, 0, &Request::Status), Some(Response::Status(_))));
    assert_eq!(ask(&lab, 65534, &Request::Status), None);
    assert_eq!(lab.audited("CallerRefused").unwrap().len(), 1);
}

#[test]
fn capf_cannot_have_a_certificate_signed_that_is_no_phones() {
    let lab = Lab::start(LabSettings::for_test("key-policy-capf")).unwrap();
    if not_proven(&lab) {
        return;
    }
    lab.add_phone("SEP001122334455", &["--null-string"]).unwrap();
    lab.phone("SEP001122334455").play(&[]).unwrap();
    let lsc = tbs(&lab.phone("SEP001122334455").folder().join("lsc.pem"));
    let capf = tbs(&lab.published("certmgr", "CAPF.pem"));
    let ask_for = |device: &str, tbs: &[u8]| {
        let purpose = Purpose::DeviceCertificate { device: device.into(), operation: 1 };
        ask(&lab, Owner::Each.uid("capf"), &sign(KeyRole::Capf, SignatureScheme::RsaPkcs1Sha256, purpose, tbs))
    };
    let same = ask_for("SEP001122334455", &lsc);
    assert!(matches!(same, Some(Response::Signature(_))), "the phone's own certificate: {same:?}");
    let other = ask_for("SEP665544332211", &lsc);
    assert!(refused(other.as_ref()), "names another device than the operation: {other:?}");
    let ca = ask_for("SEP001122334455", &capf);
    assert!(refused(ca.as_ref()), "says CA:true: {ca:?}");
    let issuer: Vec<u8> = replace(&lsc, b"CAPF-", b"KAPF-");
    let foreign = ask_for("SEP001122334455", &issuer);
    assert!(refused(foreign.as_ref()), "another issuer: {foreign:?}");
}

/// The `TBSCertificate` of the certificate in a PEM file.
fn tbs(path: &Path) -> Vec<u8> {
    let der = CertificateDer::from_pem_file(path).unwrap();
    // Both lengths take two bytes in any certificate of ours: 30 82 .. .. 30 82 .. ..
    let length = 4 + usize::from(u16::from_be_bytes([der[6], der[7]]));
    der[4..4 + length].to_vec()
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|w| w == from).expect("the issuer's name begins so");
    [&bytes[..at], to, &bytes[at + from.len()..]].concat()
}
