//! A token as slow as real ones are: the latencies are the fake's profiles, before SoftHSM's signatures.

use std::{
    thread,
    time::{Duration, Instant},
};

use casemate_faults::Faulty;
use casemate_harness::Tokens;
use casemate_hsm_fake::LatencyProfile;
use casemate_phone::capf::Outcome;

use crate::stage::{AT_LAST, Stage, count, prepared, prepared_with_loads, start, state, with_faulty};

/// What a call to the token may take as keyd is shipped, in milliseconds.
const CALL_LIMIT: u128 = 5_000;

/// Everything is served on a slow token whose roles state what it can do: provisioning, the operator's list, one phone, a few at once.
fn serves(name: &str, profile: LatencyProfile) {
    let lab = prepared(name, Tokens::SoftHsm);
    let faulty = Faulty::before_the_token_of(&lab).unwrap();
    faulty.slow_down(profile.latencies().map(|latency| latency.as_millis())).unwrap();
    start(&lab);
    let begin = Instant::now();
    let stage = Stage::of(&lab, name);
    println!("{name}: a phone enrolled and keys were listed in {:.2} s", begin.elapsed().as_secs_f64());
    let phones: Vec<_> = (0..8).map(|_| stage.phone()).collect();
    let begin = Instant::now();
    thread::scope(|scope| {
        let calls: Vec<_> = phones.iter().map(|phone| scope.spawn(|| phone.enrol())).collect();
        for call in calls {
            let outcome = call.join().unwrap();
            assert!(matches!(outcome, Ok(Outcome::Installed(_))), "{outcome:?}");
        }
    });
    println!("{name}: eight phones at once in {:.2} s", begin.elapsed().as_secs_f64());
    assert_eq!((state(&lab).as_str(), count(&lab, "TokenAbsent"), count(&lab, "KeyUseFailed")), ("serving", 0, 0));
    stage.only_keyd_restarted(0);
    stage.nothing_was_lost();
}

#[test]
fn at_the_latency_of_a_tpm_all_is_served() {
    serves("drill-slow-tpm", LatencyProfile::TPM);
}

#[test]
fn at_the_latency_of_a_network_all_is_served() {
    serves("drill-slow-network", LatencyProfile::NETWORK);
}

/// With the loads that are shipped a token as slow as a TPM gets no key that a handshake waits for.
#[test]
fn at_the_latency_of_a_tpm_the_shipped_loads_are_refused() {
    let lab = prepared_with_loads("drill-slow-refused", Tokens::SoftHsm);
    let faulty = Faulty::before_the_token_of(&lab).unwrap();
    faulty.slow_down(LatencyProfile::TPM.latencies().map(|latency| latency.as_millis())).unwrap();
    lab.postd(&[]).unwrap();
    lab.start_daemons().unwrap();
    let refused = lab.casemate(&["provision"]).unwrap_err().to_string();
    println!("the operator reads: {refused}");
    assert!(refused.contains("signatures/s, and the role needs"), "{refused}");
    let told = lab.wait_for_events("TokenTooSlow", 1).unwrap();
    let measured = told[0]["CASEMATE_MEASURED"].as_str().unwrap();
    assert!(refused.contains(measured), "{measured}: {refused}");
    // ITLRecovery, which signs once in a while, was made before.
    assert_eq!((count(&lab, "KeyGenerated"), lab.token_objects().unwrap()), (1, (1, 1)));
}

/// Longer than any call may take: keyd answers in time all the same, on the connection that asked, and serves on when the call returns.
#[test]
fn a_signature_that_hangs_is_given_up_and_its_connection_is_served_on() {
    with_faulty("drill-hang", Tokens::SoftHsm, |stage, faulty| {
        let (phone, failed) = (stage.phone(), count(stage.lab, "KeyUseFailed"));
        // Sessions are open, so that the connection's own thread makes the signature.
        assert!(stage.enrols().is_ok());
        faulty.slow_down([CALL_LIMIT + 3_000]).unwrap();
        let begin = Instant::now();
        assert!(phone.enrol().is_err());
        let told = stage.lab.wait_for_events("KeyUseFailed", failed + 1).unwrap();
        assert!(begin.elapsed() < Duration::from_millis(CALL_LIMIT as u64 + 2_500), "{:?}", begin.elapsed());
        let reason = told.last().unwrap()["CASEMATE_REASON"].as_str().unwrap().to_owned();
        println!("drill-hang: {reason}; {}", state(stage.lab));
        assert!(reason.contains("did not answer"), "{reason}");
        stage.lab.wait_for_events("TokenAbsent", 1).unwrap();
        faulty.slow_down([]).unwrap();
        stage.serves_again(&phone, AT_LAST);
        stage.only_keyd_restarted(0);
        stage.nothing_was_lost();
    });
}
