//! Modules that crash, end, hang or lie in every place, and tokens that cannot be opened: it is told, and nothing is left but what
//! is named.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::buyer::Buyer;

/// The process in which the module is, once it is there.
pub(crate) fn child_of(console: u32) -> u32 {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let children = fs::read_to_string(format!("/proc/{console}/task/{console}/children")).unwrap();
        if let Some(child) = children.split_whitespace().next() {
            return child.parse().unwrap();
        }
        assert!(Instant::now() < deadline, "no child of {console}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_module_that_crashes_takes_its_own_process_along_and_its_keys_are_removed() {
    let buyer = Buyer::faulty();
    buyer.order("at-C_GenerateKeyPair", "abort-after 3");
    let checked = buyer.check(&[]);
    let said = checked.failed(4);
    assert!(said.contains("crashed its process with SIGABRT, while this was tried: "), "{said}");
    assert!(said.contains("its keys are removed from the token; do not use the module"), "{said}");
    assert_eq!(buyer.keys(), [] as [String; 0]);
}

#[test]
fn a_module_that_ends_its_process_without_a_fault_is_no_sound_one() {
    let buyer = Buyer::faulty();
    buyer.order("at-C_GetAttributeValue", "exit 10");
    let checked = buyer.check(&["--json"]);
    let said = checked.failed(4);
    assert!(said.contains("ended its process (exit status: 0)"), "{said}");
    assert_eq!(buyer.keys(), [] as [String; 0]);
}

#[test]
fn a_module_that_hangs_is_given_up_after_the_time_that_is_set() {
    let buyer = Buyer::faulty();
    buyer.write_settings("check-step-timeout-ms = 4000\n");
    buyer.order("at-C_DestroyObject", "hang 0");
    let begin = Instant::now();
    let checked = buyer.check(&[]);
    let said = checked.failed(4);
    assert!(said.contains("hung, and its process was killed after 4 s"), "{said}");
    assert!(said.contains("its keys are removed from the token"), "{said}");
    assert!(begin.elapsed() < Duration::from_secs(60));
    assert_eq!(buyer.keys(), [] as [String; 0]);
}

#[test]
fn a_token_that_goes_away_leaves_keys_and_that_is_told() {
    let buyer = Buyer::faulty();
    buyer.order("at-C_GenerateKeyPair", "remove-after 3");
    let checked = buyer.check(&[]);
    let said = checked.failed(1);
    assert!(said.contains("is absent") && said.contains("its keys may be left on the token"), "{said}");
    assert!(said.contains("remove what has the label \"casemate hsm check "), "{said}");
    // It comes back with them, and the next check takes them away.
    buyer.withdraw("absent");
    assert!(buyer.keys().iter().any(|label| said.contains(&format!("{label:?} by hand"))), "{said}");
    assert_eq!(buyer.check(&[]).code, Some(0));
    assert_eq!(buyer.keys(), [] as [String; 0]);
}

#[test]
fn a_module_that_lies_carries_no_role() {
    let buyer = Buyer::faulty();
    buyer.order("wrong", "");
    let checked = buyer.check(&["--json"]);
    let report = checked.report();
    assert_eq!(
        (checked.code, &report["verdict"], &report["left"]),
        (Some(4), &json!("wrong"), &json!(0)),
        "{report:#}"
    );
    assert!(report["algorithms"].as_array().unwrap().iter().all(|tried| tried["is-wrong"] == true), "{report:#}");
    assert!(report["roles"].as_array().unwrap().iter().all(|role| role["carried"] == false), "{report:#}");
    assert_eq!(buyer.keys(), [] as [String; 0]);
}

#[test]
fn a_wrong_pin_is_tried_once_and_never_again() {
    let buyer = Buyer::softhsm();
    assert!(!buyer.flags().contains("count low"), "{}", buyer.flags());
    buyer.write_pin("000000");
    let checked = buyer.check(&[]);
    let said = checked.failed(1);
    assert!(said.contains("refused the PIN") && said.contains("no key was made"), "{said}");
    assert!(buyer.flags().contains("count low") && !buyer.flags().contains("final"), "{}", buyer.flags());
    let checked = buyer.check(&[]);
    assert!(checked.failed(1).contains("this PIN was refused by token"), "{}", checked.err);
    buyer.write_pin(crate::buyer::PIN);
    assert_eq!(buyer.check(&[]).code, Some(0));
}

#[test]
fn what_is_no_module_and_what_is_no_token_are_refused_in_one_line() {
    let mut buyer = Buyer::softhsm();
    let checked = buyer.check(&["--token", "other"]);
    let said = checked.failed(1);
    assert!(said.contains("no token has this label; there are \"buyer\""), "{said}");
    let text = buyer.path("etc/role-tokens.toml");
    for (path, why) in
        [(Path::new("/nonexistent.so"), "no such file"), (Path::new("/dev/null"), ""), (&text, "invalid elf header")]
    {
        buyer.module = path.into();
        let checked = buyer.check(&[]);
        let said = checked.failed(1);
        assert!(
            said.contains("is no PKCS#11 module that can be loaded") && said.to_lowercase().contains(why),
            "{said}"
        );
    }
    // A library that is none of PKCS#11.
    buyer.module = "/lib/x86_64-linux-gnu/libc.so.6".into();
    let checked = buyer.check(&[]);
    assert!(checked.failed(1).contains("C_GetFunctionList"), "{}", checked.err);
}

/// Whoever kills the command has not to clean up after it.
#[test]
fn a_check_whose_console_is_killed_removes_its_keys_by_itself() {
    let buyer = Buyer::softhsm();
    let mut command = buyer.command(&[]);
    let mut console = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut errors = BufReader::new(console.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("the token describes itself") {
        line.clear();
        assert_ne!(errors.read_line(&mut line).unwrap(), 0, "the suite never began");
    }
    let child = child_of(console.id());
    assert!(!buyer.keys().is_empty());
    console.kill().unwrap();
    console.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while Path::new(&format!("/proc/{child}/exe")).exists() {
        assert!(Instant::now() < deadline, "the child lives on");
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(buyer.keys(), [] as [String; 0]);
}
