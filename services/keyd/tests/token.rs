//! A token that lies, goes away, refuses the PIN: what the broker does, and what it tells.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy.toml allows them in test functions; these are their own helpers

mod rig;

use std::{fs, sync::Arc, thread, time::Duration};

use casemate_hsm_api::HsmError;
use casemate_hsm_fake::{FakeSettings, FakeStore, FakeToken, PinFault};
use casemate_keyring::{BrokerState, Refusal};
use rig::{CERTMGR, Caller, Node, ROOT};

use casemate_hsm_api::KeyRole::CallManagerEcdsa;

fn ready(node: &Node) -> Caller {
    let broker = node.broker();
    broker.generate(CERTMGR, CallManagerEcdsa).unwrap();
    broker.handshake().unwrap();
    broker
}

fn state(broker: &Caller) -> BrokerState {
    broker.status(ROOT).unwrap().state
}

#[test]
fn nothing_is_signed_before_the_token_was_tested() {
    let node = Node::new();
    drop(ready(&node));
    let untested = node.untested(node.store(), node.record(), "tftp = 1004\n");
    assert!(matches!(untested.handshake(), Err(Refusal::Unavailable(_))));
    untested.0.attempt().unwrap();
    untested.handshake().unwrap();
}

#[test]
fn a_token_that_lies_at_its_test_is_never_used_again() {
    let node = Node::new();
    drop(ready(&node));
    node.token.set_lying(true);
    let store = node.store();
    let broker = node.untested(store, node.record(), "tftp = 1004\n");
    assert!(matches!(broker.0.bring_back(), Err(HsmError::WrongAnswer { .. })), "it does not listen");
    node.token.set_lying(false);
    let calls = node.token.calls();
    assert!(
        matches!(broker.0.attempt(), Err(HsmError::WrongAnswer { .. })),
        "it is well again, and not used all the same"
    );
    assert!(matches!(broker.handshake(), Err(Refusal::OutOfService(_))));
    assert_eq!(node.token.calls(), calls);
    assert!(matches!(state(&broker), BrokerState::OutOfService(_)));
    assert_eq!(node.audited("TokenWrongAnswer"), 1);
}

#[test]
fn a_token_that_lies_when_it_comes_back_is_never_used_again() {
    let node = Node::new();
    let broker = ready(&node);
    node.token.set_absent(true);
    assert!(matches!(broker.handshake(), Err(Refusal::Unavailable(_))));
    node.token.set_lying(true);
    node.token.set_absent(false);
    assert!(matches!(broker.0.bring_back(), Err(HsmError::WrongAnswer { .. })));
    assert!(matches!(broker.handshake(), Err(Refusal::OutOfService(_))));
}

#[test]
fn an_absent_token_is_waited_for_tested_again_and_serves() {
    let node = Node::new();
    let broker = ready(&node);
    let before = node.audited("TokenReady");
    let keeper = broker.clone();
    let kept = thread::spawn(move || {
        keeper.0.until_lost();
        keeper.0.bring_back()
    });
    node.token.set_absent(true);
    for _ in 0..3 {
        assert!(matches!(broker.handshake(), Err(Refusal::Unavailable(_))));
    }
    thread::sleep(Duration::from_millis(60));
    assert!(matches!(state(&broker), BrokerState::Waiting(_)));
    let status = broker.status(ROOT).unwrap();
    assert_eq!((status.token, status.keys[0].1), (None, None), "unknown, not missing");
    let signatures = node.token.signatures();
    node.token.set_absent(false);
    kept.join().unwrap().unwrap();
    assert_eq!(node.token.signatures(), signatures + 1, "its one key was tested");
    broker.handshake().unwrap();
    assert_eq!((node.audited("TokenAbsent"), node.audited("TokenReady")), (1, before + 1));
    assert_eq!(node.audited("KeyMissing"), 0);
}

/// Nobody's request reaches a token that lacks every key, so the broker itself must see it go.
#[test]
fn another_token_that_goes_away_is_noticed_without_a_request() {
    let mut node = Node::new();
    drop(ready(&node));
    node.token = FakeToken::new("FAKE2");
    let broker = node.broker_on(Arc::new(FakeStore::open(&node.token, FakeSettings::default()).unwrap()));
    assert!(matches!(broker.handshake(), Err(Refusal::KeyMissing(_))));
    let keeper = broker.clone();
    let lost = thread::spawn(move || keeper.0.until_lost());
    thread::sleep(Duration::from_millis(60));
    assert!(!lost.is_finished(), "it is there");
    node.token.set_absent(true);
    lost.join().unwrap();
    assert!(matches!(state(&broker), BrokerState::Waiting(_)));
}

#[test]
fn a_refused_pin_is_tried_once_and_again_only_when_its_file_changed() {
    let node = Node::new();
    let broker = ready(&node);
    node.token.set_absent(true);
    assert!(broker.handshake().is_err());
    node.token.set_pin_fault(Some(PinFault::Incorrect));
    node.token.set_absent(false);
    let keeper = broker.clone();
    let kept = thread::spawn(move || keeper.0.bring_back());
    thread::sleep(Duration::from_millis(150));
    assert!(!kept.is_finished());
    assert!(matches!(broker.handshake(), Err(Refusal::OutOfService(_))));
    assert_eq!((node.token.refused_pins(), node.audited("TokenRefused")), (1, 1));
    let calls = node.token.calls();
    thread::sleep(Duration::from_millis(50));
    assert_eq!(node.token.calls(), calls, "nothing is asked meanwhile");
    node.token.set_pin_fault(None);
    thread::sleep(Duration::from_millis(50));
    assert!(!kept.is_finished(), "the token would take it, but the file is the same");
    fs::write(node.dir.path().join("pin"), "123456").unwrap();
    kept.join().unwrap().unwrap();
    broker.handshake().unwrap();
}

#[test]
fn a_slow_token_is_unavailable_and_looked_at_again() {
    let node = Node::new();
    drop(ready(&node));
    let quick = FakeSettings {
        call_timeout: Duration::from_millis(30),
        ..FakeSettings::default()
    };
    let store = FakeStore::open(&node.token, quick).unwrap();
    let broker = node.broker_on(Arc::new(store));
    node.token.set_hanging(true);
    assert!(matches!(broker.handshake(), Err(Refusal::Unavailable(_))));
    assert!(matches!(state(&broker), BrokerState::Waiting(_)));
    node.token.set_hanging(false);
    broker.0.bring_back().unwrap();
    broker.handshake().unwrap();
}
