//! The token goes in the middle of a call, for a moment, for ten seconds, for ever.

use std::{
    thread,
    time::{Duration, Instant},
};

use casemate_faults::{At, Faulty};
use casemate_harness::{Lab, Tokens};
use casemate_phone::PhoneError;
use serde_json::Value;

use crate::stage::{self, AT_LAST, SOON, Stage, count, prepared, start, with_faulty};

/// What a phone and the operator are told while the token is away.
fn is_away(stage: &Stage<'_>) {
    let refused = stage.phone().enrol();
    assert!(matches!(refused, Err(PhoneError::Connection { service: "CAPF", .. })), "{refused:?}");
    let status = stage::listed(stage.lab);
    assert!(status["state"]["waiting"].as_str().unwrap().contains("absent"), "{status}");
    assert_eq!(status["tokens"][0]["info"], Value::Null);
    assert!(status["keys"].as_array().unwrap().iter().all(|key| key["on-token"].is_null()), "nobody knows: {status}");
}

fn during_a_signature(name: &str, tokens: Tokens) {
    with_faulty(name, tokens, |stage, faulty| {
        let failed = count(stage.lab, "KeyUseFailed");
        let phone = stage.phone();
        faulty.at("C_Sign", 0, At::Remove).unwrap();
        let refused = phone.enrol();
        assert!(refused.is_err() && faulty.happened("C_Sign"), "{refused:?}");
        stage.lab.wait_for_events("TokenAbsent", 1).unwrap();
        let told = stage.lab.wait_for_events("KeyUseFailed", failed + 1).unwrap();
        assert!(told.iter().any(|event| event.to_string().contains("DeviceRemoved")), "{told:?}");
        is_away(stage);
        faulty.put_back().unwrap();
        stage.serves_again(&phone, SOON);
        stage.only_keyd_restarted(0);
        stage.nothing_was_lost();
    });
}

#[test]
fn softhsm_goes_during_a_signature() {
    during_a_signature("drill-sign-softhsm", Tokens::SoftHsm);
}

#[test]
fn kryoptic_goes_during_a_signature() {
    during_a_signature("drill-sign-kryoptic", Tokens::Kryoptic);
}

/// The plug of a TPM is pulled while a signature is asked of it: it stands still until it is gone.
#[test]
fn a_tpm_goes_during_a_signature() {
    let lab = prepared("drill-sign-tpm", Tokens::Tpm);
    start(&lab);
    let stage = Stage::of(&lab, "drill-sign-tpm");
    let phone = stage.phone();
    let failed = count(&lab, "KeyUseFailed");
    lab.hold_tpm(true).unwrap();
    thread::scope(|scope| {
        let caller = scope.spawn(|| phone.enrol());
        // The use of the key is on record before the token is asked.
        let used = count(&lab, "KeyUsed");
        let asked = || count(&lab, "KeyUsed") > used;
        let _ = lab.wait_for("a signature to be asked for", Duration::from_secs(3), asked);
        lab.pull_tpm().unwrap();
        let refused = caller.join().unwrap();
        assert!(refused.is_err(), "{refused:?}");
    });
    lab.wait_for_events("KeyUseFailed", failed + 1).unwrap();
    lab.wait_for_events("TokenAbsent", 1).unwrap();
    is_away(&stage);
    lab.put_tpm_back().unwrap();
    stage.serves_again(&phone, SOON);
    stage.only_keyd_restarted(0);
    stage.nothing_was_lost();
}

fn during_the_login(name: &str, tokens: Tokens) {
    with_faulty(name, tokens, |stage, faulty| {
        faulty.at("C_Login", 0, At::Remove).unwrap();
        stage.lab.kill("keyd").unwrap();
        stage.lab.wait_for("the login", SOON, || faulty.happened("C_Login")).unwrap();
        stage.lab.wait_for_events("TokenAbsent", 1).unwrap();
        assert!(stage.lab.casemate(&["hsm", "list"]).is_err(), "it listens before it tested the token");
        faulty.put_back().unwrap();
        stage.serves_again(&stage.phone(), SOON);
        stage.only_keyd_restarted(1);
        // Nobody has counted a wrong PIN, neither the broker nor the token.
        assert_eq!(count(stage.lab, "TokenRefused"), 0);
        stage.nothing_was_lost();
    });
}

