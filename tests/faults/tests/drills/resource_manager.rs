//! tpm2-pkcs11 on a TPM behind tpm2-abrmd: the TPM or the resource manager goes and comes back. That library (1.9.0) answers
//! `C_GetTokenInfo` without its TPM and says `CKR_GENERAL_ERROR` of each signature, also when the TPM is back; so keyd takes the token
//! for one that is there and fails. These drills show what the operator sees then, and that a restart of keyd is the cure.

use std::{
    thread,
    time::{Duration, Instant},
};

use casemate_faults::Caller;
use casemate_harness::{Lab, Tokens};

use crate::stage::{self, AT_LAST, SOON, Stage, count, prepared_with_loads, start};

/// Phones are refused for `time`, and each refusal is on record with the key and the library's own word.
fn fails_for(stage: &Stage<'_>, phone: &Caller, time: Duration) {
    let begin = Instant::now();
    while begin.elapsed() < time {
        let failed = count(stage.lab, "KeyUseFailed");
        assert!(phone.enrol().is_err());
        let told = stage.lab.wait_for_events("KeyUseFailed", failed + 1).unwrap();
        assert!(told.iter().all(|event| event.to_string().contains("failed in C_Sign: GeneralError")), "{told:?}");
        // What does not hold for a token that says when it is gone: nobody is told of an absence.
        assert_eq!((stage::state(stage.lab).as_str(), count(stage.lab, "TokenAbsent")), ("serving", 0));
        thread::sleep(Duration::from_millis(200));
    }
}

fn goes_and_comes_back(name: &str, pull: fn(&Lab), put_back: fn(&Lab)) {
    let lab = prepared_with_loads(name, Tokens::Tpm2Pkcs11);
    start(&lab);
    let stage = Stage::of(&lab, name);
    let phone = stage.phone();
    pull(&lab);
    fails_for(&stage, &phone, Duration::from_secs(3));
    put_back(&lab);
    fails_for(&stage, &phone, Duration::from_secs(3));
    stage.only_keyd_restarted(0);
    assert!(lab.kill("keyd").unwrap());
    lab.wait_for("another keyd", SOON, || lab.starts("keyd") == 2).unwrap();
    stage.serves_again(&phone, AT_LAST);
    stage.only_keyd_restarted(1);
    assert_eq!(count(&lab, "TokenRefused"), 0);
    stage.nothing_was_lost();
}

#[test]
fn a_tpm_behind_a_resource_manager_comes_back_and_keyd_has_to_be_restarted() {
    let pull = |lab: &Lab| {
        lab.pull_tpm().unwrap();
        assert!(lab.resource_manager_runs().unwrap(), "it lives on without its TPM");
    };
    let put_back = |lab: &Lab| {
        assert!(lab.resource_manager_runs().unwrap(), "it lives on without its TPM");
        lab.put_tpm_back().unwrap();
    };
    goes_and_comes_back("drill-abrmd-tpm", pull, put_back);
}

#[test]
fn a_resource_manager_comes_back_and_keyd_has_to_be_restarted() {
    let (pull, put_back) =
        (|lab: &Lab| lab.kill_resource_manager().unwrap(), |lab: &Lab| lab.restart_resource_manager().unwrap());
    goes_and_comes_back("drill-abrmd-manager", pull, put_back);
}
