//! Roles spread over tokens: what happens to one token is nothing to the others, no key moves, and a slow one holds no key that is
//! waited for.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy.toml allows them in test functions; these are their own helpers

mod rig;

use std::{sync::Arc, thread, time::Duration};

use casemate_hsm_api::{Backup, HsmError, KeyAlgorithm, KeyId, KeyRole, KeySpec, KeyStore};
use casemate_hsm_fake::{FakeSettings, FakeStore, FakeToken, Latency};
use casemate_keyring::{BrokerState, KeyRecord, Purpose, Refusal, UNRECORDED_LIMIT, UnrecordedKey};
use rig::{CERTMGR, Caller, LOADS, Node, PLACE, ROOT, USERS, identity_profile};

use casemate_hsm_api::KeyRole::{CallManagerEcdsa, ItlRecovery, Tomcat, TomcatEcdsa};

const SECOND: &str = "pkcs11:token=second";

/// The roles of the second token; all others are on the first one.
const MOVED: [KeyRole; 2] = [ItlRecovery, TomcatEcdsa];

fn open(token: &FakeToken) -> Arc<dyn KeyStore> {
    Arc::new(FakeStore::open(token, FakeSettings::default()).unwrap())
}

/// A broker on two tokens, both looked for once.
fn on_two(node: &Node, second: &FakeToken) -> Caller {
    let rest: Vec<_> = KeyRole::ALL.into_iter().filter(|role| !MOVED.contains(role)).collect();
    let tokens = vec![node.token_parts(PLACE, &rest, node.store()), node.token_parts(SECOND, &MOVED, open(second))];
    let caller = node.with_tokens(tokens, LOADS, node.record(), USERS);
    for keeper in caller.0.keepers() {
        keeper.attempt().unwrap();
    }
    caller
}

/// Whether the key signs a request for a certificate of itself.
fn signs(broker: &Caller, key: &KeyRecord) -> Result<(), Refusal> {
    let signer = broker.signer(CERTMGR, key.clone(), Purpose::SelfSigned);
    match casemate_pki::self_signed(&identity_profile(key.role, "casemate"), &signer) {
        Ok(_) => Ok(()),
        Err(_) => Err(signer.refusal().unwrap()),
    }
}

fn keys(broker: &Caller) -> (KeyRecord, KeyRecord) {
    let made = |role| broker.generate(CERTMGR, role).unwrap().0;
    (made(CallManagerEcdsa), made(TomcatEcdsa))
}

#[test]
fn each_role_is_made_in_its_token_and_all_are_told() {
    let (node, second) = (Node::new(), FakeToken::new("FAKE2"));
    let broker = on_two(&node, &second);
    for role in KeyRole::ALL {
        let key = broker.generate(CERTMGR, role).unwrap().0;
        assert_eq!(key.token, if MOVED.contains(&role) { "FAKE2" } else { "FAKE1" }, "{role}");
    }
    assert_eq!((node.token.objects(), second.objects()), (10, 4));
    let status = broker.status(ROOT).unwrap();
    assert_eq!(status.state, BrokerState::Serving);
    assert!(status.keys.len() == 7 && status.keys.iter().all(|(_, there)| *there == Some(true)));
    assert_eq!((status.tokens[0].pairs, status.tokens[1].pairs), (Some((5, 5)), Some((2, 2))));
    assert!(status.tokens.iter().all(|token| token.unrecorded.is_empty()));
    let told: Vec<_> = status.tokens.iter().map(|token| (&*token.name, token.roles.len(), token.rates.len())).collect();
    assert_eq!(told, [(PLACE, 5, 2), (SECOND, 2, 2)], "RSA-2048 and P-384 were measured on both");
    let (before, again) = (second.signatures(), on_two(&node, &second));
    assert_eq!(second.signatures() - before, 2, "each token is tested with its own keys");
    assert_eq!(again.status(ROOT).unwrap().tokens[1].info.as_ref().unwrap().serial, "FAKE2");
}

#[test]
fn keys_of_others_on_a_token_are_told_one_by_one_up_to_a_limit() {
    let node = Node::new();
    let broker = node.broker();
    broker.generate(CERTMGR, CallManagerEcdsa).unwrap();
    let other = FakeStore::open(&node.token, FakeSettings::default()).unwrap();
    let spec = KeySpec { algorithm: KeyAlgorithm::P256, backup: Backup::None };
    other.generate(KeyId([0xab; 16]), &"w".repeat(100), spec).unwrap();
    let told = |broker: &Caller| {
        let token = broker.status(ROOT).unwrap().tokens.remove(0);
        (token.pairs, token.unrecorded)
    };
    let web = UnrecordedKey { label: "w".repeat(64), key_id: "ab".repeat(16), algorithm: KeyAlgorithm::P256 };
    assert_eq!(told(&broker), (Some((2, 1)), vec![web]));
    for number in 0..UNRECORDED_LIMIT {
        other.generate(KeyId([u8::try_from(number).unwrap(); 16]), "w", spec).unwrap();
    }
    let (pairs, unrecorded) = told(&broker);
    assert_eq!((pairs, unrecorded.len()), (Some((UNRECORDED_LIMIT + 2, 1)), UNRECORDED_LIMIT));
}

