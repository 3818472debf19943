//! Whole sessions against real records and a software key: what a phone gets, and what is on record then.
#![allow(clippy::unwrap_used, clippy::panic)] // a helper that fails fails its test

mod common;

use std::{sync::atomic::Ordering, time::Duration};

use casemate_capf::{
    SessionLimits,
    protocol::{Command, Element},
    records::{NewOperation, State},
};
use casemate_hsm_api::KeyAlgorithm;
use casemate_pki::CertificateFacts;
use casemate_store::{
    StoreSettings,
    sqlx::{self, Connection, SqliteConnection, sqlite::SqliteConnectOptions},
};
use common::{AUDITED_REFUSALS, Ended, PHONE, STRING, World, name, p256, quick, soon};
use time::OffsetDateTime;
use tokio::io::AsyncWriteExt;

fn declined(outcome: Result<impl std::fmt::Debug, Ended>, text: &str) {
    match outcome {
        Err(Ended(7, Some(told))) => assert!(told.contains(text), "{told}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_phone_with_the_string_enrols_once_and_the_string_is_consumed() {
    let world = World::new(SessionLimits::default()).await;
    let operation = world.add(Some(STRING), KeyAlgorithm::P256).await;
    let key = p256();
    let der = world.phone().enrol(Some(STRING), &key).await.unwrap();
    let facts = CertificateFacts::parse(&der).unwrap();
    assert_eq!(facts.common_names, [PHONE]);
    assert_eq!(facts.spki_der, key);
    assert!(!facts.is_ca);
    let phone = &world.records.phones(None, 10).await.unwrap()[0];
    assert_eq!(
        (phone.operation.as_str(), phone.serial.clone()),
        ("delivered", Some(facts.serial.iter().map(|b| format!("{b:02x}")).collect()))
    );
    assert_eq!(world.records.latest(&name()).await.unwrap().unwrap().id, operation);
    assert_eq!(world.phone().enrol(Some(STRING), &key).await, Err(Ended(0, None)));
    assert_eq!(world.phone().enrol(Some(STRING), &p256()).await, Err(Ended(0, None)));
    for event in ["EnrolmentStarted", "CertificateIssued", "CertificateDelivered"] {
        assert_eq!(world.events(event), 1, "{event}");
    }
    // Nothing of the string is left.
    let mut file = open(&world).await;
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM operations WHERE salt IS NOT NULL OR tag IS NOT NULL")
        .fetch_one(&mut file)
        .await
        .unwrap();
    assert_eq!(left, 0);
}

async fn open(world: &World) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(world.dir.path().join("capf.db"));
    SqliteConnection::connect_with(&options).await.unwrap()
}

#[tokio::test]
async fn a_null_string_phone_enrols_until_the_operation_expires() {
    let world = World::new(SessionLimits::default()).await;
    world.add(None, KeyAlgorithm::P256).await;
    world.phone().enrol(None, &p256()).await.unwrap();
    let brief = NewOperation {
        device: name(),
        string: None,
        key: KeyAlgorithm::P256,
        lifetime: Some(Duration::from_secs(3600)),
    };
    world.records.add(brief, 0, OffsetDateTime::now_utc() - time::Duration::hours(2)).await.unwrap();
    declined(world.phone().enrol(None, &p256()).await, "expired");
    assert_eq!(world.issuer.signatures.load(Ordering::Relaxed), 1);
    world.enrolment.expire().await.unwrap();
    world.enrolment.expire().await.unwrap();
    assert_eq!(world.events("OperationExpired"), 1);
    assert_eq!(world.records.latest(&name()).await.unwrap().unwrap().state, State::Expired);
    declined(world.phone().enrol(None, &p256()).await, "expired");
}

#[tokio::test]
async fn an_unknown_device_gets_reason_9() {
    let world = World::new(SessionLimits::default()).await;
    assert_eq!(world.phone().enrol(Some(STRING), &p256()).await, Err(Ended(9, None)));
    assert_eq!(world.events("EnrolmentRefused"), 1);
}

#[tokio::test]
async fn five_wrong_strings_lock_the_operation_for_the_right_one_too() {
    let world = World::new(SessionLimits::default()).await;
    world.add(Some(STRING), KeyAlgorithm::P256).await;
    declined(world.phone().enrol(None, &p256()).await, "no authentication string");
    for left in (1..5).rev() {
        declined(world.phone().enrol(Some("54321"), &p256()).await, &format!("{left} more"));
    }
    declined(world.phone().enrol(Some("123456"), &p256()).await, "locked");
    declined(world.phone().enrol(Some(STRING), &p256()).await, "locked");
    assert_eq!((world.events("DeviceLocked"), world.issuer.signatures.load(Ordering::Relaxed)), (1, 0));
    world.add(Some("999999"), KeyAlgorithm::P256).await;
    declined(world.phone().enrol(Some(STRING), &p256()).await, "4 more");
    world.phone().enrol(Some("999999"), &p256()).await.unwrap();
}

#[tokio::test]
async fn no_string_is_looked_at_while_one_before_it_is_being_counted() {
    let world = World::new(SessionLimits::default()).await;
    world.add(Some(STRING), KeyAlgorithm::P256).await;
    let mut other = open(&world).await;
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let wrong = tokio::spawn(world.phone().enrol(Some("54321"), &[]));
    tokio::time::sleep(Duration::from_millis(200)).await;
    // Else a hundred strings at once would be a hundred attempts against a limit of five.
    declined(world.phone().hello(Some(STRING)).await, "another session");
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    declined(wrong.await.unwrap(), "4 more");
    world.phone().enrol(Some(STRING), &p256()).await.unwrap();
}

#[tokio::test]
async fn a_string_that_could_not_be_counted_is_counted_before_the_next_is_looked_at() {
    let store = StoreSettings { wait_ms: 50, ..StoreSettings::default() };
    let world = World::with_store(SessionLimits::default(), store).await;
    world.add(Some(STRING), KeyAlgorithm::P256).await;
    let mut other = open(&world).await;
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    declined(world.phone().enrol(Some("54321"), &p256()).await, "try again later");
    // Told apart, the right string and a wrong one could be found out while nothing is counted.
    let mut phone = world.phone();
    declined(phone.hello(Some(STRING)).await, "try again later");
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    world.phone().enrol(Some(STRING), &p256()).await.unwrap();
    assert_eq!(world.records.latest(&name()).await.unwrap().unwrap().failures, 1);
}

#[tokio::test]
async fn a_retry_with_the_same_key_gets_the_same_certificate_without_a_second_signature() {
    let world = World::new(quick()).await;
    world.add(Some(STRING), KeyAlgorithm::P256).await;
    let key = p256();
    let mut cut = world.phone();
    cut.hello(Some(STRING)).await.unwrap();
    let first = cut.certify(&key).await.unwrap();
    drop(cut);
    soon(|| world.events("EnrolmentRefused") == 1).await;
    assert_eq!(world.phone().enrol(Some(STRING), &key).await.unwrap(), first);
    assert_eq!(world.issuer.signatures.load(Ordering::Relaxed), 1);
    assert_eq!(world.events("CertificateIssued"), 1);
}

#[tokio::test]
async fn another_key_before_delivery_is_certified_anew_but_not_for_ever() {
    let world = World::new(SessionLimits { certificates: 2, ..quick() }).await;
    world.add(Some(STRING), KeyAlgorithm::P256).await;
    let keys = [p256(), p256(), p256()];
    for (round, key) in keys.iter().take(2).enumerate() {
        let mut phone = world.phone();
        phone.hello(Some(STRING)).await.unwrap();
        phone.certify(key).await.unwrap();
        drop(phone);
        soon(|| world.events("EnrolmentRefused") == round + 1).await;
    }
    declined(world.phone().enrol(Some(STRING), &keys[2]).await, "2 certificates");
    world.phone().enrol(Some(STRING), &keys[0]).await.unwrap();
    assert_eq!(world.issuer.signatures.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_second_session_of_a_device_is_refused_while_the_first_lives() {
    let world = World::new(quick()).await;
    world.add(Some(STRING), KeyAlgorithm::P256).await;
    let mut first = world.phone();
    first.hello(Some(STRING)).await.unwrap();
    declined(world.phone().enrol(Some(STRING), &p256()).await, "another session");
    // The first is silent; its time ends, and the device is free.
    declined(first.answer().await, "silent in step key generation");
    world.phone().enrol(Some(STRING), &p256()).await.unwrap();
}

#[tokio::test]
async fn a_message_may_come_in_ten_writes_and_one_that_never_ends_is_cut_off() {
    let world = World::new(quick()).await;
    world.add(Some(STRING), KeyAlgorithm::P256).await;
    let mut slow = world.phone();
    slow.receive().await.unwrap();
    let bytes = slow.encode(Command::AuthResponse, common::Phone::hello_elements(Some(STRING)));
    for part in bytes.chunks(bytes.len().div_ceil(10)) {
        slow.stream.write_all(part).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(slow.answer().await.unwrap().command, Command::KeyGenRequest);
    drop(slow);

    let mut endless = world.phone();
    endless.receive().await.unwrap();
    // A byte now and then does not buy time: the step's limit is for the whole message.
    let drip = async {
        for byte in bytes.iter().take(20) {
            if endless.stream.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        endless.answer().await
    };
    declined(drip.await, "silent in step authentication");
    assert_eq!(world.events("ConnectionTimedOut"), 1);
}

#[tokio::test]
async fn what_is_no_message_is_refused_and_audited() {
    let limits = SessionLimits { message_bytes: 512, ..quick() };
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0x55, 2, 0, 0, 0, 1, 0xff, 0xff],
        &[0x55, 0, 0, 0, 0, 1, 0, 0],
        &[0x55, 2, 0, 0, 0, 1, 0, 4, 13, 0, 1, b'A'],
        &[0x55, 2, 0, 0, 0, 1, 0, 4, 13, 0xff, 0xff, 0],
    ] {
        let world = World::new(limits).await;
        let mut phone = world.phone();
        phone.receive().await.unwrap();
        phone.stream.write_all(garbage).await.unwrap();
        assert!(matches!(phone.answer().await, Err(Ended(7, Some(_)))));
        assert_eq!(world.events("ProtocolRefused"), 1);
    }
}

#[tokio::test]
async fn a_pulled_token_refuses_and_loses_nothing() {
    let world = World::new(quick()).await;
    world.add(Some(STRING), KeyAlgorithm::P256).await;
    let key = p256();
    world.issuer.is_gone.store(true, Ordering::Relaxed);
    declined(world.phone().enrol(Some(STRING), &key).await, "try again later");
    world.issuer.is_gone.store(false, Ordering::Relaxed);
    world.phone().enrol(Some(STRING), &key).await.unwrap();
}

#[tokio::test]
async fn an_operation_that_an_operator_replaced_meanwhile_issues_nothing() {
    let world = World::new(quick()).await;
    world.add(Some(STRING), KeyAlgorithm::P256).await;
    let mut phone = world.phone();
    phone.hello(Some(STRING)).await.unwrap();
    world.add(Some("777777"), KeyAlgorithm::P384).await;
    assert_eq!(phone.certify(&p256()).await, Err(Ended(0, None)));
    assert_eq!(world.records.latest(&name()).await.unwrap().unwrap().state, State::Pending);
    declined(world.phone().enrol(Some(STRING), &p256()).await, "4 more");
}

#[tokio::test]
async fn a_delivery_after_a_replacement_does_not_consume_the_new_operation() {
    let world = World::new(quick()).await;
    world.add(Some(STRING), KeyAlgorithm::P256).await;
    let mut phone = world.phone();
    phone.hello(Some(STRING)).await.unwrap();
    phone.certify(&p256()).await.unwrap();
    world.add(Some("777777"), KeyAlgorithm::P256).await;
    assert_eq!(phone.confirm().await, Ended(1, None));
    assert_eq!(world.records.latest(&name()).await.unwrap().unwrap().state, State::Pending);
    world.phone().enrol(Some("777777"), &p256()).await.unwrap();
}

#[tokio::test]
async fn a_phone_that_could_not_store_keeps_its_string() {
    let world = World::new(quick()).await;
    world.add(Some(STRING), KeyAlgorithm::P256).await;
    let key = p256();
    let mut phone = world.phone();
    phone.hello(Some(STRING)).await.unwrap();
    let der = phone.certify(&key).await.unwrap();
    phone.send(Command::StoreCertResponse, vec![Element::Reason(casemate_capf::protocol::Reason(7))]).await;
    declined(phone.answer().await, "reason 7");
    assert_eq!(world.phone().enrol(Some(STRING), &key).await.unwrap(), der);
}

#[tokio::test]
async fn a_wrong_kind_of_key_gets_no_signature() {
    let world = World::new(quick()).await;
    world.add(Some(STRING), KeyAlgorithm::Rsa2048).await;
    declined(world.phone().enrol(Some(STRING), &p256()).await, "a key of P-256, RSA-2048 was asked for");
    assert_eq!(world.issuer.signatures.load(Ordering::Relaxed), 0);
    let rsa = {
        use rcgen::PublicKeyData;
        rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap().subject_public_key_info()
    };
    world.phone().enrol(Some(STRING), &rsa).await.unwrap();
}

#[tokio::test]
async fn a_flood_of_strangers_leaves_a_bounded_trail_and_hides_no_known_device() {
    let world = World::new(quick()).await;
    for _ in 0..2 * AUDITED_REFUSALS {
        let mut stranger = world.phone();
        stranger.receive().await.unwrap();
        stranger.stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert!(stranger.answer().await.is_err());
        assert_eq!(world.phone().enrol(Some(STRING), &p256()).await, Err(Ended(9, None)));
    }
    assert_eq!(world.events("ProtocolRefused") + world.events("EnrolmentRefused"), AUDITED_REFUSALS);
    let before = world.events("EnrolmentRefused");
    // What concerns a device that an operator added is recorded, each of it.
    world.add(Some(STRING), KeyAlgorithm::P256).await;
    declined(world.phone().enrol(None, &p256()).await, "no authentication string");
    for _ in 0..4 {
        declined(world.phone().enrol(Some("54321"), &p256()).await, "wrong");
    }
    assert_eq!(world.events("EnrolmentRefused") - before, 5);
    world.phone().enrol(Some(STRING), &p256()).await.unwrap();
    assert_eq!((world.events("CertificateIssued"), world.events("CertificateDelivered")), (1, 1));
    // Whoever knows the name of a device fills no trail with it either.
    for _ in 0..2 * AUDITED_REFUSALS {
        assert_eq!(world.phone().enrol(Some(STRING), &p256()).await, Err(Ended(0, None)));
    }
    assert!(world.events("EnrolmentNotNeeded") < AUDITED_REFUSALS);
}

#[tokio::test]
async fn a_wrong_string_for_an_operation_that_was_replaced_meanwhile_locks_nothing() {
    let world = World::new(quick()).await;
    let first = world.add(Some(STRING), KeyAlgorithm::P256).await;
    let mut other = open(&world).await;
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let wrong = tokio::spawn(world.phone().enrol(Some("777777"), &[]));
    tokio::time::sleep(Duration::from_millis(200)).await;
    // The string was found wrong and waits to be counted; now an operator sets another operation.
    sqlx::query("UPDATE operations SET state = 'replaced', salt = NULL, tag = NULL WHERE id = ?")
        .bind(first)
        .execute(&mut other)
        .await
        .unwrap();
    sqlx::raw_sql("COMMIT").execute(&mut other).await.unwrap();
    declined(wrong.await.unwrap(), "try again");
    world.add(Some("777777"), KeyAlgorithm::P256).await;
    world.phone().enrol(Some("777777"), &p256()).await.unwrap();
    assert_eq!(world.events("DeviceLocked"), 0);
}
