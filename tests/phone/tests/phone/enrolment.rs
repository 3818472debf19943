//! The phone's side of enrolment against a CAPF that does each step wrongly, and against a right one.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use casemate_phone::PhoneError;
use casemate_phone::capf::enrol::Silence;
use casemate_phone::capf::message::tag;
use casemate_phone::capf::{AuthString, Command, Enrolment, Fault, Message, Outcome, Premade, Step, enrol};
use casemate_phone::identity::{DeviceKey, KeySpec};
use casemate_phone::tls::TlsVersions;
use casemate_phone::trust::TrustList;

use crate::fake::Identity;
use crate::fake::capf::{Script, serve};
use crate::fake::cluster::DEVICE;
use crate::fake::files::{CAPF, File, SAST, TVS};
use crate::fake::serve::{endpoint, tcp};

struct Door {
    enrolment: Enrolment,
    heard: Receiver<Message>,
}

/// A CAPF that plays `script`, and a phone that has its certificate in the list.
fn door(script: impl FnMut() -> Script + Send + 'static) -> Door {
    let capf = Arc::new(Identity::rsa("capf"));
    let (port, heard) = serve(Arc::clone(&capf), script);
    Door { enrolment: enrolment(&capf, port), heard }
}

fn enrolment(capf: &Identity, port: u16) -> Enrolment {
    let [sast, tvs] = ["sast", "tvs"].map(Identity::rsa);
    let list = File::list(&sast, &[(SAST, &sast), (TVS, &tvs), (CAPF, capf)]).write();
    let list = TrustList::read(&list).unwrap();
    Enrolment::new(endpoint("CAPF", port), &list, DEVICE, Some(AuthString::new("123456"))).unwrap()
}

fn premade(spec: KeySpec) -> Premade {
    Premade(Arc::new(DeviceKey::generate(spec).unwrap()))
}

#[test]
fn a_right_server_installs_over_both_tls_versions() {
    let mut door = door(|| Script::new(DEVICE));
    for tls in [TlsVersions::Only12, TlsVersions::Only13, TlsVersions::Both] {
        door.enrolment.tls = tls;
        let outcome = enrol(&door.enrolment, &mut premade(KeySpec::Rsa2048)).unwrap();
        assert!(matches!(outcome, Outcome::Installed(lsc) if lsc.serial == "1234"));
    }
    let said: Vec<Command> = door.heard.try_iter().map(|message| message.command).collect();
    let session = [Command::AuthResponse, Command::KeyGenResponse, Command::StoreCertResponse];
    assert_eq!(said, [session, session, session].concat());
}

#[test]
fn ec_keys_and_old_versions_are_enrolled() {
    let ec = |curve| {
        move || Script { key_request: vec![(tag::KEY_TYPE, vec![1]), (tag::CURVE, vec![curve])], ..Script::new(DEVICE) }
    };
    for (curve, spec) in [(0, KeySpec::P256), (1, KeySpec::P384), (2, KeySpec::P521)] {
        let outcome = enrol(&door(ec(curve)).enrolment, &mut premade(spec)).unwrap();
        assert!(matches!(outcome, Outcome::Installed(_)), "{spec}");
    }
    for version in [1, 2] {
        let size = vec![(tag::KEY_SIZE, 2048_u16.to_be_bytes().to_vec())];
        let mut door = door(move || Script { key_request: size.clone(), ..Script::new(DEVICE) });
        door.enrolment.version = version;
        assert!(matches!(enrol(&door.enrolment, &mut premade(KeySpec::Rsa2048)), Ok(Outcome::Installed(_))));
        assert_eq!(door.heard.recv().unwrap().get(tag::VERSION), Some(&[version][..]));
    }
}

#[test]
fn a_server_with_another_certificate_is_refused() {
    let door = door(|| Script::new(DEVICE));
    for listed in [Identity::rsa("capf"), Identity::rsa("other")] {
        let mut enrolment = door.enrolment.clone();
        enrolment.capf.certificate = listed.certificate;
        for tls in [TlsVersions::Only12, TlsVersions::Only13] {
            enrolment.tls = tls;
            let error = enrol(&enrolment, &mut premade(KeySpec::P256)).unwrap_err();
            assert!(matches!(error, PhoneError::ServerCertificate { service: "CAPF" }), "{error}");
        }
    }
    assert!(door.heard.try_recv().is_err(), "the phone spoke to a server that it does not know");
}

#[test]
fn a_server_without_the_listed_key_is_refused() {
    // The listed certificate, which anyone can have, shown by someone with another key of the same kind.
    let capf = Identity::rsa("capf");
    let thief = Identity { certificate: capf.certificate.clone(), ..Identity::rsa("thief") };
    let port = crate::fake::serve::tls(&thief, |_| panic!("the phone took a stolen certificate"));
    let mut enrolment = enrolment(&capf, port);
    for tls in [TlsVersions::Only12, TlsVersions::Only13] {
        enrolment.tls = tls;
        let error = enrol(&enrolment, &mut premade(KeySpec::P256)).unwrap_err();
        assert!(
            matches!(&error, PhoneError::Connection { source, .. } if source.to_string().contains("BadSignature")),
            "{error}"
        );
    }
}

