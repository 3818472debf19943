//! Records: what ctlprovider is told, what survives, what cannot be recorded twice.
#![allow(clippy::unwrap_used, clippy::panic)] // a helper that fails fails its test

mod common;

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use casemate_audit::{AuditSettings, Auditor};
use casemate_capf::{
    DeviceName,
    authentication::Mode,
    protocol::Password,
    records::{Admission, NewCertificate, NewOperation, Records, State},
};
use casemate_hsm_api::KeyAlgorithm;
use casemate_store::StoreSettings;
use common::{STRING, digits, name};
use time::OffsetDateTime;

async fn open(dir: &tempfile::TempDir) -> Records {
    let trail = AuditSettings { journal_socket: dir.path().join("absent"), file: dir.path().join("journal.jsonl") };
    let auditor = Arc::new(Auditor::open("casemate-capf", &trail).unwrap());
    Records::open(&dir.path().join("capf.db"), StoreSettings::default(), auditor).await.unwrap()
}

fn peer() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 50000))
}

/// How many events of this name the trail in `folder` has.
fn events(folder: &Path, name: &str) -> usize {
    let trail = std::fs::read_to_string(folder.join("journal.jsonl")).unwrap();
    trail.matches(&format!("\"CASEMATE_EVENT\":\"{name}\"")).count()
}

fn new(device: &str, string: Option<&str>) -> NewOperation {
    NewOperation {
        device: device.parse().unwrap(),
        string: string.map(digits),
        key: KeyAlgorithm::P384,
        lifetime: Some(Duration::from_secs(60)),
    }
}

fn certificate(serial: &str, key: u8) -> NewCertificate {
    NewCertificate {
        serial: serial.into(),
        key_digest: [key; 32],
        request_digest: [9; 32],
        not_after: OffsetDateTime::UNIX_EPOCH + Duration::from_secs(1 << 31),
        der: vec![key; 100],
    }
}

#[tokio::test]
async fn every_change_of_a_device_moves_it_to_the_end_of_the_changes() {
    let dir = tempfile::tempdir().unwrap();
    let records = open(&dir).await;
    let now = OffsetDateTime::now_utc();
    for device in ["SEP000000000001", "SEP000000000002", "CSFjdoe"] {
        records.add(new(device, Some(STRING)), 0, now).await.unwrap();
    }
    let names = |devices: Vec<casemate_capf::control::DeviceConfig>| {
        devices.into_iter().map(|device| device.name.to_string()).collect::<Vec<_>>()
    };
    let all = records.changed_since(0, 10).await.unwrap();
    assert_eq!(all.iter().map(|device| device.sequence).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(all.iter().all(|device| device.mode == Some(Mode::AuthenticationString)));
    assert_eq!(names(records.changed_since(1, 1).await.unwrap()), ["SEP000000000002"]);
    assert!(records.changed_since(3, 10).await.unwrap().is_empty());

    let first: DeviceName = "SEP000000000001".parse().unwrap();
    let operation = records.latest(&first).await.unwrap().unwrap();
    assert_eq!(records.admit(&operation, certificate("aa", 1), 4, peer(), now).await.unwrap(), Admission::Recorded);
    assert!(records.changed_since(3, 10).await.unwrap().is_empty(), "its file is the same until delivery");
    records.deliver(&operation, "aa".into(), peer(), now).await.unwrap();
    let changed = records.changed_since(3, 10).await.unwrap();
    assert_eq!((changed[0].sequence, changed[0].mode), (4, None));
    records.add(new("CSFjdoe", None), 0, now).await.unwrap();
    let changed = records.changed_since(4, 10).await.unwrap();
    assert_eq!((names(changed.clone()), changed[0].mode), (vec!["CSFjdoe".to_owned()], Some(Mode::NullString)));

    let phones = records.phones(None, 2).await.unwrap();
    assert_eq!(phones.iter().map(|phone| phone.name.as_str()).collect::<Vec<_>>(), ["CSFjdoe", "SEP000000000001"]);
    assert_eq!((phones[0].serial.as_deref(), phones[1].serial.as_deref()), (None, Some("aa")));
    assert_eq!(names_of(records.phones(Some(&phones[1].name), 9).await.unwrap()), ["SEP000000000002"]);
}

fn names_of(phones: Vec<casemate_capf::control::Phone>) -> Vec<String> {
    phones.into_iter().map(|phone| phone.name.to_string()).collect()
}

/// Two deliveries within a second: the serials would sort the wrong way round.
#[tokio::test]
async fn the_certificate_of_a_phone_is_the_one_of_its_last_operation() {
    let dir = tempfile::tempdir().unwrap();
    let records = open(&dir).await;
    let now = OffsetDateTime::now_utc();
    for (serial, key) in [("ff", 1), ("aa", 2), ("cc", 3)] {
        records.add(new("SEP001122334455", None), 0, now).await.unwrap();
        let operation = records.latest(&name()).await.unwrap().unwrap();
        records.admit(&operation, certificate(serial, key), 4, peer(), now).await.unwrap();
        records.deliver(&operation, serial.into(), peer(), now).await.unwrap();
        assert_eq!(records.phones(None, 1).await.unwrap()[0].serial.as_deref(), Some(serial));
    }
}

#[tokio::test]
async fn strings_devices_and_certificates_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let now = OffsetDateTime::now_utc();
    {
        let records = open(&dir).await;
        records.add(new("SEP001122334455", Some(STRING)), 0, now).await.unwrap();
        let operation = records.latest(&name()).await.unwrap().unwrap();
        records.count_failure(&operation, 5, peer(), now).await.unwrap();
        records.admit(&operation, certificate("aa", 1), 4, peer(), now).await.unwrap();
    }
    let records = open(&dir).await;
    let operation = records.latest(&name()).await.unwrap().unwrap();
    assert_eq!((operation.failures, operation.key, operation.state), (1, KeyAlgorithm::P384, State::Pending));
    assert!(records.is_string_of(&operation, &Password::new(STRING.as_bytes())));
    assert!(!records.is_string_of(&operation, &Password::new(b"54321")));
    let known = records.certificate(operation.id, &[1; 32]).await.unwrap();
    assert_eq!(known, Some(("aa".to_owned(), vec![1; 100])));
}

