//! The keys in each kind of token, and in two at once: a phone enrols, and each key is where role-tokens.toml says.
#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use std::{fs, time::Duration};

use casemate_harness::{Lab, LabError, LabSettings, Tokens};
use serde_json::{Value, json};

const PHONE: &str = "SEP001122334455";

const PKCS11: &str = "pkcs11:token=casemate-lab";

/// The roles, as the console shows them.
const ROLES: [&str; 7] = ["ITLRecovery", "CallManager", "CallManager-ECDSA", "CAPF", "TVS", "tomcat", "tomcat-ECDSA"];

fn settings(name: &str, tokens: Tokens) -> LabSettings {
    LabSettings { tokens, ..LabSettings::for_test(name) }
}

fn listed(lab: &Lab) -> Value {
    serde_json::from_str(&lab.casemate(&["hsm", "list", "--json"]).unwrap()).unwrap()
}

fn token<'a>(listed: &'a Value, name: &str) -> &'a Value {
    let tokens = listed["tokens"].as_array().unwrap();
    tokens.iter().find(|token| token["name"] == name).unwrap_or_else(|| panic!("{name} is not in {listed}"))
}

fn enrol(lab: &Lab, phone: &str) {
    lab.add_phone(phone, &["--string", "4711"]).unwrap();
    let tomcat = lab.published("certmgr", "tomcat.pem");
    lab.phone(phone).play(&["--string", "4711", "--ask-about", tomcat.to_str().unwrap()]).unwrap();
    assert!(lab.phone(phone).folder().join("lsc.pem").exists());
}

/// A phone enrols at a lab whose roles are on the tokens that `place` gives them.
fn a_phone_enrols(name: &str, tokens: Tokens, maker: &[(&str, &str)], place: fn(&str) -> &str) -> Value {
    let lab = Lab::start(settings(name, tokens)).unwrap();
    enrol(&lab, PHONE);
    let listed = listed(&lab);
    assert_eq!((&listed["state"], listed["tokens"].as_array().unwrap().len()), (&json!("serving"), maker.len()));
    for role in ROLES {
        let token = token(&listed, place(role));
        assert!(token["roles"].as_array().unwrap().contains(&json!(role)), "{role}: {token}");
        let key = listed["keys"].as_array().unwrap().iter().find(|key| key["role"] == role).unwrap();
        assert_eq!((&key["token"], &key["on-token"]), (&token["info"]["serial"], &json!(true)), "{role}");
    }
    for (name, maker) in maker {
        let info = &token(&listed, name)["info"];
        assert_eq!((&info["login"], &token(&listed, name)["state"]), (&json!("user"), &json!("serving")));
        let said = format!("{} {} {}", info["manufacturer"], info["model"], info["library"]).to_lowercase();
        assert!(said.contains(maker), "{said}");
        let text = lab.casemate(&["hsm", "list"]).unwrap();
        assert!(text.contains(&format!("named {name}\n")) && text.contains(info["serial"].as_str().unwrap()), "{text}");
    }
    listed
}

/// RSA-2048 and P-384 were measured on this token, and RSA at no less than `load`.
fn was_measured(listed: &Value, name: &str, load: u64) {
    let rates = token(listed, name)["rates"].as_array().unwrap();
    println!("{name}: {rates:?}");
    let algorithms: Vec<_> = rates.iter().map(|rate| rate["algorithm"].as_str().unwrap()).collect();
    assert_eq!(algorithms, ["rsa-2048", "p-384"]);
    assert!(rates.iter().all(|rate| rate["signatures-per-second"].as_u64().unwrap() >= load), "{rates:?}");
}

#[test]
fn softhsm_holds_every_key() {
    let listed = a_phone_enrols("tokens-softhsm", Tokens::SoftHsm, &[(PKCS11, "softhsm")], |_| PKCS11);
    was_measured(&listed, PKCS11, 20);
}

#[test]
fn kryoptic_holds_every_key() {
    let listed = a_phone_enrols("tokens-kryoptic", Tokens::Kryoptic, &[(PKCS11, "kryoptic")], |_| PKCS11);
    was_measured(&listed, PKCS11, 20);
}

