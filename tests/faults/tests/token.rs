//! The token pulled, exchanged, robbed of a key, or refusing its PIN: refusals and audit events, nothing made, nothing lost, and
//! service by itself when the token is back.
#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use std::{thread, time::Duration};

use casemate_faults::{Caller, Token};
use casemate_harness::{Lab, LabSettings, Ports};
use casemate_phone::{PhoneError, capf::Outcome, tls::Endpoint, transfer::http};
use serde_json::Value;

const FIRST: &str = "SEP000000000001";
const SECOND: &str = "SEP000000000002";

/// How long the service may take to be back after the token is.
const SECONDS: Duration = Duration::from_secs(10);

/// A lab with two phones added, of which the first enrolled.
fn lab(name: &str) -> Lab {
    let lab = Lab::start(LabSettings::for_test(name)).unwrap();
    for phone in [FIRST, SECOND] {
        lab.add_phone(phone, &["--null-string", "--key", "p-256"]).unwrap();
    }
    assert!(enrols(&lab, FIRST));
    lab
}

fn enrols(lab: &Lab, phone: &str) -> bool {
    matches!(Caller::new(lab, phone, None).unwrap().enrol(), Ok(Outcome::Installed(_)))
}

fn json(lab: &Lab, arguments: &[&str]) -> Value {
    serde_json::from_str(&lab.casemate(arguments).unwrap()).unwrap()
}

/// Role, fingerprint and identifier of every key on record.
fn keys(lab: &Lab) -> Vec<[String; 3]> {
    let listed = json(lab, &["hsm", "list", "--json"]);
    let text = |key: &Value, name: &str| key[name].as_str().unwrap().to_owned();
    let fields = |key: &Value| ["role", "fingerprint", "key-id"].map(|name| text(key, name));
    listed["keys"].as_array().unwrap().iter().map(fields).collect()
}

fn count(lab: &Lab, event: &str) -> usize {
    lab.audited(event).unwrap().len()
}

/// That no key was made, adopted or removed after the seven of provisioning.
fn nothing_made(lab: &Lab) {
    assert_eq!(count(lab, "KeyGenerated"), 7);
    assert_eq!(count(lab, "KeyAdopted") + count(lab, "KeyHalfRemoved"), 0);
}

fn pid_of(lab: &Lab, daemon: &str) -> i32 {
    lab.pid(daemon).unwrap().as_raw()
}

#[test]
fn a_token_pulled_in_the_middle_of_an_enrolment_loses_nothing() {
    let lab = lab("token-pulled");
    let (objects, keys_before, keyd) = (lab.token_objects().unwrap(), keys(&lab), pid_of(&lab, "keyd"));
    assert_eq!(objects, (7, 7));
    let token = Token::of(&lab).unwrap();
    let second = Caller::new(&lab, SECOND, None).unwrap();

    // Pulled after the handshake and before the certificate: the phone gets a reason code.
    let refused = second.enrol_with(|| token.pull().unwrap());
    assert!(matches!(refused, Err(PhoneError::CapfEnded { reason: 7 })), "{refused:?}");
    let told = lab.wait_for_events("EnrolmentRefused", 1).unwrap();
    assert!(told.len() == 1 && told[0]["CASEMATE_DEVICE"] == SECOND, "{told:?}");
    assert!(told[0]["CASEMATE_REASON"].as_str().unwrap().len() > 10, "{told:?}");
    lab.wait_for("the absence in the audit trail", SECONDS, || count(&lab, "TokenAbsent") >= 1).unwrap();

    // While it is away there is no handshake, and the trail says why.
    let refused = second.enrol();
    assert!(matches!(refused, Err(PhoneError::Connection { service: "CAPF", .. })), "{refused:?}");
    let reason = |event: &Value| event["CASEMATE_REASON"].as_str().unwrap().to_owned();
    let tls: Vec<_> = lab.wait_for_events("TlsRefused", 1).unwrap().iter().map(reason).collect();
    assert!(tls.iter().any(|reason| reason.contains("absent")), "{tls:?}");
    assert_eq!(json(&lab, &["hsm", "list", "--json"])["tokens"][0]["info"], Value::Null);
    assert_eq!(keys(&lab), keys_before, "the records do not depend on the token");
    // What needs no key goes on.
    let host = lab.address(Ports::HTTP).ip().to_string();
    let http = Endpoint { service: "HTTP", host, port: Ports::HTTP, limit: SECONDS };
    http::fetch(&http, "ITLFile.tlv").unwrap();

    token.put_back().unwrap();
    lab.wait_for("service by itself", SECONDS, || matches!(second.enrol(), Ok(Outcome::Installed(_)))).unwrap();
    assert_eq!(pid_of(&lab, "keyd"), keyd, "nobody had to restart casemate-keyd");
    assert_eq!((lab.token_objects().unwrap(), keys(&lab)), (objects, keys_before));
    nothing_made(&lab);
    let phones = json(&lab, &["phone", "list", "--json"]);
    assert!(phones.as_array().unwrap().iter().all(|phone| phone["operation"] == "delivered"), "{phones}");
    assert_eq!((phones.as_array().unwrap().len(), count(&lab, "CertificateDelivered")), (2, 2));
    // The delivery changed the phone's configuration, and somebody signs it: a phone that starts anew finds nothing to do.
    lab.wait_for("a new configuration", SECONDS, || lab.phone(SECOND).play(&["--via", "http"]).is_ok()).unwrap();
}

