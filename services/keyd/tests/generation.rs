//! Keys are made once, however often provisioning is interrupted and run again.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy.toml allows them in test functions; these are their own helpers

mod rig;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use casemate_hsm_api::{Backup, HsmError, KeyAlgorithm, KeyId, KeyRole};
use casemate_hsm_fake::{FakeSettings, FakeStore, FakeToken, Half};
use casemate_keyd::{RecordFile, Sink, Spent};
use casemate_keyring::Refusal;
use rig::{CAPF, CERTMGR, Caller, Crash, Dying, Node, ROOT, died};

const ROLE: KeyRole = KeyRole::CallManagerEcdsa;

fn id(key: &casemate_keyring::KeyRecord) -> KeyId {
    KeyId::from_hex(&key.key_id).unwrap()
}

#[test]
fn every_key_is_made_once_as_the_policy_says_and_found_again_by_the_next_process() {
    let node = Node::new();
    let broker = node.broker();
    let first: Vec<_> = KeyRole::ALL.iter().map(|role| broker.generate(CERTMGR, *role).unwrap()).collect();
    assert!(first.iter().all(|(key, made)| *made && key.token == "FAKE1"));
    let recovery = &first.iter().find(|(key, _)| key.role == KeyRole::ItlRecovery).unwrap().0;
    assert_eq!((recovery.algorithm, recovery.backup), (KeyAlgorithm::Rsa2048, Backup::Wrapped));
    drop(broker);
    let again = node.broker();
    for (key, _) in &first {
        assert_eq!(again.generate(CERTMGR, key.role).unwrap(), (key.clone(), false));
        assert_eq!(again.key(CERTMGR, key.role).unwrap(), *key);
    }
    assert_eq!(node.token.objects(), 14, "a pair for each of seven roles");
    assert_eq!(node.audited("KeyGenerated"), 7);
    let status = again.status(ROOT).unwrap();
    assert_eq!(status.keys.len(), 7);
    assert!(status.keys.iter().all(|(_, there)| *there == Some(true)));
}

#[test]
fn only_certmgr_has_keys_made() {
    let node = Node::new();
    let broker = node.broker();
    for peer in [CAPF, ROOT] {
        assert!(matches!(broker.generate(peer, KeyRole::Capf), Err(Refusal::Policy(_))));
    }
    assert_eq!(node.token.objects(), 0);
    assert_eq!(node.audited("KeyUseRefused"), 2);
}

/// Dies within a generation, starts again, and has the key made.
fn killed(node: &Node, crash: Crash) -> (casemate_keyring::KeyRecord, bool) {
    let dying = node.broker_on(Arc::new(Dying::new(node.store(), crash, died)));
    assert!(dying.generate(CERTMGR, ROLE).is_err());
    assert!(matches!(dying.key(CERTMGR, ROLE), Err(Refusal::KeyMissing(_))), "a key that is not finished is no key");
    drop(dying);
    node.broker().generate(CERTMGR, ROLE).unwrap()
}

#[test]
fn killed_after_the_intent_and_before_the_token_there_is_one_key_afterwards() {
    let node = Node::new();
    assert!(killed(&node, Crash::Before).1);
    assert_eq!(node.token.objects(), 2);
    assert_eq!((node.audited("KeyGenerated"), node.audited("KeyAdopted")), (1, 0));
}

#[test]
fn killed_after_the_token_and_before_the_record_the_key_is_adopted() {
    let node = Node::new();
    let (key, made) = killed(&node, Crash::After);
    assert!(made);
    assert_eq!(node.token.objects(), 2, "no second key");
    assert_eq!((node.audited("KeyGenerated"), node.audited("KeyAdopted")), (0, 1));
    assert_eq!(node.broker().generate(CERTMGR, ROLE).unwrap(), (key, false));
}