/// What may be backed up is in SoftHSM, for tpm2-pkcs11 lets no key leave it; and it makes no temporary keys, so nothing measured it.
#[test]
fn tpm2_pkcs11_holds_every_key_but_the_one_that_may_be_backed_up() {
    const SOFTHSM: &str = "pkcs11:token=casemate-lab?module-path=%2Fusr%2Flib%2Fsofthsm%2Flibsofthsm2.so";
    let place = |role: &str| if role == "ITLRecovery" { SOFTHSM } else { PKCS11 };
    let makers = [(PKCS11, "tpm2"), (SOFTHSM, "softhsm")];
    let listed = a_phone_enrols("tokens-tpm2-pkcs11", Tokens::Tpm2Pkcs11, &makers, place);
    assert_eq!(token(&listed, PKCS11)["rates"], json!([]));
    assert_eq!(token(&listed, SOFTHSM)["roles"], json!(["ITLRecovery"]));
}

#[test]
fn a_tpm_holds_every_key() {
    let listed = a_phone_enrols("tokens-tpm", Tokens::Tpm, &[("tpm", "tpm2-tss")], |_| "tpm");
    was_measured(&listed, "tpm", 1);
}

#[test]
fn itlrecovery_is_in_the_tpm_and_the_rest_in_softhsm() {
    let place = |role: &str| if role == "ITLRecovery" { "tpm" } else { PKCS11 };
    let makers = [("tpm", "tpm2-tss"), (PKCS11, "softhsm")];
    let listed = a_phone_enrols("tokens-split", Tokens::Split, &makers, place);
    was_measured(&listed, PKCS11, 20);
    assert_eq!(token(&listed, "tpm")["rates"].as_array().unwrap().len(), 1, "{listed}");
}

#[test]
fn a_tpm_that_is_away_stops_its_role_alone_and_comes_back() {
    let lab = Lab::start(settings("tokens-pulled", Tokens::Split)).unwrap();
    lab.pull_tpm().unwrap();
    let status = listed(&lab);
    assert_eq!((&token(&status, "tpm")["info"], &token(&status, PKCS11)["state"]), (&Value::Null, &json!("serving")));
    assert!(status["state"]["waiting"].as_str().unwrap().starts_with("tpm: "), "{status}");
    enrol(&lab, PHONE);
    lab.wait_for_events("TokenAbsent", 1).unwrap();
    lab.put_tpm_back().unwrap();
    lab.wait_for("the TPM to serve again", Duration::from_secs(60), || listed(&lab)["state"] == "serving").unwrap();
    assert_eq!(lab.starts("keyd"), 1, "keyd lived through it");
    assert!(listed(&lab)["keys"].as_array().unwrap().iter().all(|key| key["on-token"] == true));
}

/// keyd starts and serves while one of its tokens is away.
#[test]
fn keyd_listens_with_one_token_of_two() {
    let lab = Lab::start(settings("tokens-late", Tokens::Split)).unwrap();
    lab.stop_daemon("keyd").unwrap();
    lab.pull_tpm().unwrap();
    lab.start_daemon("keyd").unwrap();
    enrol(&lab, PHONE);
    lab.put_tpm_back().unwrap();
    lab.wait_for("the TPM to serve", Duration::from_secs(60), || listed(&lab)["state"] == "serving").unwrap();
}

fn change(lab: &Lab, from: &str, to: &str) {
    let text = fs::read_to_string(lab.role_tokens()).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(lab.role_tokens(), text.replace(from, to)).unwrap();
}

fn provision(lab: &Lab) -> String {
    let Err(LabError::Failed { output, .. }) = lab.casemate(&["provision"]) else { panic!("provisioned") };
    output
}

#[test]
fn a_role_that_is_put_elsewhere_is_refused_as_a_re_key_and_serves_when_it_is_put_back() {
    let lab = Lab::start(settings("tokens-moved", Tokens::Split)).unwrap();
    let before = listed(&lab)["keys"].clone();
    lab.stop_daemon("keyd").unwrap();
    change(&lab, "ITLRecovery = \"tpm\"\n", "TVS = \"tpm\"\nITLRecovery = \"pkcs11:token=casemate-lab\"\n");
    lab.start_daemon("keyd").unwrap();
    let output = provision(&lab);
    assert!(output.contains("planned re-key") && output.contains(PKCS11), "{output}");
    let moved = lab.wait_for_events("RoleMoveRefused", 2).unwrap();
    assert!(moved.iter().any(|event| event["CASEMATE_ROLE"] == "ITLRecovery" && event["CASEMATE_OTHER"] == PKCS11));
    lab.stop_daemon("keyd").unwrap();
    change(&lab, "TVS = \"tpm\"\nITLRecovery = \"pkcs11:token=casemate-lab\"\n", "ITLRecovery = \"tpm\"\n");
    lab.start_daemon("keyd").unwrap();
    lab.casemate(&["provision"]).unwrap();
    assert_eq!(listed(&lab)["keys"], before, "the same keys, each where it was");
}

