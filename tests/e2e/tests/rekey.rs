//! Re-keys end to end: roles move between real tokens, and a simulated phone that keeps its state follows, or does not where the
//! plan says so.
#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use casemate_harness::{Lab, LabError, LabSettings, TOKEN_MODULE, Tokens};
use casemate_phonefile::{Limits, SignedFile};
use serde_json::{Value, json};

const PHONE: &str = "SEP001122334455";
const LIST: &str = "ITLFile.tlv";
const PKCS11: &str = "pkcs11:token=casemate-lab";

fn openssl(arguments: &[&str]) -> String {
    let output = Command::new("openssl").args(arguments).output().expect("openssl is installed by .ci/install");
    let text = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&text));
    String::from_utf8_lossy(&text).into_owned()
}

/// Writes other roles' tokens, and has keyd read them.
fn put_roles(lab: &Lab, from: &str, to: &str) {
    let text = fs::read_to_string(lab.role_tokens()).unwrap();
    assert!(text.contains(from), "{text}");
    lab.stop_daemon("keyd").unwrap();
    fs::write(lab.role_tokens(), text.replacen(from, to, 1)).unwrap();
    lab.start_daemon("keyd").unwrap();
}

/// A lab that makes its keys where its `role-tokens.toml` says after `change`.
fn start(lab: &Lab, change: impl FnOnce(String) -> String) {
    let text = fs::read_to_string(lab.role_tokens()).unwrap();
    fs::write(lab.role_tokens(), change(text)).unwrap();
    lab.postd(&[]).unwrap();
    lab.start_daemons().unwrap();
    lab.casemate(&["provision"]).unwrap();
    lab.wait_for_trust_list().unwrap();
}

fn json_of(lab: &Lab, arguments: &[&str]) -> Value {
    serde_json::from_str(&lab.casemate(&[arguments, &["--json"]].concat()).unwrap()).unwrap()
}

fn plan(lab: &Lab, role: &str) -> Value {
    json_of(lab, &["identity", "rekey", role, "--plan"])
}

fn rekey(lab: &Lab, role: &str) -> Value {
    json_of(lab, &["identity", "rekey", role, "--yes"])
}

fn refused(lab: &Lab, arguments: &[&str]) -> String {
    let Err(LabError::Failed { output, .. }) = lab.casemate(arguments) else { panic!("{arguments:?} was not refused") };
    output
}

/// A phone that enrolled, and holds list, configuration and certificate.
fn enrolled(lab: &Lab, name: &str) {
    lab.add_phone(name, &["--string", "4711"]).unwrap();
    let played = lab.phone(name).play(&["--string", "4711"]).unwrap();
    assert!(played.contains("taken on trust"), "{played}");
}

/// What the phone said of its list. It fetched its configuration, which it verifies, and checked its certificate.
fn follows(lab: &Lab, name: &str) -> String {
    let played = lab.phone(name).play(&[]).unwrap();
    assert!(played.contains("checked"), "{played}");
    played.lines().find(|line| line.starts_with("trust list")).unwrap().to_owned()
}

/// That the phone takes a list that was published just now: tftp looks for a new one four times a second.
fn follows_soon(lab: &Lab, name: &str) {
    let takes = || follows(lab, name).contains("signed by a known SAST");
    lab.wait_for("the phone to take the new list", Duration::from_secs(10), takes).unwrap();
}

fn effect(plan: &Value, about: &str) -> bool {
    plan["effects"].as_array().unwrap().iter().any(|effect| effect.as_str().unwrap().contains(about))
}

/// Waits until every file in the folder is of today's CallManager: they are signed after the list.
fn wait_for_files(lab: &Lab, before: &[u8], name: &str) {
    let file = lab.published("ctlprovider", &format!("{name}.cnf.xml.sgn"));
    lab.wait_for("files signed anew", Duration::from_secs(10), || fs::read(&file).is_ok_and(|now| now != before))
        .unwrap();
}

