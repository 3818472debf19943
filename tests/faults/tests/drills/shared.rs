//! Somebody else on the same token: another process that logs in, works and logs out, and a library in keyd's own process that does.

use std::{
    fs,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use casemate_faults::At;
use casemate_harness::{Lab, Tokens};

use crate::stage::{SOON, Stage, count, objects, with_faulty};

/// The other process: OpenSC's tool under keyd's uid, with the right PIN.
fn other(lab: &Lab, pin: &str, arguments: &[&str]) {
    let module = lab.module().display().to_string();
    let all = ["--module", &module, "--token-label", "casemate-lab", "--login", "--pin", pin];
    lab.beside_keyd("pkcs11-tool", &[&all[..], arguments].concat()).unwrap();
}

/// Makes, lists and removes keys of its own, each time in a process with a login and a logout.
fn works(lab: &Lab, pin: &str) {
    other(lab, pin, &["--keypairgen", "--key-type", "EC:prime256v1", "--id", "7777", "--label", "stranger"]);
    other(lab, pin, &["--list-objects"]);
    for half in ["privkey", "pubkey"] {
        other(lab, pin, &["--delete-object", "--type", half, "--id", "7777"]);
    }
}

fn two_processes(name: &str, tokens: Tokens) {
    with_faulty(name, tokens, |stage, _| {
        let pin = fs::read_to_string(stage.lab.layout.pin()).unwrap().trim().to_owned();
        let (over, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Acquire) {
                    works(stage.lab, &pin);
                    rounds.fetch_add(1, Ordering::AcqRel);
                }
            });
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| enrol_meanwhile(stage, &rounds)));
            over.store(true, Ordering::Release);
            outcome.unwrap();
        });
        assert_eq!((count(stage.lab, "KeyUseFailed"), count(stage.lab, "TokenAbsent")), (0, 0));
        assert_eq!(objects(stage.lab), (7, 7), "of the other's keys none is left, and of ours all are");
        stage.only_keyd_restarted(0);
        stage.nothing_was_lost();
    });
}

/// Phones enrol one after the other until the other process was through five times.
fn enrol_meanwhile(stage: &Stage<'_>, rounds: &AtomicUsize) {
    let mut phones = 0;
    while rounds.load(Ordering::Acquire) < 5 || phones < 5 {
        stage.enrols().unwrap();
        phones += 1;
    }
    println!("{phones} phones enrolled while the other process worked {} times", rounds.load(Ordering::Acquire));
}

#[test]
fn softhsm_is_used_by_two_processes() {
    two_processes("drill-two-softhsm", Tokens::SoftHsm);
}

#[test]
fn kryoptic_is_used_by_two_processes() {
    two_processes("drill-two-kryoptic", Tokens::Kryoptic);
}

/// A logout concerns the process that asks for it. If something in keyd's own does, keyd logs in again by itself.
fn logged_out(name: &str, tokens: Tokens) {
    with_faulty(name, tokens, |stage, faulty| {
        let phone = stage.phone();
        faulty.at("C_SignInit", 0, At::Logout).unwrap();
        let outcome = phone.enrol();
        assert!(faulty.happened("C_SignInit"), "{outcome:?}");
        println!("{name}: the phone was told {outcome:?}");
        stage.serves_again(&stage.phone(), SOON);
        stage.only_keyd_restarted(0);
        stage.nothing_was_lost();
    });
}

#[test]
fn softhsm_is_logged_out_under_keyd() {
    logged_out("drill-logout-softhsm", Tokens::SoftHsm);
}

#[test]
fn kryoptic_is_logged_out_under_keyd() {
    logged_out("drill-logout-kryoptic", Tokens::Kryoptic);
}
