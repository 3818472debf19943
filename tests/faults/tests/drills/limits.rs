//! A token with fewer sessions than keyd asks for.

use std::thread;

use casemate_faults::Faulty;
use casemate_harness::Tokens;
use casemate_phone::capf::Outcome;

use crate::stage::{SOON, Stage, count, state, with_faulty};

fn flock(stage: &Stage<'_>) -> usize {
    let phones: Vec<_> = (0..12).map(|_| stage.phone()).collect();
    thread::scope(|scope| {
        let calls: Vec<_> = phones.iter().map(|phone| scope.spawn(|| phone.enrol())).collect();
        let outcomes = calls.into_iter().map(|call| call.join().unwrap());
        outcomes.filter(|outcome| matches!(outcome, Ok(Outcome::Installed(_)))).count()
    })
}

/// The session that logged in and one more: what a small token has.
fn two_sessions(name: &str, tokens: Tokens) {
    with_faulty(name, tokens, |stage, faulty: &Faulty<'_>| {
        faulty.limit_sessions(Some(2)).unwrap();
        stage.lab.kill("keyd").unwrap();
        stage.lab.wait_for("the broker", SOON, || stage.lab.casemate(&["hsm", "list"]).is_ok()).unwrap();
        let served = flock(stage);
        println!("{name}: {served} of 12 phones at once enrolled; {}", state(stage.lab));
        for event in stage.lab.audited("KeyUseFailed").unwrap().iter().take(1) {
            println!("{name}: {event}");
        }
        assert_eq!((served, count(stage.lab, "KeyUseFailed")), (12, 0), "fewer sessions are slower, not broken");
        faulty.limit_sessions(None).unwrap();
        stage.serves_again(&stage.phone(), SOON);
        assert_eq!(count(stage.lab, "TokenAbsent"), 0);
        stage.only_keyd_restarted(1);
        stage.nothing_was_lost();
    });
}

#[test]
fn softhsm_has_two_sessions() {
    two_sessions("drill-sessions-softhsm", Tokens::SoftHsm);
}

#[test]
fn kryoptic_has_two_sessions() {
    two_sessions("drill-sessions-kryoptic", Tokens::Kryoptic);
}

/// Not even one for the login: keyd waits, tells why, and serves when there is room.
#[test]
fn softhsm_has_no_session_left() {
    with_faulty("drill-no-session", Tokens::SoftHsm, |stage, faulty| {
        faulty.limit_sessions(Some(0)).unwrap();
        stage.lab.kill("keyd").unwrap();
        let told = stage.lab.wait_for_events("TokenAbsent", 1).unwrap();
        assert!(told[0]["CASEMATE_REASON"].as_str().unwrap().contains("SessionCount"), "{told:?}");
        faulty.limit_sessions(None).unwrap();
        stage.serves_again(&stage.phone(), SOON);
        stage.only_keyd_restarted(1);
        stage.nothing_was_lost();
    });
}
