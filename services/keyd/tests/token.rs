//! A token that lies, goes away, refuses the PIN: what the broker does, and what it tells.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy.toml allows them in test functions; these are their own helpers

mod rig;

use std::{
    fs,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use casemate_hsm_api::{HsmError, KeyId};
use casemate_hsm_fake::{FakeSettings, FakeStore, FakeToken, PinFault};
use casemate_keyring::{BrokerState, Purpose, Refusal};
use rig::{CERTMGR, Caller, Node, ROOT, identity_profile};

use casemate_hsm_api::KeyRole::{CallManagerEcdsa, TomcatEcdsa, Tvs};

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
    untested.attempt().unwrap();
    untested.handshake().unwrap();
}

#[test]
fn a_token_that_lies_at_its_test_is_never_used_again() {
    let node = Node::new();
    drop(ready(&node));
    node.token.set_lying(true);
    let store = node.store();
    let broker = node.untested(store, node.record(), "tftp = 1004\n");
    assert!(matches!(broker.bring_back(), Err(HsmError::WrongAnswer { .. })), "it does not listen");
    node.token.set_lying(false);
    let calls = node.token.calls();
    assert!(
        matches!(broker.attempt(), Err(HsmError::WrongAnswer { .. })),
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
    assert!(matches!(broker.bring_back(), Err(HsmError::WrongAnswer { .. })));
    assert!(matches!(broker.handshake(), Err(Refusal::OutOfService(_))));
}

#[test]
fn a_wrong_signature_does_not_leave_and_ends_the_use_of_the_token() {
    let node = Node::new();
    let broker = ready(&node);
    let key = broker.generate(CERTMGR, Tvs).unwrap().0;
    node.token.set_lying(true);
    let certify = || {
        let signer = broker.signer(CERTMGR, key.clone(), Purpose::SelfSigned);
        let made = casemate_pki::self_signed(&identity_profile(Tvs, "casemate"), &signer);
        assert!(made.is_err());
        signer.refusal().unwrap()
    };
    let Refusal::OutOfService(reason) = certify() else { panic!("let out") };
    assert!(reason.contains("wrong answer") && reason.contains("TVS"), "{reason}");
    assert_eq!((node.audited("TokenWrongAnswer"), node.audited("KeyUseFailed")), (1, 1));
    assert!(node.recorded().lines().last().unwrap().contains("KeyUseFailed"), "{}", node.recorded());
    node.token.set_lying(false);
    let signatures = node.token.signatures();
    assert!(matches!(broker.handshake(), Err(Refusal::OutOfService(_))));
    assert!(matches!(broker.bring_back(), Err(HsmError::WrongAnswer { .. })), "for ever");
    assert!(matches!(certify(), Refusal::OutOfService(_)));
    assert!(matches!(state(&broker), BrokerState::OutOfService(_)));
    assert_eq!(node.token.signatures(), signatures);
    assert_eq!(node.audited("TokenWrongAnswer"), 1);
}

#[test]
fn a_wrong_handshake_does_not_leave_either() {
    let node = Node::new();
    let broker = ready(&node);
    node.token.set_lying(true);
    assert!(matches!(broker.handshake(), Err(Refusal::OutOfService(_))));
    assert_eq!((node.audited("TokenWrongAnswer"), node.audited("KeyUseFailed")), (1, 1));
}

/// An object that nobody understands is the matter of its role: the token serves, and the others go on.
#[test]
fn one_odd_object_takes_one_role_out_of_service() {
    let node = Node::new();
    let broker = ready(&node);
    let (key, _) = broker.generate(CERTMGR, TomcatEcdsa).unwrap();
    node.token.spoil(KeyId::from_hex(&key.key_id).unwrap());
    for broker in [broker, node.broker()] {
        let Err(Refusal::KeyMissing(reason)) = broker.generate(CERTMGR, TomcatEcdsa) else { panic!("found") };
        assert!(reason.contains("CKA_KEY_TYPE"), "{reason}");
        broker.handshake().unwrap();
        assert_eq!(state(&broker), BrokerState::Serving);
        assert_eq!((node.audited("KeyMissing"), node.audited("TokenAbsent")), (2, 0), "once a process");
    }
}

/// What the security officer does leaves the PIN file as it is.
#[test]
fn an_unlocked_pin_is_noticed_without_a_new_pin_file() {
    for fault in [PinFault::Locked, PinFault::LastTry] {
        let node = Node::new();
        let broker = ready(&node);
        node.token.set_absent(true);
        assert!(broker.handshake().is_err());
        node.token.set_pin_fault(Some(fault));
        node.token.set_absent(false);
        let keeper = broker.clone();
        let kept = thread::spawn(move || keeper.bring_back());
        thread::sleep(Duration::from_millis(100));
        assert!(!kept.is_finished());
        assert!(matches!(broker.handshake(), Err(Refusal::OutOfService(_))));
        assert_eq!((node.token.refused_pins(), node.audited("TokenRefused")), (0, 1), "told once, no PIN tried");
        node.token.set_pin_fault(None);
        let deadline = Instant::now() + Duration::from_secs(10);
        while !kept.is_finished() {
            assert!(Instant::now() < deadline, "{fault:?} is over, and nobody looked");
            thread::sleep(Duration::from_millis(10));
        }
        kept.join().unwrap().unwrap();
        broker.handshake().unwrap();
    }
}

#[test]
fn an_absent_token_is_waited_for_tested_again_and_serves() {
    let node = Node::new();
    let broker = ready(&node);
    let before = node.audited("TokenReady");
    let keeper = broker.clone();
    let kept = thread::spawn(move || {
        keeper.until_lost();
        keeper.bring_back()
    });
    node.token.set_absent(true);
    for _ in 0..3 {
        assert!(matches!(broker.handshake(), Err(Refusal::Unavailable(_))));
    }
    thread::sleep(Duration::from_millis(60));
    assert!(matches!(state(&broker), BrokerState::Waiting(_)));
    let status = broker.status(ROOT).unwrap();
    assert_eq!((&status.tokens[0].info, status.keys[0].1), (&None, None), "unknown, not missing");
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
    let lost = thread::spawn(move || keeper.until_lost());
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
    let kept = thread::spawn(move || keeper.bring_back());
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
    let quick = FakeSettings { call_timeout: Duration::from_millis(30), ..FakeSettings::default() };
    let store = FakeStore::open(&node.token, quick).unwrap();
    let broker = node.broker_on(Arc::new(store));
    node.token.set_hanging(true);
    assert!(matches!(broker.handshake(), Err(Refusal::Unavailable(_))));
    assert!(matches!(state(&broker), BrokerState::Waiting(_)));
    node.token.set_hanging(false);
    broker.bring_back().unwrap();
    broker.handshake().unwrap();
}