#[test]
fn a_broker_that_starts_without_its_token_waits_for_it() {
    let lab = lab("token-late");
    let keys_before = keys(&lab);
    let token = Token::of(&lab).unwrap();
    token.pull().unwrap();
    lab.kill("keyd").unwrap();
    lab.wait_for("the absence in the audit trail", SECONDS, || count(&lab, "TokenAbsent") >= 1).unwrap();
    let starts = lab.starts("keyd");
    assert!(lab.casemate(&["hsm", "list"]).is_err(), "it listens before it tested the token");
    assert!(!enrols(&lab, SECOND));
    token.put_back().unwrap();
    lab.wait_for("service by itself", SECONDS, || enrols(&lab, SECOND)).unwrap();
    assert_eq!(lab.starts("keyd"), starts, "it waited, and did not end");
    assert_eq!(keys(&lab), keys_before);
    nothing_made(&lab);
}

#[test]
fn another_token_in_its_place_gets_no_key() {
    let lab = lab("token-exchanged");
    let (objects, keys_before) = (lab.token_objects().unwrap(), keys(&lab));
    let token = Token::of(&lab).unwrap();
    token.pull().unwrap();
    // An empty slot: nothing is made, for there is nowhere to make it.
    let refused = lab.casemate(&["provision"]).unwrap_err().to_string();
    assert!(refused.contains("absent"), "{refused}");
    // An empty token with the same label and PIN, as after a well-meant initialisation.
    token.put_another().unwrap();
    lab.wait_for("the other token to be noticed", SECONDS, || count(&lab, "KeyMissing") >= 7).unwrap();
    for _ in 0..3 {
        let refused = lab.casemate(&["provision"]).unwrap_err().to_string();
        assert!(refused.contains("bring back the token"), "{refused}");
    }
    assert!(!enrols(&lab, SECOND));
    assert_eq!(lab.token_objects().unwrap(), (0, 0), "something was made on another token");
    assert!(count(&lab, "ProvisionFailed") >= 4);
    nothing_made(&lab);

    token.put_back().unwrap();
    lab.wait_for("service by itself", SECONDS, || enrols(&lab, SECOND)).unwrap();
    assert_eq!((lab.token_objects().unwrap(), keys(&lab)), (objects, keys_before));
    lab.casemate(&["provision"]).unwrap();
    nothing_made(&lab);
}

#[test]
fn a_recorded_key_that_was_destroyed_is_missing_and_is_not_made_again() {
    let lab = lab("token-destroyed");
    let keys_before = keys(&lab);
    let [_, fingerprint, key_id] = keys_before.iter().find(|[role, ..]| role == "TVS").unwrap();
    Token::of(&lab).unwrap().destroy(key_id).unwrap();
    assert_eq!(lab.token_objects().unwrap(), (6, 6));
    let refused = lab.casemate(&["provision"]).unwrap_err().to_string();
    assert!(refused.contains("TVS") && refused.contains("restore the key"), "{refused}");
    let missing = lab.audited("KeyMissing").unwrap();
    assert!(missing.len() == 1 && missing[0]["CASEMATE_FINGERPRINT"] == fingerprint.as_str(), "{missing:?}");

    // A restart finds the same, and the other keys serve on.
    lab.kill("keyd").unwrap();
    lab.wait_for("the broker", SECONDS, || lab.casemate(&["hsm", "list"]).is_ok()).unwrap();
    assert_eq!(count(&lab, "KeyMissing"), 2);
    let refused = lab.casemate(&["provision"]).unwrap_err().to_string();
    assert!(refused.contains("TVS"), "{refused}");
    let listed = json(&lab, &["hsm", "list", "--json"]);
    for key in listed["keys"].as_array().unwrap() {
        assert_eq!(key["on-token"], key["role"] != "TVS", "{key}");
    }
    assert!(enrols(&lab, SECOND));
    assert_eq!(keys(&lab), keys_before, "the record of a missing key stays");
    assert_eq!(lab.token_objects().unwrap(), (6, 6));
    nothing_made(&lab);
}

#[test]
fn a_wrong_pin_is_tried_once_and_a_corrected_one_serves() {
    let lab = Lab::prepare(LabSettings::for_test("token-pin")).unwrap();
    let token = Token::of(&lab).unwrap();
    token.write_pin_file("000000").unwrap();
    lab.postd(&[]).unwrap();
    let low = || token.flags().unwrap().contains("count low");
    thread::scope(|scope| {
        // Not ready for as long as the PIN is wrong; the start is given up when the broker is killed below.
        let start = scope.spawn(|| lab.start_daemon("keyd"));
        lab.wait_for("the refusal in the audit trail", SECONDS, || count(&lab, "TokenRefused") == 1).unwrap();
        assert!(low(), "the PIN was not tried at all: {}", token.flags().unwrap());
        // A good login by somebody else takes the warning away: if it comes back, the PIN was tried again.
        token.log_in().unwrap();
        assert!(!low(), "{}", token.flags().unwrap());
        for restarts in 1..=3 {
            lab.wait_for("a broker to kill", SECONDS, || lab.kill("keyd").unwrap()).unwrap();
            lab.wait_for("the refusal again", SECONDS, || count(&lab, "TokenRefused") == 1 + restarts).unwrap();
        }
        assert!(start.join().unwrap().is_err(), "it said that it serves");
    });
    let flags = token.flags().unwrap();
    assert!(!flags.contains("low") && !flags.contains("final") && !flags.contains("locked"), "tried again: {flags}");
    assert!(lab.casemate(&["hsm", "list"]).is_err());
    let starts = lab.starts("keyd");

    token.correct_pin_file().unwrap();
    lab.wait_for("service by itself", SECONDS, || lab.casemate(&["hsm", "list"]).is_ok()).unwrap();
    assert_eq!((lab.starts("keyd"), count(&lab, "TokenReady")), (starts, 1));
    lab.start_daemon("certmgr").unwrap();
    lab.casemate(&["provision"]).unwrap();
    assert_eq!(lab.token_objects().unwrap(), (7, 7));
}