#[tokio::test]
async fn one_key_has_one_certificate_in_an_operation_whoever_is_first() {
    let dir = tempfile::tempdir().unwrap();
    let records = open(&dir).await;
    let now = OffsetDateTime::now_utc();
    records.add(new("SEP001122334455", Some(STRING)), 0, now).await.unwrap();
    let operation = records.latest(&name()).await.unwrap().unwrap();
    let (one, two) = tokio::join!(
        records.admit(&operation, certificate("aa", 1), 4, peer(), now),
        records.admit(&operation, certificate("bb", 1), 4, peer(), now)
    );
    assert_eq!(one.unwrap(), Admission::Recorded);
    assert_eq!(two.unwrap(), Admission::Known { serial: "aa".into(), der: vec![1; 100] });
    assert_eq!(records.admit(&operation, certificate("cc", 2), 1, peer(), now).await.unwrap(), Admission::TooMany);
    records.deliver(&operation, "aa".into(), peer(), now).await.unwrap();
    assert_eq!(records.admit(&operation, certificate("dd", 1), 4, peer(), now).await.unwrap(), Admission::NotPending);
    assert_eq!(records.latest(&name()).await.unwrap().unwrap().certificates, 1);
}

#[tokio::test]
async fn a_delivery_that_comes_after_a_new_operation_ends_only_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let records = open(&dir).await;
    let now = OffsetDateTime::now_utc();
    records.add(new("SEP001122334455", None), 0, now).await.unwrap();
    let old = records.latest(&name()).await.unwrap().unwrap();
    records.admit(&old, certificate("aa", 1), 4, peer(), now).await.unwrap();
    records.add(new("SEP001122334455", Some(STRING)), 0, now).await.unwrap();
    let before = records.changed_since(0, 10).await.unwrap()[0].sequence;
    records.deliver(&old, "aa".into(), peer(), now).await.unwrap();
    let latest = records.latest(&name()).await.unwrap().unwrap();
    assert_eq!((latest.state, latest.certificates), (State::Pending, 0));
    assert!(records.is_string_of(&latest, &Password::new(STRING.as_bytes())));
    assert_eq!(records.changed_since(0, 10).await.unwrap()[0].sequence, before, "nothing of the device changed");
    assert_eq!(events(dir.path(), "CertificateDelivered"), 1);
}