#[test]
fn half_a_key_is_removed_and_made_whole() {
    for half in [Half::Private, Half::Public] {
        let node = Node::new();
        let broker = node.broker();
        node.token.interrupt_generation(half);
        assert!(broker.generate(CERTMGR, ROLE).is_err());
        drop(broker);
        assert_eq!(node.token.objects(), 1);
        let broker = node.broker();
        assert!(broker.generate(CERTMGR, ROLE).unwrap().1);
        assert_eq!(node.token.objects(), 2);
        assert_eq!(node.audited("KeyHalfRemoved"), 1);
        broker.handshake().unwrap();
    }
}

#[test]
fn a_generation_that_ran_out_of_time_is_not_begun_again_while_it_may_go_on() {
    let node = Node::new();
    let timeout = || HsmError::Timeout { token: "FAKE1".into(), limit: std::time::Duration::from_secs(1) };
    let slow = node.broker_on(Arc::new(Dying::new(node.store(), Crash::Before, timeout)));
    assert!(matches!(slow.generate(CERTMGR, ROLE), Err(Refusal::Unavailable(_))));
    slow.attempt().unwrap();
    let Err(Refusal::Unavailable(text)) = slow.generate(CERTMGR, ROLE) else { panic!("asked the token twice") };
    assert!(text.contains("may still be making"), "{text}");
    // Another process: whatever went on in this one is over.
    assert!(node.broker().generate(CERTMGR, ROLE).unwrap().1);
}

#[test]
fn a_recorded_key_that_is_gone_is_missing_and_never_made_again() {
    let node = Node::new();
    let broker = node.broker();
    let (key, _) = broker.generate(CERTMGR, ROLE).unwrap();
    node.token.lose(id(&key));
    for broker in [broker, node.broker()] {
        assert!(matches!(broker.generate(CERTMGR, ROLE), Err(Refusal::KeyMissing(_))));
        assert!(matches!(broker.handshake(), Err(Refusal::KeyMissing(_))));
        assert_eq!(broker.status(ROOT).unwrap().keys, [(key.clone(), Some(false))]);
    }
    assert_eq!(node.token.objects(), 0);
    assert_eq!(node.audited("KeyMissing"), 2, "once a process, however often it is asked: {}", node.journal());
}

#[test]
fn half_of_a_recorded_key_is_missing_and_never_removed() {
    let node = Node::new();
    let broker = node.broker();
    let (key, _) = broker.generate(CERTMGR, ROLE).unwrap();
    assert!(node.token.keep_half(id(&key), Half::Private));
    assert!(matches!(broker.generate(CERTMGR, ROLE), Err(Refusal::KeyMissing(_))));
    assert_eq!(node.token.objects(), 1);
}

/// The node with another token in the slot.
fn with_another_token(node: &mut Node) -> (FakeToken, Caller) {
    let first = std::mem::replace(&mut node.token, FakeToken::new("FAKE2"));
    let store = FakeStore::open(&node.token, FakeSettings::default()).unwrap();
    (first, node.broker_on(Arc::new(store)))
}

#[test]
fn on_another_token_recorded_keys_are_missing_and_nothing_is_made() {
    let mut node = Node::new();
    node.broker().generate(CERTMGR, ROLE).unwrap();
    let (first, broker) = with_another_token(&mut node);
    assert!(matches!(broker.generate(CERTMGR, ROLE), Err(Refusal::KeyMissing(_))));
    assert!(matches!(broker.handshake(), Err(Refusal::KeyMissing(_))));
    assert_eq!((node.token.objects(), node.token.signatures()), (0, 0));
    node.token = first;
    assert!(!node.broker().generate(CERTMGR, ROLE).unwrap().1);
}

#[test]
fn a_generation_is_not_finished_on_another_token() {
    let mut node = Node::new();
    let dying = node.broker_on(Arc::new(Dying::new(node.store(), Crash::After, died)));
    assert!(dying.generate(CERTMGR, ROLE).is_err());
    drop(dying);
    let (_, broker) = with_another_token(&mut node);
    let Err(Refusal::KeyMissing(text)) = broker.generate(CERTMGR, ROLE) else { panic!("made on another token") };
    assert!(text.contains("FAKE1") && text.contains("FAKE2"), "{text}");
    assert_eq!(node.token.objects(), 0);
}