#[test]
fn a_wrong_certificate_is_declined_and_refused() {
    let door = door(|| Script::new("SEPFFFFFFFFFFFF"));
    let error = enrol(&door.enrolment, &mut premade(KeySpec::Rsa2048)).unwrap_err();
    assert!(matches!(error, PhoneError::Lsc(_)), "{error}");
    let last = door.heard.iter().find(|message| message.command == Command::StoreCertResponse).unwrap();
    assert_eq!(last.reason().unwrap(), 7);
}

#[test]
fn a_message_in_two_records_is_refused() {
    let door = door(|| Script { writes: 2, ..Script::new(DEVICE) });
    let error = enrol(&door.enrolment, &mut premade(KeySpec::Rsa2048)).unwrap_err();
    assert!(matches!(error, PhoneError::CapfSplitMessage), "{error}");
}

#[test]
fn another_key_than_the_one_made_beforehand_is_refused() {
    let door = door(|| Script::new(DEVICE));
    let error = enrol(&door.enrolment, &mut premade(KeySpec::P256)).unwrap_err();
    assert!(matches!(error, PhoneError::KeyRequest(_)), "{error}");
}

#[test]
fn a_last_word_of_failure_is_a_failure() {
    let door = door(|| Script { final_reason: 7, ..Script::new(DEVICE) });
    let error = enrol(&door.enrolment, &mut premade(KeySpec::Rsa2048)).unwrap_err();
    assert!(matches!(error, PhoneError::CapfEnded { reason: 7 }), "{error}");
}

#[test]
fn a_message_in_ten_writes_still_arrives_whole() {
    let mut door = door(|| Script::new(DEVICE));
    door.enrolment.behaviour.faults = [Command::AuthResponse, Command::KeyGenResponse, Command::StoreCertResponse]
        .map(|message| Fault::Split { message, writes: 10, pause: Duration::from_millis(1) })
        .to_vec();
    assert!(matches!(enrol(&door.enrolment, &mut premade(KeySpec::Rsa2048)), Ok(Outcome::Installed(_))));
}

#[test]
fn the_phone_falls_silent_where_it_is_told_to() {
    let door = door(|| Script::new(DEVICE));
    let hold = Duration::from_millis(100);
    let steps = [
        Fault::StopAfter(Step::Connected),
        Fault::StopAfter(Step::ClientHello),
        Fault::StopAfter(Step::Handshake),
        Fault::StopAfter(Step::Received(Command::AuthRequest)),
        Fault::StopAfter(Step::Sent(Command::AuthResponse)),
        Fault::StopAfter(Step::Received(Command::StoreCertRequest)),
        Fault::NeverEnd(Command::KeyGenResponse),
        Fault::WrongLength { message: Command::AuthResponse, by: 1 },
    ];
    for fault in steps {
        let mut enrolment = door.enrolment.clone();
        enrolment.behaviour.faults = vec![fault];
        enrolment.behaviour.hold = hold;
        enrolment.endpoint.limit = Duration::from_secs(1);
        let start = Instant::now();
        match enrol(&enrolment, &mut premade(KeySpec::Rsa2048)) {
            Ok(Outcome::Silent(Silence::StillOpen)) => assert!(start.elapsed() >= hold, "{fault:?}"),
            // This server waits for the byte that the length promises, and the phone for the answer.
            Err(PhoneError::TimedOut { .. }) => assert!(matches!(fault, Fault::WrongLength { .. })),
            other => panic!("{fault:?}: {other:?}"),
        }
    }
}

#[test]
fn a_silent_phone_sees_that_the_server_gave_up() {
    let capf = Identity::rsa("capf");
    let port = tcp(drop);
    let mut enrolment = enrolment(&capf, port);
    enrolment.behaviour.faults = vec![Fault::StopAfter(Step::ClientHello)];
    enrolment.behaviour.hold = Duration::from_secs(5);
    let outcome = enrol(&enrolment, &mut premade(KeySpec::P256)).unwrap();
    assert_eq!(outcome, Outcome::Silent(Silence::Closed));
}

#[test]
fn a_server_that_says_nothing_is_given_up() {
    let capf = Identity::rsa("capf");
    let mut held = Vec::new();
    let port = tcp(move |stream| held.push(stream));
    let mut enrolment = enrolment(&capf, port);
    enrolment.endpoint.limit = Duration::from_millis(200);
    let error = enrol(&enrolment, &mut premade(KeySpec::P256)).unwrap_err();
    assert!(matches!(error, PhoneError::TimedOut { service: "CAPF" }), "{error}");
}
