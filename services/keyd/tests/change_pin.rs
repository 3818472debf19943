//! Who may have a PIN changed, of which token, and what stands in the audit trail of it. Real tokens are in `softhsm.rs` and in
//! tests/e2e.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy.toml allows them in test functions; these are their own helpers

mod rig;

use casemate_hsm_api::{KeyRole, Pin};
use casemate_keyring::{NewPin, Refusal, Request, Response};
use casemate_runtime::peer::Peer;
use rig::{CAPF, CERTMGR, CTLPROVIDER, Caller, LOADS, Node, PLACE, ROOT, STRANGER, TFTP, TVS, USERS};

const ADMIN: Peer = Peer { uid: 1006, pid: 8 };

fn refused(broker: &Caller, peer: Peer, token: Option<&str>) -> Refusal {
    let pin = NewPin(Pin::new("864209").unwrap());
    match broker.ask(peer, Request::ChangePin { token: token.map(str::to_owned), pin }) {
        Response::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn operators_alone_change_a_pin_and_every_attempt_is_audited() {
    let node = Node::new();
    let broker = node.untested(node.store(), node.record(), &format!("{USERS}admin = 1006\n"));
    broker.attempt().unwrap();
    for peer in [CERTMGR, CAPF, CTLPROVIDER, TFTP, TVS] {
        let refusal = refused(&broker, peer, None);
        assert!(matches!(&refusal, Refusal::Policy(reason) if reason.contains("no operator")), "{refusal:?}");
    }
    assert_eq!(node.audited("PinNotChanged"), 5);
    assert!(matches!(refused(&broker, STRANGER, None), Refusal::Policy(_)));
    assert_eq!((node.audited("PinNotChanged"), node.audited("CallerRefused")), (5, 1));
    // They may, and this token cannot.
    for (peer, name) in [(ROOT, None), (ADMIN, Some(PLACE))] {
        let refusal = refused(&broker, peer, name);
        assert!(matches!(&refusal, Refusal::Failed(reason) if reason.contains("a change of its PIN")), "{refusal:?}");
    }
    assert_eq!((node.audited("PinNotChanged"), node.audited("PinChanged")), (7, 0));
    assert!(!node.journal().contains("864209"), "{}", node.journal());
}

#[test]
fn of_several_tokens_one_is_named_and_one_that_is_away_keeps_its_pin() {
    let node = Node::new();
    let parts = |place: &str, roles: &[KeyRole]| node.token_parts(place, roles, node.store());
    let tokens = vec![parts(PLACE, &KeyRole::ALL[..1]), parts("tpm", &KeyRole::ALL[1..])];
    let broker = node.with_tokens(tokens, LOADS, node.record(), USERS);
    for name in [None, Some("tmp")] {
        let refusal = refused(&broker, ROOT, name);
        let names = format!("{PLACE}, tpm");
        assert!(matches!(&refusal, Refusal::Failed(reason) if reason.contains(&names)), "{refusal:?}");
    }
    // The other's PIN would be gone.
    let refusal = refused(&broker, ROOT, Some("tpm"));
    assert!(matches!(&refusal, Refusal::Failed(reason) if reason.contains("one PIN file")), "{refusal:?}");
    drop(broker);
    let mut tokens = vec![parts(PLACE, &KeyRole::ALL[..1]), parts("tpm", &KeyRole::ALL[1..])];
    tokens[0].patience.pin_file = Some(node.dir.path().join("another"));
    let broker = node.with_tokens(tokens, LOADS, node.record(), USERS);
    assert!(matches!(refused(&broker, ROOT, Some("tpm")), Refusal::Unavailable(_)), "it was not tested yet");
}