#[test]
fn both_signers_move_one_after_the_other_and_the_phones_follow_as_the_plan_says() {
    let lab = Lab::prepare(LabSettings { tokens: Tokens::Split, ..LabSettings::for_test("rekey-signers") }).unwrap();
    start(&lab, |text| text.replace("ITLRecovery = \"tpm\"\n", "TVS = \"tpm\"\n").replace("TVS = 20\n", "TVS = 0\n"));
    let (on, off, lost) = (PHONE, "SEP001122334456", "SEP001122334457");
    for phone in [on, off, lost] {
        enrolled(&lab, phone);
    }
    let softhsm = json_of(&lab, &["hsm", "list"])["keys"][0]["token"].clone();

    // The line names the TPM now: nothing moves, and the old key signs on.
    put_roles(&lab, "TVS = \"tpm\"\n", "TVS = \"tpm\"\nITLRecovery = \"tpm\"\n");
    lab.wait_for_events("RoleMoveRefused", 1).unwrap();
    let before = json_of(&lab, &["hsm", "list"]);
    let list = fs::read(lab.published("ctlprovider", LIST)).unwrap();
    let shown = plan(&lab, "ITLRecovery");
    assert_eq!((&shown["from"]["token"], &shown["to"]["name"]), (&softhsm, &json!("tpm")));
    assert_eq!((&shown["list-signer"], &shown["phones"]), (&json!("CallManager"), &json!(3)));
    assert_eq!(
        (&shown["restarts"], &shown["refused"], &shown["stage"]),
        (&json!([]), &Value::Null, &json!("not-begun"))
    );
    assert!(effect(&shown, "without asking anybody") && effect(&shown, "was not re-keyed meanwhile"), "{shown}");
    let text = lab.casemate(&["identity", "rekey", "ITLRecovery", "--plan"]).unwrap();
    assert!(
        text.contains("list        signed by CallManager") && text.contains("never copied and never deleted"),
        "{text}"
    );
    let unconfirmed = refused(&lab, &["identity", "rekey", "ITLRecovery"]);
    assert!(unconfirmed.contains("nobody confirmed it"), "{unconfirmed}");
    assert_eq!(json_of(&lab, &["hsm", "list"])["keys"], before["keys"], "a plan changes nothing");
    assert_eq!(fs::read(lab.published("ctlprovider", LIST)).unwrap(), list);

    let starts = ["keyd", "certmgr", "ctlprovider", "tftp", "tvs", "capf"].map(|daemon| lab.starts(daemon));
    let done = rekey(&lab, "ITLRecovery");
    assert_eq!((&done["retired"], &done["retired-token"]), (&shown["from"]["fingerprint"], &softhsm));
    let now = json_of(&lab, &["hsm", "list"]);
    assert_eq!((&now["keys"][0]["role"], &now["keys"][0]["on-token"]), (&json!("ITLRecovery"), &json!(true)));
    assert_ne!(
        (&now["keys"][0]["token"], &now["keys"][0]["fingerprint"]),
        (&softhsm, &before["keys"][0]["fingerprint"])
    );
    assert_eq!(now["retired"][0]["fingerprint"], before["keys"][0]["fingerprint"]);
    assert_eq!(lab.token_objects().unwrap(), (6, 6), "the retired key is where it was");
    assert!(lab.casemate(&["show", "itl"]).unwrap().contains("this node's CallManager certificate"));
    assert!(follows(&lab, on).contains("signed by a known SAST"));
    assert!(follows(&lab, on).contains("unchanged"));

    // CallManager follows, in its own token.
    let shown = plan(&lab, "CallManager");
    assert_eq!(
        (&shown["list-signer"], &shown["files"], &shown["refused"]),
        (&json!("ITLRecovery"), &json!(3), &Value::Null)
    );
    let file = fs::read(lab.published("ctlprovider", &format!("{on}.cnf.xml.sgn"))).unwrap();
    rekey(&lab, "CallManager");
    wait_for_files(&lab, &file, on);
    assert!(lab.casemate(&["show", "itl"]).unwrap().contains("this node's ITLRecovery certificate"));
    assert!(follows(&lab, on).contains("signed by a known SAST"));
    // Off through both: neither signer is known, and TVS vouches.
    assert!(follows(&lab, off).contains("signed by a SAST that TVS vouches for"));
    assert!(follows(&lab, off).contains("unchanged"));

    // Off through both and TVS as well: nobody vouches, as the plan said.
    let shown = plan(&lab, "TVS");
    assert!(effect(&shown, "Wait with this until such phones have started"), "{shown}");
    rekey(&lab, "TVS");
    let out = lab.phone(lost).play(&[]).unwrap_err().to_string();
    assert!(out.contains("TVS"), "{out}");
    assert!(follows(&lab, on).contains("signed by a known SAST"));
    fs::remove_file(lab.phone(lost).folder().join("itl.tlv")).unwrap();
    assert!(follows(&lab, lost).contains("taken on trust"), "with its list deleted at the phone");

    assert_eq!(
        ["keyd", "certmgr", "ctlprovider", "tftp", "tvs", "capf"].map(|daemon| lab.starts(daemon)),
        starts,
        "nothing restarted"
    );
    let counts = ["RekeyBegun", "KeyRetired", "RekeyRefused"].map(|event| lab.audited(event).unwrap().len());
    assert_eq!(counts, [3, 3, 0]);
    assert_eq!(lab.audited("RekeyBegun").unwrap()[0]["MESSAGE_ID"].as_str().unwrap().len(), 32);
}

