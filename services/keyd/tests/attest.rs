//! Who may ask for an auditor's evidence, and what stands in the audit trail of it. What a TPM answers is tested end to end.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy.toml allows them in test functions; these are their own helpers

mod rig;

use casemate_hsm_api::KeyRole::{Capf, Tvs};
use casemate_keyring::{Evidence, Refusal, Request, Response};
use casemate_runtime::peer::Peer;
use rig::{CAPF, CERTMGR, CTLPROVIDER, Caller, Node, PLACE, ROOT, STRANGER, TFTP, TVS, USERS};

const ADMIN: Peer = Peer { uid: 1006, pid: 8 };

fn ask(broker: &Caller, peer: Peer, request: Request) -> Result<Evidence, Refusal> {
    match broker.ask(peer, request) {
        Response::Evidence(evidence) => Ok(evidence),
        Response::Refused(refusal) => Err(refusal),
        other => panic!("{other:?}"),
    }
}

fn requests() -> [Request; 3] {
    [
        Request::Attest { role: Capf, nonce: vec![0xab; 32] },
        Request::AttestationKey { token: PLACE.to_owned() },
        Request::AnswerChallenge { token: PLACE.to_owned(), challenge: "{}".to_owned() },
    ]
}

fn ready(node: &Node) -> Caller {
    let broker = node.untested(node.store(), node.record(), &format!("{USERS}admin = 1006\n"));
    broker.attempt().unwrap();
    broker.generate(CERTMGR, Capf).unwrap();
    broker
}

#[test]
fn operators_are_told_that_a_token_without_statements_proves_nothing() {
    let node = Node::new();
    let broker = ready(&node);
    for (peer, request) in [ROOT, ADMIN].into_iter().flat_map(|peer| requests().map(|request| (peer, request))) {
        let unproven = Evidence::Unproven("the token's vendor offers no statement".to_owned());
        assert_eq!(ask(&broker, peer, request).unwrap(), unproven);
    }
    for event in ["KeyAttested", "AttestationKeyShown", "ChallengeAnswered"] {
        assert_eq!(node.audited(event), 2, "{event}: {}", node.journal());
    }
    let journal = node.journal();
    assert!(journal.contains(&"ab".repeat(32)) && journal.contains("unproven, the token's vendor"), "{journal}");
}

#[test]
fn no_daemon_gets_evidence_not_even_of_the_key_that_it_uses() {
    let node = Node::new();
    let broker = ready(&node);
    for (peer, request) in
        [CERTMGR, CAPF, CTLPROVIDER, TFTP, TVS].into_iter().flat_map(|peer| requests().map(|request| (peer, request)))
    {
        let refused = ask(&broker, peer, request);
        assert!(matches!(&refused, Err(Refusal::Policy(reason)) if reason.contains("no operator")), "{refused:?}");
    }
    assert_eq!(node.audited("AttestationRefused"), 15, "{}", node.journal());
    for request in requests() {
        assert!(matches!(ask(&broker, STRANGER, request), Err(Refusal::Policy(_))));
    }
    assert_eq!((node.audited("KeyAttested"), node.audited("ChallengeAnswered")), (0, 0));
}

#[test]
fn what_is_not_there_is_refused_by_name() {
    let node = Node::new();
    let broker = ready(&node);
    let long = ask(&broker, ROOT, Request::Attest { role: Capf, nonce: vec![0; 65] });
    assert!(matches!(&long, Err(Refusal::Failed(reason)) if reason.contains("at most 64 bytes")), "{long:?}");
    ask(&broker, ROOT, Request::Attest { role: Capf, nonce: vec![0; 64] }).unwrap();
    let none = ask(&broker, ROOT, Request::Attest { role: Tvs, nonce: Vec::new() });
    assert!(matches!(none, Err(Refusal::KeyMissing(_))), "{none:?}");
    let unknown = ask(&broker, ROOT, Request::AttestationKey { token: "tpm".to_owned() });
    assert!(matches!(&unknown, Err(Refusal::Failed(reason)) if reason.contains(PLACE)), "{unknown:?}");
    node.token.set_absent(true);
    let absent = ask(&broker, ROOT, Request::Attest { role: Capf, nonce: Vec::new() });
    assert!(matches!(absent, Err(Refusal::Unavailable(_))), "{absent:?}");
    assert_eq!(node.audited("AttestationRefused"), 1, "{}", node.journal());
}