#[test]
fn softhsm_goes_during_the_login() {
    during_the_login("drill-login-softhsm", Tokens::SoftHsm);
}

#[test]
fn kryoptic_goes_during_the_login() {
    during_the_login("drill-login-kryoptic", Tokens::Kryoptic);
}

/// The token goes in the fourth generation, before and after it made the key.
fn during_a_generation(name: &str, tokens: Tokens) {
    for (when, made) in [(At::Remove, "before"), (At::RemoveAfter, "after")] {
        let name = format!("{name}-{made}");
        let lab = prepared(&name, tokens);
        let faulty = Faulty::before_the_token_of(&lab).unwrap();
        lab.postd(&[]).unwrap();
        lab.start_daemons().unwrap();
        // The rates are measured with two temporary keys, which are made by the same function.
        faulty.at("C_GenerateKeyPair", 5, when).unwrap();
        let refused = lab.casemate(&["provision"]).unwrap_err().to_string();
        assert!(faulty.happened("C_GenerateKeyPair"), "{refused}");
        println!("{name}: the operator reads: {refused}");
        lab.wait_for_events("TokenAbsent", 1).unwrap();
        assert!(count(&lab, "ProvisionFailed") > 0, "{refused}");
        faulty.put_back().unwrap();
        let begin = Instant::now();
        lab.wait_for("provisioning", AT_LAST, || lab.casemate(&["provision"]).is_ok()).unwrap();
        println!("{name}: served again after {:.2} s", begin.elapsed().as_secs_f64());
        lab.wait_for_trust_list().unwrap();
        assert_eq!(lab.starts("keyd"), 1);
        let stage = Stage::of(&lab, &name);
        stage.nothing_was_lost();
        assert_eq!(count(&lab, "KeyAdopted"), usize::from(made == "after"), "{made}");
    }
}

#[test]
fn softhsm_goes_during_a_generation() {
    during_a_generation("drill-generate-softhsm", Tokens::SoftHsm);
}

#[test]
fn kryoptic_goes_during_a_generation() {
    during_a_generation("drill-generate-kryoptic", Tokens::Kryoptic);
}

/// The TPM stands still while the broker makes keys in it, and is gone then.
#[test]
fn a_tpm_goes_during_a_generation() {
    let lab = prepared("drill-generate-tpm", Tokens::Tpm);
    lab.postd(&[]).unwrap();
    lab.start_daemons().unwrap();
    thread::scope(|scope| {
        let provision = scope.spawn(|| lab.casemate(&["provision"]));
        lab.wait_for_events("KeyGenerated", 2).unwrap();
        lab.hold_tpm(true).unwrap();
        thread::sleep(Duration::from_millis(300));
        lab.pull_tpm().unwrap();
        let refused = provision.join().unwrap().unwrap_err().to_string();
        println!("the operator reads: {refused}");
    });
    lab.wait_for_events("TokenAbsent", 1).unwrap();
    lab.put_tpm_back().unwrap();
    let begin = Instant::now();
    lab.wait_for("provisioning", AT_LAST, || lab.casemate(&["provision"]).is_ok()).unwrap();
    println!("drill-generate-tpm: served again after {:.2} s", begin.elapsed().as_secs_f64());
    lab.wait_for_trust_list().unwrap();
    assert_eq!((lab.starts("keyd"), count(&lab, "ProvisionFailed") > 0), (1, true));
    Stage::of(&lab, "drill-generate-tpm").nothing_was_lost();
}

