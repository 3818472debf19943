//! A token with fewer sessions than keyd asks for.

use std::{fs, thread};

use casemate_faults::Faulty;
use casemate_harness::Tokens;
use casemate_phone::capf::Outcome;

use crate::stage::{SOON, Stage, count, with_faulty};

fn flock(stage: &Stage<'_>) -> usize {
    let phones: Vec<_> = (0..12).map(|_| stage.phone()).collect();
    thread::scope(|scope| {
        let calls: Vec<_> = phones.iter().map(|phone| scope.spawn(|| phone.enrol())).collect();
        let outcomes = calls.into_iter().map(|call| call.join().unwrap());
        outcomes.filter(|outcome| matches!(outcome, Ok(Outcome::Installed(_)))).count()
    })
}

/// The session that logged in and one more: what a small token has. keyd asks for five unless it is told, and says what is wrong.
fn two_sessions(name: &str, tokens: Tokens) {
    with_faulty(name, tokens, |stage, faulty: &Faulty<'_>| {
        faulty.limit_sessions(Some(2)).unwrap();
        stage.lab.kill("keyd").unwrap();
        let told = stage.lab.wait_for_events("TokenAbsent", 1).unwrap();
        assert!(told[0]["CASEMATE_DETAIL"].as_str().unwrap().contains("SessionCount"), "{told:?}");
        stage.lab.stop_daemon("keyd").unwrap();
        let config = stage.lab.layout.config();
        let text = fs::read_to_string(&config).unwrap();
        let told = text.replace("faulty.so\" }", "faulty.so\", sessions = 1 }");
        assert_ne!(text, told);
        fs::write(&config, told).unwrap();
        stage.lab.start_daemon("keyd").unwrap();
        assert_eq!((flock(stage), count(stage.lab, "KeyUseFailed")), (12, 0), "fewer sessions are slower, not broken");
        stage.serves_again(&stage.phone(), SOON);
        stage.only_keyd_restarted(2);
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
        assert!(told[0]["CASEMATE_DETAIL"].as_str().unwrap().contains("SessionCount"), "{told:?}");
        faulty.limit_sessions(None).unwrap();
        stage.serves_again(&stage.phone(), SOON);
        stage.only_keyd_restarted(1);
        stage.nothing_was_lost();
    });
}