#[test]
fn every_other_role_is_re_keyed_in_its_token_and_phones_need_what_the_plan_says() {
    let lab = Lab::start(LabSettings::for_test("rekey-others")).unwrap();
    enrolled(&lab, PHONE);
    let phone = lab.phone(PHONE);
    let asked = |pem: &Path, expected: &str| {
        let arguments = ["--ask-about", pem.to_str().unwrap(), "--expect", expected];
        phone.play(&arguments).map(|_| ()).map_err(|error| error.to_string())
    };
    let (published, old) = (lab.published("certmgr", "tomcat.pem"), lab.layout.root.join("old-tomcat.pem"));
    fs::copy(&published, &old).unwrap();
    let list = fs::read(lab.published("ctlprovider", LIST)).unwrap();
    assert_eq!(plan(&lab, "tomcat")["phones"], 0);
    for role in ["tomcat", "tomcat-ECDSA"] {
        rekey(&lab, role);
    }
    asked(&published, "valid").unwrap();
    asked(&old, "invalid").unwrap();
    assert_eq!(fs::read(lab.published("ctlprovider", LIST)).unwrap(), list, "no list is signed for them");

    let file = fs::read(lab.published("ctlprovider", &format!("{PHONE}.cnf.xml.sgn"))).unwrap();
    for role in ["CallManager-ECDSA", "TVS"] {
        assert_eq!(plan(&lab, role)["list-signer"], "ITLRecovery");
        rekey(&lab, role);
        assert!(follows(&lab, PHONE).contains("signed by a known SAST"), "{role}");
    }
    asked(&published, "valid").unwrap();
    phone.play(&["--via", "https"]).unwrap();
    assert_eq!(fs::read(lab.published("ctlprovider", &format!("{PHONE}.cnf.xml.sgn"))).unwrap(), file);

    assert!(effect(&plan(&lab, "CAPF"), "let it enrol again with `casemate phone add`"));
    rekey(&lab, "CAPF");
    let lsc = fs::read(phone.folder().join("lsc.pem")).unwrap();
    let strict = phone.play(&[]).unwrap_err().to_string();
    assert!(strict.contains("certificate"), "a phone that compares its LSC with the list's CAPF: {strict}");
    lab.add_phone(PHONE, &["--string", "4712"]).unwrap();
    // tftp looks for new files four times a second.
    let enrols = || phone.play(&["--string", "4712"]).is_ok();
    lab.wait_for("the phone to enrol again", Duration::from_secs(10), enrols).unwrap();
    assert_ne!(fs::read(phone.folder().join("lsc.pem")).unwrap(), lsc);
    let (capf, lsc) = (lab.published("certmgr", "CAPF.pem"), phone.folder().join("lsc.pem"));
    let verified = openssl(&["verify", "-x509_strict", "-CAfile", capf.to_str().unwrap(), lsc.to_str().unwrap()]);
    assert!(verified.contains("lsc.pem: OK"), "{verified}");
    assert_eq!(lab.audited("KeyRetired").unwrap().len(), 5);
    assert_eq!(lab.token_objects().unwrap(), (12, 12));
}