#[tokio::test]
async fn a_locked_operation_keeps_nothing_of_its_string() {
    let dir = tempfile::tempdir().unwrap();
    let records = open(&dir).await;
    let now = OffsetDateTime::now_utc();
    records.add(new("SEP001122334455", Some(STRING)), 0, now).await.unwrap();
    let operation = records.latest(&name()).await.unwrap().unwrap();
    assert!(!records.count_failure(&operation, 2, peer(), now).await.unwrap().unwrap().locked);
    let second = records.count_failure(&operation, 2, peer(), now).await.unwrap().unwrap();
    assert_eq!((second.count, second.locked), (2, true));
    assert_eq!(records.count_failure(&operation, 2, peer(), now).await.unwrap(), None, "locked once");
    assert_eq!(events(dir.path(), "DeviceLocked"), 1);
    let locked = records.latest(&name()).await.unwrap().unwrap();
    assert_eq!(locked.state, State::Locked);
    assert!(!records.is_string_of(&locked, &Password::new(STRING.as_bytes())));
}

#[tokio::test]
async fn what_runs_out_is_ended_once_and_what_does_not_stays() {
    let dir = tempfile::tempdir().unwrap();
    let records = open(&dir).await;
    let now = OffsetDateTime::now_utc();
    records.add(new("SEP000000000001", None), 0, now - time::Duration::hours(1)).await.unwrap();
    records.add(new("SEP000000000002", None), 0, now).await.unwrap();
    let ended = records.expire(now, 10).await.unwrap();
    assert_eq!(ended.iter().map(|(device, _)| device.as_str()).collect::<Vec<_>>(), ["SEP000000000001"]);
    assert!(records.expire(now, 10).await.unwrap().is_empty());
    assert_eq!(records.changed_since(2, 10).await.unwrap()[0].mode, None);
}

/// Begins `change` and does not wait for its end: it is committed, and the process is gone before it has acted on that.
async fn killed_after_commit<T>(change: impl Future<Output = T>) {
    tokio::select! {
        biased;
        _ = change => panic!("the change was waited for"),
        () = std::future::ready(()) => {}
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
}

#[tokio::test]
async fn what_a_kill_kept_from_the_audit_trail_is_recorded_at_the_next_start_and_once() {
    let dir = tempfile::tempdir().unwrap();
    let now = OffsetDateTime::now_utc();
    let expect = |name, count| assert_eq!(events(dir.path(), name), count, "{name}");

    let records = open(&dir).await;
    killed_after_commit(records.add(new("SEP001122334455", Some(STRING)), 7, now)).await;
    expect("DeviceAdded", 0);
    let operation = records.latest(&name()).await.unwrap().expect("it is on record all the same");
    drop(records);

    let records = open(&dir).await;
    expect("DeviceAdded", 1);
    killed_after_commit(records.admit(&operation, certificate("aa", 1), 4, peer(), now)).await;
    killed_after_commit(records.deliver(&operation, "aa".into(), peer(), now)).await;
    expect("CertificateIssued", 0);
    expect("CertificateDelivered", 0);
    drop(records);

    for _ in 0..2 {
        drop(open(&dir).await);
        for event in ["DeviceAdded", "CertificateIssued", "CertificateDelivered"] {
            expect(event, 1);
        }
    }
    let trail = std::fs::read_to_string(dir.path().join("journal.jsonl")).unwrap();
    assert!(trail.contains("192.0.2.1:50000") && trail.find("CertificateIssued") < trail.find("CertificateDelivered"));
}

#[tokio::test]
async fn a_recorded_event_is_not_repeated_once_it_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let now = OffsetDateTime::now_utc();
    let records = open(&dir).await;
    for number in 0..1500 {
        records.add(new(&format!("SEP{number:012}"), None), 0, now).await.unwrap();
        if number == 1498 {
            records.forget_recorded_events().await.unwrap();
        }
    }
    drop(records);
    drop(open(&dir).await);
    // At least once: the last one was in the trail and not yet forgotten.
    assert_eq!(events(dir.path(), "DeviceAdded"), 1501);
    drop(open(&dir).await);
    assert_eq!(events(dir.path(), "DeviceAdded"), 1501);
}