#[test]
fn a_pulled_token_stops_its_own_roles_and_serves_again_when_it_is_back() {
    let (node, second) = (Node::new(), FakeToken::new("FAKE2"));
    let broker = on_two(&node, &second);
    let (_, own) = keys(&broker);
    second.set_absent(true);
    let kept = thread::spawn({
        let broker = broker.clone();
        move || {
            let keeper = broker.0.keepers().remove(1);
            keeper.until_lost();
            keeper.bring_back()
        }
    });
    for _ in 0..3 {
        assert!(matches!(signs(&broker, &own), Err(Refusal::Unavailable(_))));
        broker.handshake().unwrap();
    }
    assert!(matches!(broker.generate(CERTMGR, ItlRecovery), Err(Refusal::Unavailable(_))), "nor anywhere else");
    let status = broker.status(ROOT).unwrap();
    let BrokerState::Waiting(reason) = &status.state else { panic!("{:?}", status.state) };
    assert!(reason.starts_with(SECOND), "{reason}");
    assert_eq!((&status.tokens[0].state, &status.tokens[1].info), (&BrokerState::Serving, &None));
    let there = |role| status.keys.iter().find(|(key, _)| key.role == role).unwrap().1;
    assert_eq!((there(CallManagerEcdsa), there(TomcatEcdsa)), (Some(true), None));
    second.set_absent(false);
    kept.join().unwrap().unwrap();
    signs(&broker, &own).unwrap();
    assert_eq!(node.audited("TokenAbsent"), 1);
}

#[test]
fn a_wrong_answer_of_one_token_ends_that_one_alone() {
    let (node, second) = (Node::new(), FakeToken::new("FAKE2"));
    let broker = on_two(&node, &second);
    let (_, own) = keys(&broker);
    second.set_lying(true);
    assert!(matches!(signs(&broker, &own), Err(Refusal::OutOfService(_))));
    second.set_lying(false);
    assert!(matches!(signs(&broker, &own), Err(Refusal::OutOfService(_))), "for ever");
    assert!(matches!(broker.0.keepers()[1].bring_back(), Err(HsmError::WrongAnswer { .. })));
    broker.handshake().unwrap();
    broker.generate(CERTMGR, Tomcat).unwrap();
    let status = broker.status(ROOT).unwrap();
    assert!(matches!(&status.state, BrokerState::OutOfService(reason) if reason.starts_with(SECOND)));
    assert_eq!(status.tokens[0].state, BrokerState::Serving);
    assert_eq!(node.audited("TokenWrongAnswer"), 1);
}

#[test]
fn a_key_does_not_follow_its_role_to_another_token() {
    let (node, second) = (Node::new(), FakeToken::new("FAKE2"));
    let key = node.broker().generate(CERTMGR, TomcatEcdsa).unwrap().0;
    let broker = on_two(&node, &second);
    let refused = |refusal| {
        let Refusal::KeyMissing(text) = refusal else { panic!("{refusal:?}") };
        assert!(text.contains("planned re-key") && text.contains("FAKE1") && text.contains(SECOND), "{text}");
    };
    refused(broker.generate(CERTMGR, TomcatEcdsa).unwrap_err());
    assert_eq!((node.token.objects(), second.objects()), (2, 0), "no copy and no new key");
    signs(&broker, &key).unwrap();
    assert_eq!((node.audited("RoleMoveRefused"), node.audited("KeyMissing")), (1, 0), "{}", node.journal());
    assert_eq!(broker.status(ROOT).unwrap().keys, [(key.clone(), Some(true))], "where it was made it signs on");
    broker.generate(CERTMGR, CallManagerEcdsa).unwrap();
    drop(broker);
    signs(&node.broker(), &key).unwrap();
    // Nobody names the token any more that made it: the role waits.
    let renamed =
        node.with_tokens(vec![node.token_parts(SECOND, &KeyRole::ALL, open(&second))], LOADS, node.record(), USERS);
    renamed.attempt().unwrap();
    refused(signs(&renamed, &key).unwrap_err());
    assert_eq!(renamed.status(ROOT).unwrap().keys[1], (key, Some(false)));
}