/// The TPM stands still at the login, and is gone then.
#[test]
fn a_tpm_goes_during_the_login() {
    let lab = prepared("drill-login-tpm", Tokens::Tpm);
    start(&lab);
    let stage = Stage::of(&lab, "drill-login-tpm");
    lab.hold_tpm(true).unwrap();
    lab.kill("keyd").unwrap();
    lab.wait_for("another keyd", SOON, || lab.starts("keyd") == 2).unwrap();
    thread::sleep(Duration::from_millis(500));
    lab.pull_tpm().unwrap();
    lab.wait_for_events("TokenAbsent", 1).unwrap();
    assert!(lab.casemate(&["hsm", "list"]).is_err(), "it listens before it tested the token");
    lab.put_tpm_back().unwrap();
    stage.serves_again(&stage.phone(), AT_LAST);
    assert_eq!(count(&lab, "TokenRefused"), 0);
    stage.only_keyd_restarted(1);
    stage.nothing_was_lost();
}

/// Away for ten seconds, in which nothing waits and nothing is told twice; what would hold for ever holds then.
fn for_ten_seconds(name: &str, tokens: Tokens, pull: fn(&Lab), put_back: fn(&Lab)) {
    let lab = prepared(name, tokens);
    let faulty = (tokens != Tokens::Tpm).then(|| Faulty::before_the_token_of(&lab).unwrap());
    start(&lab);
    let stage = Stage::of(&lab, name);
    let phone = stage.phone();
    let pulled = Instant::now();
    faulty.as_ref().map_or_else(|| pull(&lab), |faulty| faulty.pull().unwrap());
    while pulled.elapsed() < Duration::from_secs(10) {
        assert!(phone.enrol().is_err());
        is_away(&stage);
        thread::sleep(Duration::from_millis(200));
    }
    let told = count(&lab, "TokenAbsent");
    assert!(
        (1..=2).contains(&told),
        "told {told} times: when it went, and that it is not there, and not at each request"
    );
    faulty.as_ref().map_or_else(|| put_back(&lab), |faulty| faulty.put_back().unwrap());
    stage.serves_again(&phone, AT_LAST);
    stage.only_keyd_restarted(0);
    stage.nothing_was_lost();
}

#[test]
fn softhsm_is_away_for_ten_seconds() {
    for_ten_seconds("drill-ten-softhsm", Tokens::SoftHsm, |_| (), |_| ());
}

#[test]
fn kryoptic_is_away_for_ten_seconds() {
    for_ten_seconds("drill-ten-kryoptic", Tokens::Kryoptic, |_| (), |_| ());
}

#[test]
fn a_tpm_is_away_for_ten_seconds() {
    let (pull, put_back) = (|lab: &Lab| lab.pull_tpm().unwrap(), |lab: &Lab| lab.put_tpm_back().unwrap());
    for_ten_seconds("drill-ten-tpm", Tokens::Tpm, pull, put_back);
}

/// A token that never comes back holds nobody up: keyd is told to end and ends, starts and waits, and what is on record stays.
#[test]
fn a_token_that_is_gone_for_ever_holds_up_no_end_and_no_start() {
    with_faulty("drill-for-ever", Tokens::SoftHsm, |stage, faulty| {
        faulty.pull().unwrap();
        assert!(stage.enrols().is_err());
        let before = stage::keys(stage.lab);
        stage.lab.stop_daemon("keyd").unwrap();
        thread::scope(|scope| {
            // It is not ready, for it never is.
            let start = scope.spawn(|| stage.lab.start_daemon("keyd"));
            stage.lab.wait_for_events("TokenAbsent", 2).unwrap();
            assert!(stage.lab.casemate(&["hsm", "list"]).is_err());
            faulty.put_back().unwrap();
            start.join().unwrap().unwrap();
        });
        assert_eq!(stage::keys(stage.lab), before);
        stage.serves_again(&stage.phone(), AT_LAST);
        stage.nothing_was_lost();
    });
}
