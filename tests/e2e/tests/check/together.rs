//! Several checks on one token, and what one leaves that died: each removes its own keys and those of the dead.

use std::{
    fs,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    broken::child_of,
    buyer::{Buyer, Checked, SOFTHSM},
};

/// A check that stands still within its module, with keys on the token; and the process in which the module is.
fn stuck(buyer: &Buyer) -> (Child, u32) {
    buyer.order("at-C_DestroyObject", "hang 0");
    let console = buyer.command(&[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let child = child_of(console.id());
    let deadline = Instant::now() + Duration::from_secs(60);
    while !buyer.path("orders/done-C_DestroyObject").exists() {
        assert!(Instant::now() < deadline, "it was never asked to remove an object");
        thread::sleep(Duration::from_millis(20));
    }
    (console, child)
}

fn kill(process: u32) {
    let id = nix::unistd::Pid::from_raw(process.try_into().unwrap());
    nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGKILL).unwrap();
}

fn passes(checked: &Checked) -> serde_json::Value {
    assert_eq!(checked.code, Some(0), "{}{}", checked.out, checked.err);
    let report = checked.report();
    assert_eq!(report["left"], 0);
    report
}

#[test]
fn a_check_leaves_the_keys_of_one_that_goes_on() {
    let mut buyer = Buyer::faulty();
    buyer.make_key("the buyer's own");
    let own = buyer.keys();
    let (mut console, child) = stuck(&buyer);
    let before = buyer.keys();
    assert!(before.len() > own.len());
    buyer.module = SOFTHSM.into();
    let report = passes(&buyer.check(&["--json"]));
    assert_eq!(report["strange"], json!({}));
    assert_eq!(buyer.keys(), before, "not one of the other's is gone, and none of its own is left");
    // It dies, and its console sees to it.
    kill(child);
    console.wait().unwrap();
    assert_eq!(buyer.keys(), own);
}

/// Nobody is left to clean up. The next check on this machine knows that it died; one on another machine cannot know.
#[test]
fn what_a_dead_check_left_is_removed_by_the_next_one_of_its_machine_and_told_of_by_others() {
    let mut buyer = Buyer::faulty();
    let (mut console, child) = stuck(&buyer);
    console.kill().unwrap();
    console.wait().unwrap();
    kill(child);
    buyer.module = SOFTHSM.into();
    let left = buyer.keys();
    assert!(left.iter().all(|label| *label == left[0]) && left[0].starts_with("casemate hsm check "), "{left:?}");
    let (here, away) = (buyer.path("state"), buyer.path("state-of-the-other"));
    fs::rename(&here, &away).unwrap();
    let report = passes(&buyer.check(&["--json"]));
    assert_eq!(report["strange"], json!({ left[0].as_str(): left.len() }), "{report:#}");
    assert_eq!(buyer.keys(), left);
    let checked = buyer.check(&[]);
    let told = format!("{} with the label {:?}", left.len(), left[0]);
    assert!(checked.out.contains(&told) && checked.out.contains("unless another machine"), "{}", checked.out);
    fs::remove_dir_all(&here).unwrap();
    fs::rename(&away, &here).unwrap();
    assert_eq!(passes(&buyer.check(&["--json"]))["strange"], json!({}));
    assert_eq!(buyer.keys(), [] as [String; 0]);
    let files = fs::read_dir(here.join("hsm-check")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(!files.into_iter().any(|name| name.to_string_lossy().starts_with("run-")));
}

#[test]
fn two_checks_at_once_both_find_what_one_alone_finds() {
    let buyer = Buyer::softhsm();
    let start = || buyer.command(&["--json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let both = [start(), start()];
    let both = both.map(|console| thread::spawn(|| Buyer::ended(console.wait_with_output().unwrap())));
    for checked in both {
        let report = passes(&checked.join().unwrap());
        assert_eq!((&report["verdict"], &report["strange"]), (&json!("carries-all"), &json!({})), "{report:#}");
    }
    assert_eq!(buyer.keys(), [] as [String; 0]);
}