#[test]
fn provisioning_stops_at_a_token_that_is_too_slow_and_prints_both_rates() {
    let lab = Lab::prepare(settings("tokens-slow", Tokens::Split)).unwrap();
    change(&lab, "ITLRecovery = 1\n", "ITLRecovery = 1000000\n");
    lab.postd(&[]).unwrap();
    lab.start_daemons().unwrap();
    let output = provision(&lab);
    assert!(output.contains("needs 1000000 signatures/s"), "{output}");
    let slow = lab.wait_for_events("TokenTooSlow", 1).unwrap();
    let measured = slow[0]["CASEMATE_MEASURED"].as_str().unwrap();
    assert!(measured.ends_with(" signatures/s") && output.contains(measured), "{measured}: {output}");
    assert_eq!(lab.audited("KeyGenerated").unwrap(), [] as [Value; 0]);
    lab.stop_daemon("keyd").unwrap();
    change(&lab, "ITLRecovery = 1000000\n", "ITLRecovery = 1\n");
    lab.start_daemon("keyd").unwrap();
    lab.casemate(&["provision"]).unwrap();
}

#[test]
fn what_is_wrong_in_role_tokens_stops_keyd_with_its_reason() {
    let lab = Lab::prepare(settings("tokens-misspelt", Tokens::SoftHsm)).unwrap();
    change(&lab, "pkcs11:token=casemate-lab", "pkcs11:tokn=casemate-lab");
    lab.postd(&[]).unwrap();
    assert!(matches!(lab.start_daemon("keyd"), Err(LabError::NotReady { .. })));
    let refused = lab.wait_for_events("ServiceRefused", 1).unwrap();
    let reason = refused[0]["CASEMATE_REASON"].as_str().unwrap();
    assert!(reason.contains("role-tokens.toml") && reason.contains("\"tokn\" is no attribute"), "{reason}");
}

/// The blobs are lost: no token is made in their place, and nothing is lost once they are restored.
#[test]
fn a_tpm_whose_keys_are_on_record_gets_no_second_token() {
    let lab = Lab::start(settings("tokens-lost", Tokens::Split)).unwrap();
    assert_eq!(lab.audited("TokenInitialized").unwrap().len(), 1, "at the first start");
    lab.stop_daemon("keyd").unwrap();
    let folder = lab.layout.state().join("keyd/tpm");
    let drawer = lab.layout.root.join("drawer");
    fs::rename(&folder, &drawer).unwrap();
    assert!(matches!(lab.start_daemon("keyd"), Err(LabError::NotReady { .. })));
    let refused = lab.wait_for_events("ServiceRefused", 1).unwrap();
    let reason = refused[0]["CASEMATE_REASON"].as_str().unwrap();
    assert!(reason.contains("keyd/tpm holds no token; restore it"), "{reason}");
    lab.stop_daemon("keyd").unwrap();
    let _ = fs::remove_dir_all(&folder);
    fs::rename(&drawer, &folder).unwrap();
    lab.start_daemon("keyd").unwrap();
    lab.casemate(&["provision"]).unwrap();
    assert_eq!(lab.audited("TokenInitialized").unwrap().len(), 1);
}

#[test]
fn a_wrong_pin_of_one_token_is_nothing_to_the_other() {
    let lab = Lab::start(settings("tokens-pin", Tokens::Split)).unwrap();
    let path = lab.layout.tpm_pin();
    let right = fs::read_to_string(&path).unwrap();
    let write = |pin: &str| {
        // A new file each time, as an editor writes one.
        fs::remove_file(&path).unwrap();
        fs::write(&path, pin).unwrap();
        lab.layout.own(&path, 0o400, Some(lab.layout.owner.uid("keyd"))).unwrap();
    };
    lab.stop_daemon("keyd").unwrap();
    write("00000000");
    lab.start_daemon("keyd").unwrap();
    let status = listed(&lab);
    assert!(token(&status, "tpm")["state"]["out-of-service"].as_str().unwrap().contains("PIN"), "{status}");
    assert_eq!(token(&status, PKCS11)["state"], "serving");
    enrol(&lab, PHONE);
    assert_eq!(lab.audited("TokenRefused").unwrap().len(), 1, "it is tried once");
    write(&right);
    lab.wait_for("the TPM to serve again", Duration::from_secs(60), || listed(&lab)["state"] == "serving").unwrap();
}
