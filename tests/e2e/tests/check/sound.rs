//! Modules that hold what they promise: everything is tried on them, and nothing is left.

use std::process::Stdio;

use casemate_hsm_swtpm::{ResourceManager, Swtpm};
use serde_json::{Value, json};

use crate::buyer::{Buyer, Checked, PIN};

/// Sums a number over every set of vectors for which a judge has one.
fn sum(report: &Value, judge: &str, number: &str) -> u64 {
    let sets = report["vectors"].as_array().unwrap().iter();
    sets.filter_map(|set| if judge.is_empty() { set[number].as_u64() } else { set[judge][number].as_u64() }).sum()
}

/// Roles that the token cannot carry, and why.
fn lacking(report: &Value) -> Vec<(&str, &str)> {
    let roles = report["roles"].as_array().unwrap();
    assert_eq!(roles.len(), 7);
    let lacking = roles.iter().filter(|role| role["carried"] == false);
    lacking.map(|role| (role["role"].as_str().unwrap(), role["reasons"][0].as_str().unwrap())).collect()
}

fn found(checked: &Checked) -> Value {
    let report = checked.report();
    for tried in report["algorithms"].as_array().unwrap() {
        println!("{} {}", tried["algorithm"], tried["rate"]);
    }
    println!("{}", report["quirks"]);
    let failed: Vec<_> = report["cases"].as_array().unwrap().iter().filter(|case| !case["failure"].is_null()).collect();
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(
        (report["left"].as_u64(), checked.err.contains("a PIN that the token refuses is tried once")),
        (Some(0), true)
    );
    report
}

/// A module that can do all, asked for all: no vector and no algorithm is passed over.
fn does_everything(buyer: &Buyer) {
    buyer.make_key("the buyer's own");
    let before = buyer.keys();
    let checked = buyer.check(&["--all", "--json"]);
    let report = found(&checked);
    assert_eq!((checked.code, &report["verdict"]), (Some(0), &json!("carries-all")), "{report:#}");
    assert_eq!(lacking(&report), []);
    let algorithms: Vec<_> = report["algorithms"].as_array().unwrap().iter().map(|tried| &tried["algorithm"]).collect();
    assert_eq!(algorithms, ["rsa-2048", "rsa-3072", "rsa-4096", "p-256", "p-384", "p-521"]);
    assert!(
        report["algorithms"].as_array().unwrap().iter().all(|tried| tried["rate"]["signatures"].as_u64() > Some(0))
    );
    // Two cases an algorithm, and those that concern every key.
    assert_eq!(report["cases"].as_array().unwrap().len(), 2 * 6 + 7);
    let (all, casemate) = (sum(&report, "", "vectors"), sum(&report, "casemate", "tried"));
    let der: u64 = report["vectors"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|set| set["token"].is_null())
        .map(|set| set["vectors"].as_u64().unwrap())
        .sum();
    assert!(casemate == all && all > 5_000 && der > 1_000, "{casemate} of {all}, {der} of them in DER");
    assert_eq!(sum(&report, "token", "tried"), all - der, "{:#}", report["vectors"]);
    assert!(report["token"]["mechanisms"].as_array().unwrap().contains(&json!("CKM_RSA_PKCS_PSS")), "{report:#}");
    assert_eq!(buyer.keys(), before, "keys of somebody else stay, and no other does");
}

#[test]
fn softhsm_carries_every_role() {
    does_everything(&Buyer::softhsm());
}

#[test]
fn kryoptic_carries_every_role() {
    does_everything(&Buyer::kryoptic());
}

/// It makes no key that may be wrapped and none that cannot decrypt, cannot be measured, and takes signatures whose salt has another
/// length: which is wrong, and nothing to the roles, for no part of Casemate has a token verify.
#[test]
fn tpm2_pkcs11_carries_roles_without_backup_and_without_a_load() {
    let state = tempfile::tempdir().unwrap();
    let tpm = Swtpm::start(state.path()).unwrap();
    let manager = ResourceManager::start(&tpm).unwrap();
    let buyer = Buyer::tpm2_pkcs11(&manager);
    buyer.write_loads(|role| if role == "TVS" { 20 } else { 0 });
    let checked = buyer.check(&["--json"]);
    let report = found(&checked);
    assert_eq!((checked.code, &report["verdict"]), (Some(4), &json!("wrong")), "{report:#}");
    let [("ITLRecovery", backup), ("TVS", load)] = lacking(&report)[..] else { panic!("{report:#}") };
    assert!(backup.contains("backup \"wrapped\"") && load.contains("a load of 0"), "{backup}; {load}");
    assert_eq!(report["settings"], json!(["sign-only = false"]));
    for set in report["vectors"].as_array().unwrap() {
        let (name, token) = (set["set"].as_str().unwrap(), &set["token"]);
        let is_tried = name.contains("2048");
        assert!(is_tried || token.is_null() || token["untried"].as_str().is_some(), "{set}");
        assert!(!is_tried || token["tried"] == set["vectors"] && token["wrongly-refused"] == json!([]), "{set}");
        assert_eq!(
            is_tried && name.starts_with("RsaPss"),
            token["wrongly-taken"].as_array().is_some_and(|all| !all.is_empty()),
            "{set}"
        );
    }
    assert_eq!(buyer.keys(), [] as [String; 0]);
}

#[test]
fn the_text_ends_with_what_it_comes_to_and_names_what_is_lacking() {
    let buyer = Buyer::softhsm();
    buyer.write_loads(|role| if role == "CAPF" { 1_000_000 } else { 1 });
    let checked = buyer.check(&[]);
    assert_eq!(checked.code, Some(3), "{}", checked.err);
    let ends = "\nevery answer was right; it can carry every role but CAPF; no key of the check is left on the token\n";
    assert!(checked.out.ends_with(ends), "{}", checked.out);
    let capf = checked.out.lines().find(|line| line.trim_start().starts_with("CAPF")).unwrap();
    assert!(capf.contains("1000000 signatures/s: NO: it signs ") && capf.ends_with("its load is 1000000"), "{capf}");
    // What was not tried is said, set for set.
    let untried = checked.out.lines().find(|line| line.contains("Rsa3072Sha256 ")).unwrap();
    assert!(untried.contains(" 0 of 259, no RSA-3072 key was made on this token; 259 of 259"), "{untried}");
    assert!(checked.err.trim_end().ends_with("cannot carry every role; see above"), "{}", checked.err);
}

#[test]
fn a_pin_comes_from_standard_input_and_is_in_no_argument() {
    let buyer = Buyer::softhsm();
    let mut command = buyer.casemate(&["--json"]);
    let mut console = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut console.stdin.take().unwrap(), format!("{PIN}\n").as_bytes()).unwrap();
    let id = console.id();
    let child = crate::broken::child_of(id);
    for process in [id, child] {
        for file in ["cmdline", "environ"] {
            // Nobody but root reads the environment of a process that must not be dumped.
            let text = std::fs::read(format!("/proc/{process}/{file}")).unwrap_or_default();
            assert!(!String::from_utf8_lossy(&text).contains(PIN), "{file} of {process}");
        }
    }
    let checked = Buyer::ended(console.wait_with_output().unwrap());
    assert_eq!(checked.code, Some(0), "{}", checked.err);
    found(&checked);
}
