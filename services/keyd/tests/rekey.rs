//! Re-keying a role: its next key is made beside the one that serves, in whatever token its line names, and follows it. Whenever
//! the broker dies, the one or the other serves, and asking again goes on.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy.toml allows them in test functions; these are their own helpers

mod rig;

use std::sync::Arc;

use casemate_hsm_api::{KeyRole, KeyStore, SignatureScheme};
use casemate_hsm_fake::{FakeSettings, FakeStore, FakeToken};
use casemate_keyring::{KeyRecord, Purpose, Refusal, Request, Response};
use rig::{
    CAPF, CERTMGR, CTLPROVIDER, Caller, Crash, Dying, LOADS, Node, PLACE, ROOT, TFTP, USERS, died, identity_profile,
    tls13,
};

use casemate_hsm_api::KeyRole::{CallManagerEcdsa, TomcatEcdsa};

const SECOND: &str = "pkcs11:token=second";
const ROLE: KeyRole = CallManagerEcdsa;

fn open(token: &FakeToken) -> Arc<dyn KeyStore> {
    Arc::new(FakeStore::open(token, FakeSettings::default()).unwrap())
}

/// A broker for which the role is on the second token and all others are on the first one; whoever is there was tested.
fn moved(node: &Node, second: Arc<dyn KeyStore>) -> Caller {
    let rest: Vec<_> = KeyRole::ALL.into_iter().filter(|role| *role != ROLE).collect();
    let tokens = vec![node.token_parts(PLACE, &rest, node.store()), node.token_parts(SECOND, &[ROLE], second)];
    let caller = node.with_tokens(tokens, LOADS, node.record(), USERS);
    for keeper in caller.0.keepers() {
        let _ = keeper.attempt();
    }
    caller
}

fn handshake(broker: &Caller, key: Option<&KeyRecord>) -> Result<Vec<u8>, Refusal> {
    let name = (ROLE, key.map(|key| key.fingerprint.clone()));
    broker.sign_named(TFTP, name, SignatureScheme::EcdsaP384Sha384, Purpose::TlsHandshake, &tls13(48))
}

/// Whether it was this key that signed.
fn is_by(key: &KeyRecord, signature: &[u8]) -> bool {
    let scheme = SignatureScheme::EcdsaP384Sha384;
    let public = aws_lc_rs::signature::ParsedPublicKey::new(casemate_hsm_api::verification(scheme), &key.spki_der);
    public.unwrap().verify_sig(&tls13(48), signature).is_ok()
}

fn is_missing(refused: &Result<Vec<u8>, Refusal>) -> bool {
    matches!(refused, Err(Refusal::KeyMissing(text)) if text.contains("retired"))
}

#[test]
fn both_keys_sign_when_named_until_the_old_one_is_retired_and_no_key_is_deleted() {
    let (node, second) = (Node::new(), FakeToken::new("FAKE2"));
    let old = node.broker().generate(CERTMGR, ROLE).unwrap().0;
    let broker = moved(&node, open(&second));
    let (next, made) = broker.rekey(CERTMGR, ROLE).unwrap();
    assert!(made && next.token == "FAKE2" && next.spki_der != old.spki_der);
    assert_eq!(broker.rekey(CERTMGR, ROLE).unwrap(), (next.clone(), false), "asked again it makes nothing");
    for (name, by) in [(None, &old), (Some(&old), &old), (Some(&next), &next)] {
        assert!(is_by(by, &handshake(&broker, name).unwrap()));
    }
    let status = broker.status(ROOT).unwrap();
    assert_eq!((status.keys, status.next), (vec![(old.clone(), Some(true))], vec![(next.clone(), Some(true))]));
    assert_eq!(status.tokens.iter().map(|token| token.pairs).collect::<Vec<_>>(), [Some((1, 1)), Some((1, 1))]);

    assert_eq!(broker.retire(CERTMGR, &old).unwrap(), old);
    assert_eq!(broker.retire(CERTMGR, &old).unwrap(), old, "asked again it changes nothing");
    assert!(is_missing(&handshake(&broker, Some(&old))));
    assert!(is_by(&next, &handshake(&broker, None).unwrap()));
    // As after a restart.
    let broker = moved(&node, open(&second));
    assert!(is_missing(&handshake(&broker, Some(&old))) && is_by(&next, &handshake(&broker, Some(&next)).unwrap()));
    let status = broker.status(ROOT).unwrap();
    assert_eq!((status.keys, status.next, status.retired), (vec![(next, Some(true))], vec![], vec![old]));
    assert_eq!(status.tokens[0].pairs, Some((1, 1)), "the retired key is on its token and on record");
    assert_eq!((node.token.objects(), second.objects()), (2, 2));
    let audited = ["RekeyBegun", "KeyGenerated", "KeyRetired", "KeyMissing"].map(|event| node.audited(event));
    assert_eq!(audited, [1, 2, 1, 0], "{}", node.journal());
    for event in ["RekeyBegun", "KeyRetired"] {
        assert!(node.recorded().contains(event), "{event} is on disk before it is so");
    }
}

