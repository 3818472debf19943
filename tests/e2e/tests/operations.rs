//! What an operator may set for a phone, and what becomes of it.
#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use casemate_harness::{Lab, LabSettings};
use serde_json::Value;

const PHONE: &str = "SEP001122334455";

fn phones(lab: &Lab) -> BTreeMap<String, Value> {
    let listed: Value = serde_json::from_str(&lab.casemate(&["phone", "list", "--json"]).unwrap()).unwrap();
    let phones = listed.as_array().unwrap().clone();
    phones.into_iter().map(|phone| (phone["name"].as_str().unwrap().to_owned(), phone)).collect()
}

#[test]
fn a_phone_that_is_added_again_has_the_new_operation_alone() {
    let lab = Lab::start(LabSettings::for_test("operations-replaced")).unwrap();
    let phone = lab.phone(PHONE);
    lab.add_phone(PHONE, &["--string", "11111111"]).unwrap();
    lab.add_phone(PHONE, &["--string", "22222222", "--key", "p-256"]).unwrap();
    assert_eq!(phones(&lab).len(), 1);
    assert!(phone.play(&["--string", "11111111"]).is_err(), "the string of the replaced operation");
    assert_eq!(phones(&lab)[PHONE]["failures"], 1);
    phone.play(&["--string", "22222222", "--key", "p-256"]).unwrap();
    let delivered = phones(&lab)[PHONE].clone();
    assert_eq!((&delivered["operation"], &delivered["key"]), (&"delivered".into(), &"p-256".into()));

    // Added once more, it pends again, and the certificate that the phone has stays on record until the new one is confirmed.
    lab.add_phone(PHONE, &["--null-string", "--key", "p-384"]).unwrap();
    let pending = phones(&lab)[PHONE].clone();
    assert_eq!((&pending["operation"], &pending["mode"]), (&"pending".into(), &"null-string".into()));
    assert_eq!(pending["serial"], delivered["serial"]);
    lab.wait_for("the phone to be sent to CAPF again", Duration::from_secs(10), || {
        phone.play(&["--key", "p-384"]).is_ok() && phones(&lab)[PHONE]["operation"] == "delivered"
    })
    .unwrap();
    assert_ne!(phones(&lab)[PHONE]["serial"], delivered["serial"]);
    assert_eq!(lab.wait_for_events("CertificateDelivered", 2).unwrap().len(), 2);

    let added = lab.audited("DeviceAdded").unwrap();
    let modes: Vec<_> = added.iter().map(|event| event["CASEMATE_MODE"].as_str().unwrap()).collect();
    assert_eq!(modes, ["authentication-string", "authentication-string", "null-string"]);
    assert!(added.iter().all(|event| event["CASEMATE_UID"] == "0"), "who added it: {added:?}");
}

#[test]
fn the_list_of_phones_tells_where_each_stands() {
    let extra = vec![("capf", "null-string-s = 7200\nsession = { failures = 2 }".to_owned())];
    let lab = Lab::start(LabSettings { extra, ..LabSettings::for_test("operations-states") }).unwrap();
    let [pending, delivered, locked] = ["SEP00000000D001", "SEP00000000D002", "SEP00000000D003"];
    lab.add_phone(pending, &["--null-string", "--key", "p-521"]).unwrap();
    lab.add_phone(delivered, &["--string", "1234567", "--key", "p-256"]).unwrap();
    lab.add_phone(locked, &["--string", "7654321", "--key", "p-256"]).unwrap();
    lab.phone(delivered).play(&["--string", "1234567"]).unwrap();
    for _ in 0..2 {
        assert!(lab.phone(locked).play(&["--string", "1234567"]).is_err());
    }
    let phones = phones(&lab);
    let field = |name: &str, field: &str| phones[name][field].clone();
    let states = [pending, delivered, locked].map(|name| field(name, "operation"));
    assert_eq!(states, ["pending", "delivered", "locked"]);
    let failures = [pending, delivered, locked].map(|name| field(name, "failures"));
    assert_eq!(failures, [0, 0, 2]);
    let keys = [pending, delivered, locked].map(|name| field(name, "key"));
    assert_eq!(keys, ["p-521", "p-256", "p-256"]);
    assert_eq!([pending, delivered, locked].map(|name| field(name, "serial").is_string()), [false, true, false]);

    // A null string ends after the seconds of the setting; a string does not end by itself.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let left = field(pending, "expires").as_u64().unwrap() - now;
    assert!((7100..=7200).contains(&left), "{left} s");
    assert_eq!(field(delivered, "expires"), Value::Null);

    // The table for a person says the same.
    let table = lab.casemate(&["phone", "list"]).unwrap();
    for (name, state) in [(pending, "pending"), (delivered, "delivered"), (locked, "locked")] {
        let line = table.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(line.contains(state), "{line}");
    }
    assert_eq!(lab.audited("DeviceLocked").unwrap().len(), 1);
}

