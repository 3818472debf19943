//! Somebody else on the same token: another process that logs in, works and logs out, and a library in keyd's own process that does.

use std::{
    fs,
    net::{Ipv4Addr, TcpStream},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use casemate_faults::{At, Bus, tool, tpm_port};
use casemate_harness::{Lab, Tokens};

use crate::stage::{AT_LAST, SOON, Stage, count, objects, prepared, start, with_bus, with_faulty};

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
        beside(stage, || works(stage.lab, &pin));
    });
}

/// Phones enrol while the other process `works` again and again, and neither notices the other.
fn beside(stage: &Stage<'_>, works: impl Fn() + Sync) {
    let (over, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Acquire) {
                works();
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

/// Another process at the same TPM: sessions, random numbers, and something of its own that it writes, reads and removes.
fn works_at_the_tpm(bus: &Bus, folder: &str) {
    let run = |program: &str, arguments: &[&str]| bus.tool(program, arguments).unwrap();
    let (session, content) = (format!("{folder}/session"), format!("{folder}/content"));
    run("tpm2_startauthsession", &["-S", &session]);
    run("tpm2_getrandom", &["-o", &content, "8"]);
    run("tpm2_nvdefine", &["0x1500017", "-C", "o", "-s", "8", "-a", "ownerread|ownerwrite"]);
    run("tpm2_nvwrite", &["0x1500017", "-C", "o", "-i", &content]);
    run("tpm2_nvread", &["0x1500017", "-C", "o"]);
    run("tpm2_nvundefine", &["0x1500017", "-C", "o"]);
    run("tpm2_flushcontext", &[&session]);
}

#[test]
fn a_tpm_is_used_by_two_processes_command_by_command() {
    with_bus("drill-two-tpm", |stage, bus| {
        let folder = stage.lab.layout.root.display().to_string();
        beside(stage, || works_at_the_tpm(bus, &folder));
    });
}

/// Without a resource manager any process can flush what another has loaded: sessions are renewed and nobody notices; without its
/// storage key keyd connects anew, and one phone is refused.
#[test]
fn another_process_flushes_what_keyd_has_in_a_tpm() {
    with_bus("drill-flush-tpm", |stage, bus| {
        bus.tool("tpm2_flushcontext", &["-l"]).unwrap();
        stage.enrols().unwrap();
        assert_eq!((count(stage.lab, "KeyUseFailed"), count(stage.lab, "TokenAbsent")), (0, 0));
        let phone = stage.phone();
        // The tool lists what is loaded and then flushes it; what keyd flushed in between is an error, and it lists anew.
        assert!((0..5).any(|_| bus.tool("tpm2_flushcontext", &["-t"]).is_ok()));
        println!("drill-flush-tpm: the phone was told {:?}", phone.enrol().map(drop));
        stage.serves_again(&stage.phone(), SOON);
        assert!(count(stage.lab, "TokenAbsent") <= 1 && count(stage.lab, "TokenRefused") == 0);
        stage.only_keyd_restarted(0);
        stage.nothing_was_lost();
    });
}

/// swtpm serves one connection at a time, and tpm2-tss makes one for each command, so that processes take turns. One that keeps its
/// connection keeps everybody else out: keyd waits for it to go.
#[test]
fn another_process_keeps_its_connection_to_a_tpm() {
    let lab = prepared("drill-kept-tpm", Tokens::Tpm);
    start(&lab);
    let stage = Stage::of(&lab, "drill-kept-tpm");
    let port = tpm_port(&lab).unwrap();
    tool(port, "tpm2_getrandom", &["--hex", "8"]).unwrap();
    let phone = stage.phone();
    let other = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    assert!(phone.enrol().is_err());
    let told = lab.wait_for_events("TokenAbsent", 1).unwrap();
    println!("drill-kept-tpm: {}", told[0]["MESSAGE"]);
    drop(other);
    stage.serves_again(&phone, AT_LAST);
    assert_eq!(count(&lab, "TokenRefused"), 0);
    stage.only_keyd_restarted(0);
    stage.nothing_was_lost();
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