#[test]
fn whenever_the_broker_dies_one_key_serves_and_asking_again_goes_on() {
    for crash in [Crash::Before, Crash::After] {
        let (node, second) = (Node::new(), FakeToken::new("FAKE2"));
        let old = node.broker().generate(CERTMGR, ROLE).unwrap().0;
        let dying = moved(&node, Arc::new(Dying::new(open(&second), crash, died)));
        assert!(dying.rekey(CERTMGR, ROLE).is_err(), "{crash:?}");
        assert!(is_by(&old, &handshake(&dying, None).unwrap()), "{crash:?}");
        assert!(dying.retire(CERTMGR, &old).is_err(), "{crash:?}: nothing follows it yet");
        drop(dying);
        let broker = moved(&node, open(&second));
        assert!(is_by(&old, &handshake(&broker, None).unwrap()), "{crash:?}");
        let next = broker.rekey(CERTMGR, ROLE).unwrap().0;
        assert_eq!((node.token.objects(), second.objects()), (2, 2), "{crash:?}: one key, and not two");
        assert_eq!(node.audited("RekeyBegun"), 1, "{crash:?}");
        let broker = moved(&node, open(&second));
        assert!(
            is_by(&old, &handshake(&broker, None).unwrap()) && is_by(&next, &handshake(&broker, Some(&next)).unwrap())
        );
        broker.retire(CERTMGR, &old).unwrap();
        assert!(is_by(&next, &handshake(&moved(&node, open(&second)), None).unwrap()), "{crash:?}");
    }
}

#[test]
fn a_lost_token_does_not_hinder_the_re_key_of_what_was_on_it() {
    let (node, second) = (Node::new(), FakeToken::new("FAKE2"));
    let old = node.broker().generate(CERTMGR, ROLE).unwrap().0;
    let broker = moved(&node, open(&second));
    node.token.set_absent(true);
    assert!(matches!(handshake(&broker, None), Err(Refusal::Unavailable(_))));
    let next = broker.rekey(CERTMGR, ROLE).unwrap().0;
    broker.retire(CERTMGR, &old).unwrap();
    assert!(is_by(&next, &handshake(&broker, None).unwrap()));
    let status = broker.status(ROOT).unwrap();
    assert_eq!((status.keys, status.retired), (vec![(next, Some(true))], vec![old]));
}

#[test]
fn nothing_is_retired_while_what_follows_it_is_away() {
    let (node, second) = (Node::new(), FakeToken::new("FAKE2"));
    let old = node.broker().generate(CERTMGR, ROLE).unwrap().0;
    let broker = moved(&node, open(&second));
    broker.rekey(CERTMGR, ROLE).unwrap();
    second.set_absent(true);
    assert!(matches!(broker.retire(CERTMGR, &old), Err(Refusal::Unavailable(_))));
    assert!(is_by(&old, &handshake(&broker, None).unwrap()));
    assert_eq!(node.audited("KeyRetired"), 0);
}

/// A role that is put elsewhere once more while it is re-keyed does not get a third key.
#[test]
fn a_next_key_does_not_follow_its_role_either() {
    let (node, second) = (Node::new(), FakeToken::new("FAKE2"));
    let old = node.broker().generate(CERTMGR, ROLE).unwrap().0;
    moved(&node, open(&second)).rekey(CERTMGR, ROLE).unwrap();
    let third = FakeToken::new("FAKE3");
    let rest: Vec<_> = KeyRole::ALL.into_iter().filter(|role| *role != ROLE).collect();
    let tokens = vec![
        node.token_parts(PLACE, &rest, node.store()),
        node.token_parts("pkcs11:token=third", &[ROLE], open(&third)),
    ];
    let broker = node.with_tokens(tokens, LOADS, node.record(), USERS);
    broker.0.keepers().iter().for_each(|keeper| keeper.attempt().unwrap());
    let Err(Refusal::KeyMissing(text)) = broker.rekey(CERTMGR, ROLE) else { panic!("made a third") };
    assert!(text.contains("FAKE2") && text.contains("third"), "{text}");
    assert_eq!(third.objects(), 0);
    assert!(is_by(&old, &handshake(&broker, None).unwrap()));
}

#[test]
fn certmgr_alone_re_keys_and_only_what_there_is() {
    let node = Node::new();
    let broker = node.broker();
    assert!(matches!(broker.rekey(CERTMGR, ROLE), Err(Refusal::KeyMissing(_))), "it was never made");
    let old = broker.generate(CERTMGR, ROLE).unwrap().0;
    for peer in [ROOT, CAPF, CTLPROVIDER, TFTP] {
        assert!(matches!(broker.rekey(peer, ROLE), Err(Refusal::Policy(_))));
        assert!(matches!(broker.retire(peer, &old), Err(Refusal::Policy(_))));
    }
    let unknown = KeyRecord { fingerprint: "00".repeat(32), ..old.clone() };
    broker.rekey(CERTMGR, ROLE).unwrap();
    assert!(matches!(broker.retire(CERTMGR, &unknown), Err(Refusal::KeyMissing(_))));
    assert!(matches!(
        broker.ask(TFTP, Request::Key { role: ROLE, fingerprint: Some(unknown.fingerprint) }),
        Response::Refused(Refusal::KeyMissing(_))
    ));
    assert_eq!(broker.status(ROOT).unwrap().retired, []);
}

/// Each key certifies itself and no other: the certificate that is on record for a key is what files and phones are signed under.
#[test]
fn a_next_key_signs_its_own_certificate_and_not_the_others() {
    let node = Node::new();
    let broker = node.broker();
    let old = broker.generate(CERTMGR, TomcatEcdsa).unwrap().0;
    let next = broker.rekey(CERTMGR, TomcatEcdsa).unwrap().0;
    for key in [&old, &next] {
        let signer = broker.signer(CERTMGR, key.clone(), Purpose::SelfSigned);
        casemate_pki::self_signed(&identity_profile(TomcatEcdsa, "casemate"), &signer).unwrap();
    }
    let other = KeyRecord { fingerprint: old.fingerprint, ..next };
    let signer = broker.signer(CERTMGR, other, Purpose::SelfSigned);
    assert!(casemate_pki::self_signed(&identity_profile(TomcatEcdsa, "casemate"), &signer).is_err());
    assert!(matches!(signer.refusal(), Some(Refusal::Policy(_))));
}
