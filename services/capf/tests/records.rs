//! Records: what ctlprovider is told, what survives, what cannot be recorded twice.
#![allow(clippy::unwrap_used, clippy::panic)] // a helper that fails fails its test

mod common;

use std::time::Duration;

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
    Records::open(&dir.path().join("capf.db"), StoreSettings::default()).await.unwrap()
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
        records.add(new(device, Some(STRING)), now).await.unwrap();
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
    assert_eq!(records.admit(&operation, certificate("aa", 1), 4, now).await.unwrap(), Admission::Recorded);
    assert!(records.changed_since(3, 10).await.unwrap().is_empty(), "its file is the same until delivery");
    records.deliver(&operation, "aa".into(), now).await.unwrap();
    let changed = records.changed_since(3, 10).await.unwrap();
    assert_eq!((changed[0].sequence, changed[0].mode), (4, None));
    records.add(new("CSFjdoe", None), now).await.unwrap();
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

#[tokio::test]
async fn strings_devices_and_certificates_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let now = OffsetDateTime::now_utc();
    {
        let records = open(&dir).await;
        records.add(new("SEP001122334455", Some(STRING)), now).await.unwrap();
        let operation = records.latest(&name()).await.unwrap().unwrap();
        records.count_failure(&operation, 5, now).await.unwrap();
        records.admit(&operation, certificate("aa", 1), 4, now).await.unwrap();
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
    records.add(new("SEP001122334455", Some(STRING)), now).await.unwrap();
    let operation = records.latest(&name()).await.unwrap().unwrap();
    let (one, two) = tokio::join!(
        records.admit(&operation, certificate("aa", 1), 4, now),
        records.admit(&operation, certificate("bb", 1), 4, now)
    );
    assert_eq!(one.unwrap(), Admission::Recorded);
    assert_eq!(two.unwrap(), Admission::Known { serial: "aa".into(), der: vec![1; 100] });
    assert_eq!(records.admit(&operation, certificate("cc", 2), 1, now).await.unwrap(), Admission::TooMany);
    records.deliver(&operation, "aa".into(), now).await.unwrap();
    assert_eq!(records.admit(&operation, certificate("dd", 1), 4, now).await.unwrap(), Admission::NotPending);
    assert_eq!(records.certificates_of(operation.id).await.unwrap(), 1);
}

#[tokio::test]
async fn a_locked_operation_keeps_nothing_of_its_string() {
    let dir = tempfile::tempdir().unwrap();
    let records = open(&dir).await;
    let now = OffsetDateTime::now_utc();
    records.add(new("SEP001122334455", Some(STRING)), now).await.unwrap();
    let operation = records.latest(&name()).await.unwrap().unwrap();
    assert!(!records.count_failure(&operation, 2, now).await.unwrap().locked);
    let second = records.count_failure(&operation, 2, now).await.unwrap();
    assert_eq!((second.count, second.locked), (2, true));
    let third = records.count_failure(&operation, 2, now).await.unwrap();
    assert!(!third.locked && third.count >= 2, "locked once: {third:?}");
    let locked = records.latest(&name()).await.unwrap().unwrap();
    assert_eq!(locked.state, State::Locked);
    assert!(!records.is_string_of(&locked, &Password::new(STRING.as_bytes())));
}

#[tokio::test]
async fn what_runs_out_is_ended_once_and_what_does_not_stays() {
    let dir = tempfile::tempdir().unwrap();
    let records = open(&dir).await;
    let now = OffsetDateTime::now_utc();
    records.add(new("SEP000000000001", None), now - time::Duration::hours(1)).await.unwrap();
    records.add(new("SEP000000000002", None), now).await.unwrap();
    let ended = records.expire(now, 10).await.unwrap();
    assert_eq!(ended.iter().map(|(device, _)| device.as_str()).collect::<Vec<_>>(), ["SEP000000000001"]);
    assert!(records.expire(now, 10).await.unwrap().is_empty());
    assert_eq!(records.changed_since(2, 10).await.unwrap()[0].mode, None);
}