#[test]
fn a_full_token_makes_no_key_and_no_harm() {
    let node = Node::new();
    let broker = node.broker();
    node.token.set_capacity(Some(0));
    assert!(matches!(broker.generate(CERTMGR, ROLE), Err(Refusal::Failed(_))));
    node.token.set_capacity(None);
    assert!(broker.generate(CERTMGR, ROLE).unwrap().1);
    assert_eq!(node.token.objects(), 2);
}

#[test]
fn a_key_that_another_token_may_have_made_is_not_recorded() {
    let node = Node::new();
    let swapped = node.broker_on(Arc::new(Dying::new(node.store(), Crash::Swapped, died)));
    let Err(Refusal::KeyMissing(text)) = swapped.generate(CERTMGR, ROLE) else { panic!("recorded") };
    assert!(text.contains("FAKE1") && text.contains("FAKE2"), "{text}");
    assert!(matches!(swapped.key(CERTMGR, ROLE), Err(Refusal::KeyMissing(_))));
    assert_eq!(node.audited("KeyGenerated"), 0);
    drop(swapped);
    assert!(node.broker().generate(CERTMGR, ROLE).unwrap().1, "the first token is back");
    assert_eq!((node.audited("KeyAdopted"), node.token.objects()), (1, 2));
}

/// A record on a disk that is full as long as the test says.
struct Full(RecordFile, Arc<AtomicBool>);

impl Sink for Full {
    fn write_durably(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.1.load(Ordering::SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { self.0.write_durably(lines) }
    }

    fn spent(&self, now: SystemTime) -> io::Result<Spent> {
        self.0.spent(now)
    }

    fn last(&self) -> io::Result<u64> {
        self.0.last()
    }
}

#[test]
fn half_a_key_is_not_removed_before_that_is_on_record() {
    let node = Node::new();
    let full = Arc::new(AtomicBool::new(true));
    let broker = || {
        let broker = node.untested(node.store(), Full(node.record(), Arc::clone(&full)), "certmgr = 1001\n");
        broker.attempt().unwrap();
        broker
    };
    node.token.interrupt_generation(Half::Private);
    assert!(broker().generate(CERTMGR, ROLE).is_err());
    let broker = broker();
    let Err(Refusal::Failed(reason)) = broker.generate(CERTMGR, ROLE) else { panic!("removed and not told") };
    assert!(reason.contains("disk full"), "{reason}");
    assert_eq!((node.token.objects(), node.audited("KeyHalfRemoved")), (1, 0));
    full.store(false, Ordering::SeqCst);
    assert!(broker.generate(CERTMGR, ROLE).unwrap().1);
    assert_eq!((node.token.objects(), node.audited("KeyHalfRemoved")), (2, 1));
    assert!(node.recorded().contains("KeyHalfRemoved"), "{}", node.recorded());
}

/// A process that is killed between the record of signatures and the record of keys has told of the key already.
#[test]
fn a_key_counts_only_once_it_was_told_of() {
    let node = Node::new();
    let full = Arc::new(AtomicBool::new(true));
    let broker = node.untested(node.store(), Full(node.record(), Arc::clone(&full)), "certmgr = 1001\n");
    broker.attempt().unwrap();
    for _ in 0..2 {
        let Err(Refusal::Failed(reason)) = broker.generate(CERTMGR, ROLE) else { panic!("made and not told") };
        assert!(reason.contains("disk full"), "{reason}");
        assert!(matches!(broker.key(CERTMGR, ROLE), Err(Refusal::KeyMissing(_))));
        assert_eq!(node.token.objects(), 2, "made once");
    }
    full.store(false, Ordering::SeqCst);
    assert!(broker.generate(CERTMGR, ROLE).unwrap().1);
    assert_eq!((node.audited("KeyGenerated"), node.audited("KeyAdopted")), (0, 1));
    assert!(node.recorded().contains("KeyAdopted"), "{}", node.recorded());
}