/// A second PKCS#11 token beside the lab's, behind a module of its own.
struct SecondToken {
    folder: PathBuf,
    module: PathBuf,
    /// As role-tokens.toml names it.
    uri: String,
}

impl SecondToken {
    fn make(lab: &Lab) -> Self {
        let folders = || -> Vec<PathBuf> {
            fs::read_dir(lab.layout.token())
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .filter(|path| path.is_dir())
                .collect()
        };
        let (before, pin) = (folders(), lab.layout.root.join("etc/second-pin"));
        let make = ["--init-token", "--free", "--label", "second", "--pin", "271828", "--so-pin", "314159"];
        lab.beside_keyd("softhsm2-util", &make).unwrap();
        fs::write(&pin, "271828").unwrap();
        lab.layout.own(&pin, 0o400, Some(lab.layout.owner.uid("keyd"))).unwrap();
        // SoftHSM looks for its tokens when it starts and never again: a copy of it can be started anew beside the first.
        let module = lab.layout.root.join("etc/second.so");
        fs::copy(TOKEN_MODULE, &module).unwrap();
        let uri = format!("pkcs11:token=second?module-path={}&pin-source={}", module.display(), pin.display());
        Self { folder: folders().into_iter().find(|folder| !before.contains(folder)).unwrap(), module, uri }
    }

    /// The public key of ITLRecovery as the token itself gives it, read by a program that is not ours.
    fn public_key(&self, lab: &Lab) -> PathBuf {
        let (der, path) = (lab.layout.token().join("second.der"), lab.layout.root.join("second.pem"));
        let (module, der) = (self.module.to_str().unwrap(), der.to_str().unwrap());
        let read = ["--module", module, "--token-label", "second", "--read-object", "--type", "pubkey"];
        lab.beside_keyd("pkcs11-tool", &[&read[..], &["--label", "ITLRecovery", "--output-file", der]].concat())
            .unwrap();
        openssl(&["pkey", "-pubin", "-inform", "DER", "-in", der, "-pubout", "-out", path.to_str().unwrap()]);
        path
    }

    fn pull(&self, lab: &Lab) {
        fs::rename(&self.folder, lab.layout.root.join("drawer")).unwrap();
    }

    fn put_back(&self, lab: &Lab) {
        fs::rename(lab.layout.root.join("drawer"), &self.folder).unwrap();
    }
}

