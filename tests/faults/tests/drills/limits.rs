//! A token with fewer sessions than keyd asks for, and a TPM that another process has filled.

use std::{fs, thread, time::Instant};

use casemate_faults::{Faulty, tool, tpm_port};
use casemate_harness::{Lab, Tokens};
use casemate_phone::capf::Outcome;

use crate::stage::{SOON, Stage, count, listed, prepared, start, with_faulty};

fn flock(stage: &Stage<'_>) -> usize {
    let phones: Vec<_> = (0..12).map(|_| stage.phone()).collect();
    thread::scope(|scope| {
        let calls: Vec<_> = phones.iter().map(|phone| scope.spawn(|| phone.enrol())).collect();
        let outcomes = calls.into_iter().map(|call| call.join().unwrap());
        outcomes.filter(|outcome| matches!(outcome, Ok(Outcome::Installed(_)))).count()
    })
}

/// Another line in keyd's settings.
fn change(lab: &Lab, from: &str, to: &str) {
    let config = lab.layout.config();
    let text = fs::read_to_string(&config).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(&config, text.replace(from, to)).unwrap();
}

/// Four threads, and a token that opens so many sessions together: the one that logged in is one of them. keyd serves with what it
/// gets, and says how much that is.
fn few_sessions(name: &str, tokens: Tokens, sessions: usize) {
    let name = format!("{name}-{sessions}");
    with_faulty(&name, tokens, |stage, faulty: &Faulty<'_>| {
        faulty.limit_sessions(Some(sessions)).unwrap();
        stage.lab.stop_daemon("keyd").unwrap();
        change(stage.lab, "faulty.so\" }", "faulty.so\", sessions = 4 }");
        stage.lab.start_daemon("keyd").unwrap();
        // One is for the login, unless there is no other.
        let refused = 4 - (sessions - 1).max(1);
        let told = stage.lab.wait_for_events("TokenShortOfSessions", 1).unwrap();
        println!("{name}: {}", told[0]["MESSAGE"]);
        assert_eq!(told[0]["CASEMATE_REFUSED"], refused.to_string());
        assert_eq!((flock(stage), count(stage.lab, "KeyUseFailed")), (12, 0), "fewer sessions are slower, not broken");
        let info = &listed(stage.lab)["tokens"][0]["info"];
        assert_eq!((&info["refused-sessions"], &info["sessions"]), (&refused.into(), &sessions.into()), "{info}");
        let text = stage.lab.casemate(&["hsm", "list"]).unwrap();
        assert!(text.contains(&format!("and {refused} more that the settings ask for are refused")), "{text}");
        assert_eq!((count(stage.lab, "TokenAbsent"), count(stage.lab, "TokenShortOfSessions")), (0, 1));
        stage.serves_again(&stage.phone(), SOON);
        stage.only_keyd_restarted(1);
        stage.nothing_was_lost();
    });
}

#[test]
fn softhsm_has_one_two_or_three_sessions() {
    (1..=3).for_each(|sessions| few_sessions("drill-sessions-softhsm", Tokens::SoftHsm, sessions));
}

#[test]
fn kryoptic_has_one_or_two_sessions() {
    (1..=2).for_each(|sessions| few_sessions("drill-sessions-kryoptic", Tokens::Kryoptic, sessions));
}

/// The last free sessions go to somebody else while keyd serves: what finds none waits for one of ours.
#[test]
fn softhsm_has_no_more_sessions_while_keyd_serves() {
    with_faulty("drill-sessions-taken", Tokens::SoftHsm, |stage, faulty: &Faulty<'_>| {
        stage.lab.stop_daemon("keyd").unwrap();
        // So many threads that some have not needed a session yet.
        change(stage.lab, "faulty.so\" }", "faulty.so\", sessions = 64 }");
        stage.lab.start_daemon("keyd").unwrap();
        let open = listed(stage.lab)["tokens"][0]["info"]["sessions"].as_u64().unwrap();
        assert!((2..60).contains(&open), "{open}");
        faulty.limit_sessions(Some(1)).unwrap();
        for _ in 0..3 {
            assert_eq!((flock(stage), count(stage.lab, "KeyUseFailed")), (12, 0));
        }
        let info = listed(stage.lab)["tokens"][0]["info"].clone();
        println!("drill-sessions-taken: {} sessions, {} refused", info["sessions"], info["refused-sessions"]);
        assert!(info["refused-sessions"].as_u64().unwrap() > 0, "{info}");
        faulty.limit_sessions(None).unwrap();
        stage.serves_again(&stage.phone(), SOON);
        assert_eq!(count(stage.lab, "TokenAbsent"), 0);
        stage.only_keyd_restarted(1);
        stage.nothing_was_lost();
    });
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

/// What another process leaves in a TPM, without a resource manager: as many sessions or objects as fit.
fn fill(lab: &Lab, what: &str) {
    let (port, context) = (tpm_port(lab).unwrap(), lab.layout.root.join("stranger"));
    let context = context.display().to_string();
    let one_more = || match what {
        "sessions" => tool(port, "tpm2_startauthsession", &["-S", &context]),
        _ => tool(port, "tpm2_createprimary", &["-Q", "-C", "o", "-c", &context]),
    };
    // keyd leaves its own objects behind, for there is no resource manager.
    tool(port, "tpm2_flushcontext", &["-t"]).unwrap();
    let left = (0..100).take_while(|_| one_more().is_ok()).count();
    println!("another process left {left} {what}");
    assert!((1..100).contains(&left), "{left} {what}");
}

/// Another process has filled the TPM and is gone. On a TPM of its own keyd throws that out; on one that others use too it waits,
/// says of what there is too little, and serves when somebody has flushed it.
fn is_full(what: &str, says: &str) {
    let lab = prepared(&format!("drill-full-of-{what}"), Tokens::Tpm);
    start(&lab);
    let stage = Stage::of(&lab, what);
    lab.stop_daemon("keyd").unwrap();
    fill(&lab, what);
    lab.start_daemon("keyd").unwrap();
    stage.serves_again(&stage.phone(), SOON);
    assert_eq!(count(&lab, "TokenAbsent"), 0);
    lab.stop_daemon("keyd").unwrap();
    fill(&lab, what);
    change(&lab, "tpm = { ", "tpm = { exclusive = false, ");
    thread::scope(|scope| {
        let start = scope.spawn(|| lab.start_daemon("keyd"));
        let told = lab.wait_for_events("TokenAbsent", 1).unwrap();
        println!("{what}: {}", told[0]["MESSAGE"]);
        assert!(told[0]["CASEMATE_DETAIL"].as_str().unwrap().contains(says), "{told:?}");
        assert!(lab.casemate(&["hsm", "list"]).is_err(), "it listens before it tested the token");
        for kind in ["-t", "-l", "-s"] {
            tool(tpm_port(&lab).unwrap(), "tpm2_flushcontext", &[kind]).unwrap();
        }
        let flushed = Instant::now();
        start.join().unwrap().unwrap();
        println!("{what}: keyd listens {:.2} s after they were flushed", flushed.elapsed().as_secs_f64());
    });
    stage.serves_again(&stage.phone(), SOON);
    assert_eq!(count(&lab, "TokenRefused"), 0, "nobody counted a wrong PIN");
    stage.only_keyd_restarted(2);
    stage.nothing_was_lost();
}

#[test]
fn a_tpm_has_no_session_left() {
    is_full("sessions", "Session");
}

#[test]
fn a_tpm_has_no_room_for_an_object() {
    is_full("objects", "ObjectMemory");
}