/// Nothing is made twice, and the role can be put elsewhere before anything was made.
#[test]
fn a_generation_that_began_on_another_token_is_no_move_either() {
    let (node, second) = (Node::new(), FakeToken::new("FAKE2"));
    node.token.set_capacity(Some(0));
    assert!(node.broker().generate(CERTMGR, TomcatEcdsa).is_err());
    let Err(Refusal::KeyMissing(text)) = on_two(&node, &second).generate(CERTMGR, TomcatEcdsa) else {
        panic!("made elsewhere")
    };
    assert!(text.contains("planned re-key"), "{text}");
    assert_eq!((node.audited("RoleMoveRefused"), second.objects()), (1, 0));
}

fn with_load(node: &Node, load: u32) -> Caller {
    let tokens = vec![node.token_parts(PLACE, &KeyRole::ALL, node.store())];
    let loads = LOADS.replace("tomcat-ECDSA = 1", &format!("tomcat-ECDSA = {load}"));
    let caller = node.with_tokens(tokens, &loads, node.record(), USERS);
    caller.attempt().unwrap();
    caller
}

#[test]
fn a_token_that_is_too_slow_for_a_role_gets_no_key_of_it_and_both_rates_are_told() {
    let node = Node::new();
    node.token.set_latency(Latency { sign: Duration::from_millis(200), ..Latency::default() });
    let broker = with_load(&node, 6);
    let Err(Refusal::Policy(text)) = broker.generate(CERTMGR, TomcatEcdsa) else { panic!("made") };
    assert!(text.contains("it signs 5.0 signatures/s") && text.contains("needs 6 signatures/s"), "{text}");
    assert!(text.contains("FAKE1") && text.contains("tomcat-ECDSA") && text.contains("P-384"), "{text}");
    assert_eq!((node.token.objects(), node.audited("TokenTooSlow")), (0, 1), "{}", node.journal());
    broker.generate(CERTMGR, CallManagerEcdsa).unwrap();
}

/// What was too slow in a busy moment is measured again when somebody asks again, and what was fast enough is not.
#[test]
fn a_token_that_was_busy_is_measured_again_when_the_key_is_asked_for_again() {
    let node = Node::new();
    let slow = Latency { sign: Duration::from_millis(200), ..Latency::default() };
    let slower = Latency { sign: Duration::from_millis(400), ..Latency::default() };
    let broker = with_load(&node, 6);
    let rate = |broker: &Caller| broker.status(ROOT).unwrap().tokens[0].rates[0].1.per_second();
    for (latency, told) in [(slow, "5.0"), (slower, "2.5")] {
        node.token.set_latency(latency);
        let Err(Refusal::Policy(text)) = broker.generate(CERTMGR, TomcatEcdsa) else { panic!("made") };
        assert!(text.contains(&format!("it signs {told} signatures/s")) && text.contains("needs 6"), "{text}");
        assert!(text.contains("provision again"), "{text}");
    }
    assert_eq!((node.token.objects(), node.audited("TokenTooSlow"), rate(&broker)), (0, 2, 2));
    node.token.set_latency(Latency::default());
    broker.generate(CERTMGR, TomcatEcdsa).unwrap();
    let fast = rate(&broker);
    assert!(fast >= 6, "{fast}");
    // It has that on record in this process: nobody waits for a measurement that is not needed.
    node.token.set_latency(slow);
    broker.generate(CERTMGR, CallManagerEcdsa).unwrap();
    assert_eq!(rate(&broker), fast);
}

#[test]
fn a_token_that_could_not_be_measured_is_measured_again_too() {
    let node = Node::new();
    let broker = with_load(&node, 1);
    node.token.set_unmeasurable(true);
    assert!(broker.generate(CERTMGR, TomcatEcdsa).is_err());
    node.token.set_unmeasurable(false);
    broker.generate(CERTMGR, TomcatEcdsa).unwrap();
}

#[test]
fn a_token_that_cannot_be_measured_holds_only_keys_that_nobody_waits_for() {
    let node = Node::new();
    node.token.set_unmeasurable(true);
    let broker = with_load(&node, 1);
    let Err(Refusal::Policy(text)) = broker.generate(CERTMGR, TomcatEcdsa) else { panic!("made") };
    assert!(text.contains("cannot be measured") && text.contains("TemplateInconsistent"), "{text}");
    assert_eq!(broker.status(ROOT).unwrap().tokens[0].rates, []);
    drop(broker);
    with_load(&node, 0).generate(CERTMGR, TomcatEcdsa).unwrap();
    assert_eq!(node.audited("TokenTooSlow"), 1);
}

#[test]
fn the_rate_of_an_absent_token_is_none_and_is_measured_when_it_is_back() {
    let node = Node::new();
    let broker = with_load(&node, 1);
    node.token.absent_after(0);
    assert!(matches!(broker.generate(CERTMGR, TomcatEcdsa), Err(Refusal::Unavailable(_))));
    node.token.set_absent(false);
    broker.bring_back().unwrap();
    broker.generate(CERTMGR, TomcatEcdsa).unwrap();
    assert_eq!(broker.status(ROOT).unwrap().tokens[0].rates.len(), 1);
}
