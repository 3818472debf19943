//! The vendor's library crashes, and takes keyd with it: keyd starts again, nothing else does, and no key is lost or made twice.

use std::{thread, time::Instant};

use casemate_faults::{At, Faulty, tool, tpm_port};
use casemate_harness::Tokens;

use crate::stage::{AT_LAST, SOON, Stage, count, prepared, start, with_faulty};

/// Where it crashes, and when.
const MOMENTS: [(&str, At); 4] =
    [("C_SignInit", At::Abort), ("C_Sign", At::Abort), ("C_Sign", At::AbortAfter), ("C_GetSessionInfo", At::Abort)];

fn in_service(name: &str, tokens: Tokens) {
    with_faulty(name, tokens, |stage, faulty| {
        for (crashes, (function, when)) in (1..).zip(MOMENTS) {
            let phone = stage.phone();
            faulty.at(function, 0, when).unwrap();
            // Whoever asks first: the phone's handshake signs, the operator's list looks at the login.
            let refused = phone.enrol();
            let _ = stage.lab.casemate(&["hsm", "list"]);
            stage.lab.wait_for("the crash", SOON, || faulty.happened(function)).unwrap();
            if function.starts_with("C_Sign") {
                assert!(refused.is_err(), "{function}: {refused:?}");
            }
            let phone = if refused.is_ok() { stage.phone() } else { phone };
            stage.serves_again(&phone, SOON);
            stage.only_keyd_restarted(crashes);
            // Its absence is no event of the token: it was tested anew and is ready.
            assert_eq!(count(stage.lab, "TokenReady"), 1 + crashes as usize);
        }
        stage.nothing_was_lost();
    });
}

#[test]
fn softhsm_crashes_in_service() {
    in_service("drill-crash-softhsm", Tokens::SoftHsm);
}

#[test]
fn kryoptic_crashes_in_service() {
    in_service("drill-crash-kryoptic", Tokens::Kryoptic);
}

/// The token itself crashes and is back at once: a TPM that is killed with a signature under way and started again. What was loaded
/// into it is gone, and keyd lives on.
#[test]
fn a_tpm_crashes_and_is_started_again() {
    let lab = prepared("drill-crash-tpm", Tokens::Tpm);
    // A TPM counts a power cut after a login as a wrong PIN: with the maker's limit of three it would take none after two of them.
    let limits = ["--setup-parameters", "--max-tries=32", "--recovery-time=1000", "--lockout-recovery-time=1000"];
    tool(tpm_port(&lab).unwrap(), "tpm2_dictionarylockout", &limits).unwrap();
    start(&lab);
    let stage = Stage::of(&lab, "drill-crash-tpm");
    for crashes in 1..=3 {
        let phones: Vec<_> = (0..4).map(|_| stage.phone()).collect();
        let before = count(&lab, "KeyUsed");
        thread::scope(|scope| {
            for phone in &phones {
                scope.spawn(|| drop(phone.enrol()));
            }
            lab.wait_for("a signature to be asked for", SOON, || count(&lab, "KeyUsed") > before).unwrap();
            lab.pull_tpm().unwrap();
            lab.put_tpm_back().unwrap();
        });
        stage.serves_again(&stage.phone(), AT_LAST);
        assert_eq!((count(&lab, "TokenReady"), count(&lab, "TokenRefused")), (1 + crashes, 0));
    }
    stage.only_keyd_restarted(0);
    stage.nothing_was_lost();
}

/// A crash within a login leaves unknown whether the PIN was refused. One is not held against it, and neither is a second.
#[test]
fn softhsm_crashes_in_two_logins_and_the_third_is_tried() {
    with_faulty("drill-crash-login", Tokens::SoftHsm, |stage, faulty| {
        for when in [At::Abort, At::AbortAfter] {
            faulty.at("C_Login", 0, when).unwrap();
            if stage.lab.pid("keyd").is_some() {
                stage.lab.kill("keyd").unwrap();
            }
            stage.lab.wait_for("the crash", SOON, || faulty.happened("C_Login")).unwrap();
        }
        stage.serves_again(&stage.phone(), SOON);
        assert_eq!(count(stage.lab, "TokenRefused"), 0);
        stage.nothing_was_lost();
    });
}

/// keyd dies at each step of a generation: before the token has it, when the key is made and nobody knows, at the pairwise test.
/// The rate is measured before with a temporary key, so the second key that is made is the one that stays.
fn in_a_generation(name: &str, tokens: Tokens) {
    let name = format!("drill-kill-{name}");
    let lab = prepared(&name, tokens);
    let faulty = Faulty::before_the_token_of(&lab).unwrap();
    lab.postd(&[]).unwrap();
    lab.start_daemons().unwrap();
    let steps = [
        ("C_GenerateKeyPair", 0, At::Abort),
        ("C_GenerateKeyPair", 0, At::AbortAfter),
        ("C_GenerateKeyPair", 1, At::Abort),
        ("C_GenerateKeyPair", 1, At::AbortAfter),
        ("C_FindObjectsInit", 12, At::Abort),
        ("C_GetAttributeValue", 30, At::Abort),
        ("C_Sign", 0, At::Abort),
        ("C_Sign", 0, At::AbortAfter),
    ];
    let begin = Instant::now();
    let mut crashes = 0;
    for (function, skip, when) in steps {
        faulty.at(function, skip, when).unwrap();
        // Each call goes as far as it comes. Between two keyd starts again, and is tested again.
        let crashed = (0..8).any(|_| {
            let provisioned = lab.casemate(&["provision"]);
            if let Err(refused) = &provisioned {
                println!("{name}: {function} {when} after {skip}: {}", refused.to_string().lines().last().unwrap());
            }
            let crashed = faulty.happened(function);
            lab.wait_for("the broker", SOON, || lab.casemate(&["hsm", "list"]).is_ok()).unwrap();
            crashed || faulty.happened(function)
        });
        crashes += u32::from(crashed);
    }
    assert_eq!((crashes, lab.starts("keyd")), (steps.len() as u32, 1 + steps.len() as u32), "each step was reached");
    lab.wait_for("provisioning", SOON, || lab.casemate(&["provision"]).is_ok()).unwrap();
    println!("{name}: {crashes} crashes in {:.2} s", begin.elapsed().as_secs_f64());
    lab.wait_for_trust_list().unwrap();
    let stage = Stage::of(&lab, &name);
    stage.nothing_was_lost();
    assert!(count(&lab, "KeyAdopted") > 0, "a key that was made and not known of");
}

#[test]
fn keyd_dies_at_each_step_of_a_generation_on_softhsm() {
    in_a_generation("softhsm", Tokens::SoftHsm);
}

#[test]
fn keyd_dies_at_each_step_of_a_generation_on_kryoptic() {
    in_a_generation("kryoptic", Tokens::Kryoptic);
}