#[test]
fn what_is_no_phone_and_what_is_no_string_is_refused_and_changes_nothing() {
    let lab = Lab::start(LabSettings::for_test("operations-refused")).unwrap();
    let wrong: [&[&str]; 7] = [
        &["phone", "add", "SEP0011223344556677", "--null-string"],
        &["phone", "add", "../../etc/passwd", "--null-string"],
        &["phone", "add", "", "--null-string"],
        &["phone", "add", PHONE],
        &["phone", "add", PHONE, "--string", ""],
        &["phone", "add", PHONE, "--string", "abc"],
        &["phone", "add", PHONE, "--null-string", "--key", "rsa-1024"],
    ];
    for arguments in wrong {
        assert!(lab.casemate(arguments).is_err(), "{arguments:?}");
    }
    assert!(phones(&lab).is_empty());
    assert!(lab.audited("DeviceAdded").unwrap().is_empty());
}

#[test]
fn a_null_string_is_refused_when_its_time_is_over_and_the_device_stays() {
    // The housekeeper looks once at capf's start and then not for an hour.
    let extra = vec![("capf", "null-string-s = 1\nexpiry-ms = 3600000".to_owned())];
    let lab = Lab::start(LabSettings { extra, ..LabSettings::for_test("operations-expired") }).unwrap();
    lab.add_phone(PHONE, &["--null-string", "--key", "p-256"]).unwrap();
    let expires = phones(&lab)[PHONE]["expires"].as_u64().unwrap();
    let over = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() >= expires;
    lab.wait_for("the end of the window", Duration::from_secs(5), over).unwrap();

    // Its configuration still sends the phone to CAPF, which refuses without anybody having ended the operation.
    let refused = lab.phone(PHONE).play(&["--key", "p-256"]).unwrap_err().to_string();
    assert!(refused.contains("reason 7"), "{refused}");
    let told = lab.wait_for_events("EnrolmentRefused", 1).unwrap();
    assert_eq!(told[0]["CASEMATE_DEVICE"], PHONE);
    assert!(told[0]["CASEMATE_REASON"].as_str().unwrap().contains("has expired"), "{told:?}");
    assert!(lab.audited("OperationExpired").unwrap().is_empty(), "the housekeeper came too early for this test");

    // Ended on record, once; the device stays, and its new configuration asks for nothing.
    lab.stop_daemon("capf").unwrap();
    lab.start_daemon("capf").unwrap();
    let ended = lab.wait_for_events("OperationExpired", 1).unwrap();
    assert_eq!((ended.len(), &ended[0]["CASEMATE_DEVICE"]), (1, &PHONE.into()));
    let expired = phones(&lab)[PHONE].clone();
    assert_eq!((&expired["operation"], &expired["serial"]), (&"expired".into(), &Value::Null));
    lab.wait_for("a configuration without an operation", Duration::from_secs(10), || {
        lab.phone(PHONE).play(&[]).is_ok_and(|told| told.contains("none is wanted"))
    })
    .unwrap();
    assert!(lab.audited("CertificateIssued").unwrap().is_empty());

    // The cure that the refusal names.
    lab.add_phone(PHONE, &["--string", "4711", "--key", "p-256"]).unwrap();
    lab.wait_for("the phone to enrol", Duration::from_secs(10), || {
        lab.phone(PHONE).play(&["--string", "4711"]).is_ok()
    })
    .unwrap();
    assert_eq!(phones(&lab)[PHONE]["operation"], "delivered");
}