/// Whether the published list is signed by this key, as OpenSSL sees it.
fn is_signed_by(lab: &Lab, public: &Path) -> bool {
    let bytes = fs::read(lab.published("ctlprovider", LIST)).unwrap();
    let list = SignedFile::parse(&bytes, &Limits::default()).unwrap();
    let path = |name: &str, content: &[u8]| {
        let path = lab.layout.root.join(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let (message, signature) = (path("list.tbs", &list.message()), path("list.sig", list.signature));
    let verify = ["dgst", "-sha512", "-verify", public.to_str().unwrap(), "-signature", &signature, &message];
    Command::new("openssl").args(verify).output().unwrap().status.success()
}

#[test]
fn a_key_in_a_second_token_signs_the_list_and_a_pulled_one_leaves_the_old_list_served() {
    let lab = Lab::prepare(LabSettings::for_test("rekey-second-token")).unwrap();
    let second = SecondToken::make(&lab);
    let line = format!("ITLRecovery = \"{}\"\n", second.uri);
    let default = format!("default = \"{PKCS11}\"\n");
    start(&lab, |text| text.replace(&default, &format!("{default}{line}")));
    enrolled(&lab, PHONE);
    let public = second.public_key(&lab);
    assert!(is_signed_by(&lab, &public));
    assert_eq!(lab.audited("TrustListBuilt").unwrap()[0]["CASEMATE_SIGNER"], "ITLRecovery");

    // The token is pulled, and the list would have to change.
    second.pull(&lab);
    let old = fs::read(lab.published("ctlprovider", LIST)).unwrap();
    let config = fs::read_to_string(lab.layout.config()).unwrap();
    let without_https = config.replace("[ctlprovider]\n", "[ctlprovider]\nhttps = false\n");
    fs::write(lab.layout.config(), without_https).unwrap();
    lab.stop_daemon("ctlprovider").unwrap();
    lab.start_daemon("ctlprovider").unwrap();
    let told = lab.wait_for_events("TrustListRefused", 1).unwrap();
    let reason = told[0]["CASEMATE_REASON"].as_str().unwrap();
    assert!(reason.contains("not signed"), "{reason}");
    lab.wait_for_events("TokenAbsent", 1).unwrap();
    let listed = json_of(&lab, &["hsm", "list"]);
    assert!(listed["state"]["waiting"].as_str().unwrap().contains("second"), "{listed}");
    assert!(follows(&lab, PHONE).contains("unchanged"), "the old list is served on");
    let refusal = refused(&lab, &["identity", "rekey", "CAPF", "--yes"]);
    assert!(refusal.contains("signed by ITLRecovery") && refusal.contains("re-key ITLRecovery first"), "{refusal}");
    assert_eq!(fs::read(lab.published("ctlprovider", LIST)).unwrap(), old);

    // It is back: what waited is signed, by it.
    second.put_back(&lab);
    let signed = || fs::read(lab.published("ctlprovider", LIST)).is_ok_and(|now| now != old);
    lab.wait_for("the list that waited", Duration::from_secs(60), signed).unwrap();
    assert!(is_signed_by(&lab, &public));
    assert_eq!(lab.starts("keyd"), 1);
    follows_soon(&lab, PHONE);

    // To a node without such a token: phones fetch a list that CallManager signed, and the token can go.
    put_roles(&lab, &line, "");
    let done = rekey(&lab, "ITLRecovery");
    assert!(!is_signed_by(&lab, &public));
    assert!(follows(&lab, PHONE).contains("signed by a known SAST"));
    second.pull(&lab);
    rekey(&lab, "TVS");
    assert!(follows(&lab, PHONE).contains("signed by a known SAST"));
    // Phones know the new ITLRecovery: it can sign again.
    let signs = |role: &str| {
        let expected = format!("this node's {role} certificate");
        let signs = || lab.casemate(&["show", "itl"]).is_ok_and(|shown| shown.contains(&expected));
        lab.wait_for(&expected, Duration::from_secs(10), signs).unwrap();
    };
    signs("CallManager");
    lab.casemate(&["identity", "list-signer", "ITLRecovery"]).unwrap();
    signs("ITLRecovery");
    follows_soon(&lab, PHONE);
    let listed = json_of(&lab, &["hsm", "list"]);
    assert_eq!(listed["state"], "serving");
    assert_eq!(listed["retired"][0]["fingerprint"], done["retired"]);
}

/// The second token of a role is lost for ever: the disaster that a re-key is for.
#[test]
fn a_signer_whose_token_is_lost_is_re_keyed_elsewhere_and_the_phones_follow() {
    let lab = Lab::start(LabSettings { tokens: Tokens::Split, ..LabSettings::for_test("rekey-lost") }).unwrap();
    enrolled(&lab, PHONE);
    lab.pull_tpm().unwrap();
    put_roles(&lab, "ITLRecovery = \"tpm\"\n", "");
    let shown = plan(&lab, "ITLRecovery");
    assert_eq!((&shown["refused"], &shown["list-signer"]), (&Value::Null, &json!("CallManager")));
    assert!(effect(&shown, "It is not there now"), "{shown}");
    rekey(&lab, "ITLRecovery");
    assert!(follows(&lab, PHONE).contains("signed by a known SAST"));
    let file = fs::read(lab.published("ctlprovider", &format!("{PHONE}.cnf.xml.sgn"))).unwrap();
    rekey(&lab, "CallManager");
    wait_for_files(&lab, &file, PHONE);
    assert!(follows(&lab, PHONE).contains("signed by a known SAST"));
}

/// How many keys are retired and how many are about to follow one, if keyd answers.
fn retired_and_next(lab: &Lab) -> Option<(usize, usize)> {
    let listed: Value = serde_json::from_str(&lab.casemate(&["hsm", "list", "--json"]).ok()?).ok()?;
    Some((listed["retired"].as_array()?.len(), listed["next"].as_array()?.len()))
}

/// Whoever is killed in the middle, one key serves, and the command run again ends with one new key.
#[test]
fn a_re_key_that_is_killed_anywhere_goes_on_when_it_is_asked_for_again() {
    let lab = Lab::start(LabSettings::for_test("rekey-kills")).unwrap();
    enrolled(&lab, PHONE);
    let rounds = [
        ("CallManager-ECDSA", "keyd", 30),
        ("TVS", "certmgr", 60),
        ("CallManager", "keyd", 150),
        ("ITLRecovery", "certmgr", 250),
        ("CallManager-ECDSA", "ctlprovider", 400),
        ("TVS", "keyd", 1500),
    ];
    for (number, (role, daemon, delay)) in rounds.into_iter().enumerate() {
        let file = fs::read(lab.published("ctlprovider", &format!("{PHONE}.cnf.xml.sgn"))).unwrap();
        thread::scope(|scope| {
            let operator = scope.spawn(|| lab.casemate(&["identity", "rekey", role, "--yes"]).is_ok());
            thread::sleep(Duration::from_millis(delay));
            lab.kill(daemon).unwrap();
            println!("{role}, {daemon} killed after {delay} ms: done at once {}", operator.join().unwrap());
        });
        // Whatever serves now is what phones trust, once who was killed is back.
        let phone = || lab.phone(PHONE).play(&[]).is_ok();
        lab.wait_for("the phone to be served", Duration::from_secs(30), phone).unwrap();
        let ended = || match retired_and_next(&lab) {
            Some(counts) if counts == (number + 1, 0) => true,
            // Asked again only while it is under way, or not begun: otherwise it would be the next re-key.
            Some(_) => lab.casemate(&["identity", "rekey", role, "--yes"]).is_ok(),
            None => false,
        };
        lab.wait_for("the re-key to end", Duration::from_secs(60), ended).unwrap();
        if role == "CallManager" {
            wait_for_files(&lab, &file, PHONE);
        }
        lab.wait_for("the phone to follow", Duration::from_secs(20), phone).unwrap();
        let listed = json_of(&lab, &["hsm", "list"]);
        assert_eq!(retired_and_next(&lab), Some((number + 1, 0)), "{role}");
        assert!(listed["keys"].as_array().unwrap().iter().all(|key| key["on-token"] == true), "{listed}");
        assert_eq!(lab.token_objects().unwrap(), (8 + number, 8 + number), "{role}: one new key, and none lost");
    }
}
