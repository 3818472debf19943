//! tpm2-pkcs11 on a TPM behind tpm2-abrmd: the TPM or the resource manager goes and comes back. That library (1.9.0) answers
//! `C_GetTokenInfo` without its TPM and says `CKR_GENERAL_ERROR` of each signature, also when the TPM is back. keyd takes a token
//! that does not sign for one that is away, and finds it again by starting the module anew.

use std::{
    thread,
    time::{Duration, Instant},
};

use casemate_harness::{Lab, Tokens};

use crate::stage::{self, AT_LAST, SOON, Stage, count, prepared_with_loads, start};

fn goes_and_comes_back(name: &str, pull: fn(&Lab), put_back: fn(&Lab)) {
    let lab = prepared_with_loads(name, Tokens::Tpm2Pkcs11);
    start(&lab);
    let stage = Stage::of(&lab, name);
    let phone = stage.phone();
    pull(&lab);
    assert!(phone.enrol().is_err());
    lab.wait_for("the status to tell it", SOON, || stage::state(&lab).contains("waiting")).unwrap();
    println!("{name}: the operator reads: {}", stage::state(&lab));
    let pulled = Instant::now();
    while pulled.elapsed() < Duration::from_secs(3) {
        assert!(phone.enrol().is_err());
        thread::sleep(Duration::from_millis(200));
    }
    assert!(count(&lab, "KeyUseFailed") >= 1 && count(&lab, "TokenAbsent") >= 1);
    put_back(&lab);
    stage.serves_again(&phone, AT_LAST);
    stage.only_keyd_restarted(0);
    assert_eq!(count(&lab, "TokenRefused"), 0);
    stage.nothing_was_lost();
}

#[test]
fn a_tpm_behind_a_resource_manager_goes_and_comes_back() {
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
fn a_resource_manager_goes_and_comes_back() {
    let (pull, put_back) =
        (|lab: &Lab| lab.kill_resource_manager().unwrap(), |lab: &Lab| lab.restart_resource_manager().unwrap());
    goes_and_comes_back("drill-abrmd-manager", pull, put_back);
}
