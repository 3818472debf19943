//! The console as an operator uses it, and as a program that reads its JSON does: what it says is held against the files, against
//! OpenSSL and against the trail, and what fails says so by its exit code.
#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc::channel,
    thread,
    time::Duration,
};

use casemate_harness::{DAEMONS, Lab, LabSettings, Owner, Ports, TOKEN_LABEL};
use casemate_phone::{tls::Endpoint, transfer::tftp};
use serde_json::{Value, json};

const PHONE: &str = "SEP001122334455";

/// The identities and their keys' algorithms.
const IDENTITIES: [(&str, &str); 7] = [
    ("CallManager", "rsa-2048"),
    ("CallManager-ECDSA", "p-384"),
    ("CAPF", "rsa-2048"),
    ("TVS", "rsa-2048"),
    ("ITLRecovery", "rsa-2048"),
    ("tomcat", "rsa-2048"),
    ("tomcat-ECDSA", "p-384"),
];

/// What a command printed and how it ended.
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    fn of(mut command: Command) -> Self {
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Self { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}{}", self.out, self.err))
    }

    /// One line on standard error that says `what`, and exit code `code`.
    fn failed(&self, code: i32, what: &str) {
        assert_eq!(self.code, Some(code), "{}{}", self.out, self.err);
        assert!(self.err.contains(what), "{what:?} is not in {:?}", self.err);
    }
}

fn run(lab: &Lab, arguments: &[&str]) -> Ran {
    let mut command = lab.console();
    command.args(arguments);
    Ran::of(command)
}

/// The JSON of a command that succeeds and says nothing else.
fn shown(lab: &Lab, arguments: &[&str]) -> Value {
    let ran = run(lab, &[arguments, &["--json"]].concat());
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{arguments:?}");
    ran.json()
}

/// The text of a command that succeeds and says nothing else.
fn said(lab: &Lab, arguments: &[&str]) -> String {
    let ran = run(lab, arguments);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{arguments:?}");
    ran.out
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

fn openssl(arguments: &[&str], input: &Path) -> String {
    let output = Command::new("openssl").args(arguments).stdin(fs::File::open(input).unwrap()).output().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn sha256(path: &Path) -> String {
    openssl(&["dgst", "-sha256", "-r"], path).split(' ').next().unwrap().to_owned()
}

/// What OpenSSL says of a certificate: SHA-256, serial number, end, all as the console writes them.
struct Facts {
    sha256: String,
    serial: String,
    not_after: String,
    key_sha256: String,
}

fn facts(lab: &Lab, identity: &str) -> Facts {
    let pem = lab.published("certmgr", &format!("{identity}.pem"));
    let told = |arguments: &[&str]| {
        let line = openssl(&[&["x509", "-noout"], arguments].concat(), &pem);
        line.trim().split_once('=').unwrap().1.to_owned()
    };
    let (spki_pem, spki) = (lab.layout.root.join("etc/spki.pem"), lab.layout.root.join("etc/spki.der"));
    fs::write(&spki_pem, openssl(&["x509", "-noout", "-pubkey"], &pem)).unwrap();
    openssl(&["pkey", "-pubin", "-outform", "DER", "-out", spki.to_str().unwrap()], &spki_pem);
    Facts {
        sha256: told(&["-fingerprint", "-sha256"]).replace(':', "").to_lowercase(),
        serial: told(&["-serial"]).to_lowercase(),
        not_after: told(&["-enddate", "-dateopt", "iso_8601"]).replace(' ', "T"),
        key_sha256: sha256(&spki),
    }
}

#[test]
fn the_list_that_is_shown_is_the_list_that_phones_get() {
    let lab = Lab::start(LabSettings::for_test("console-itl")).unwrap();
    let host = lab.address(Ports::TFTP).ip().to_string();
    let endpoint = Endpoint { service: "TFTP", host, port: Ports::TFTP, limit: Duration::from_secs(20) };
    let fetched = lab.layout.root.join("etc/fetched.tlv");
    let bytes = tftp::fetch(&endpoint, "ITLFile.tlv", tftp::Options::default()).unwrap();
    fs::write(&fetched, &bytes).unwrap();

    let list = shown(&lab, &["show", "itl"]);
    let itl_recovery = facts(&lab, "ITLRecovery");
    assert_eq!((text(&list["sha256"]), &list["length"]), (sha256(&fetched).as_str(), &json!(bytes.len())));
    assert_eq!((&list["signer-version"], &list["signature-verifies"]), (&json!("1.1"), &json!(true)));
    assert_eq!(text(&list["signer-serial"]), itl_recovery.serial);
    let expected = [
        ("SAST", "ITLRecovery"),
        ("SAST", "CallManager"),
        ("CCM+TFTP", "CallManager"),
        ("TFTP", "CallManager-ECDSA"),
        ("CAPF", "CAPF"),
        ("TVS", "TVS"),
    ];
    let records = list["records"].as_array().unwrap();
    assert_eq!(records.len(), expected.len());
    let readable = said(&lab, &["show", "itl"]);
    for (role, identity) in expected {
        let facts = facts(&lab, identity);
        let of_role = |record: &&Value| record["role"] == role && record["sha256"] == facts.sha256.as_str();
        let record = records.iter().find(of_role).unwrap_or_else(|| panic!("{identity} as {role}: {records:?}"));
        assert_eq!((text(&record["serial"]), text(&record["not-after"])), (&*facts.serial, &*facts.not_after));
        assert_eq!(record["signed-this-list"], json!(identity == "ITLRecovery"), "{identity}");
        for fact in [&facts.sha256, &facts.serial, &facts.not_after] {
            assert!(readable.contains(fact), "{fact} of {identity} is not in {readable}");
        }
    }
    assert!(readable.contains(text(&list["sha256"])) && readable.contains("signature verifies with this node's"));

    // One changed bit, and both say so, and neither is a success.
    lab.stop_daemon("ctlprovider").unwrap();
    let published = lab.published("ctlprovider", "ITLFile.tlv");
    let mut changed = bytes.clone();
    *changed.last_mut().unwrap() ^= 1;
    fs::write(&published, &changed).unwrap();
    let ran = run(&lab, &["show", "itl", "--json"]);
    ran.failed(1, "the signature of the trust list does not hold");
    assert_eq!(ran.json()["signature-verifies"], json!(false));
    let ran = run(&lab, &["show", "itl"]);
    ran.failed(1, "does not hold");
    assert!(ran.out.contains("SIGNATURE DOES NOT HOLD"), "{}", ran.out);
    for (content, what) in [(Some(&b"no list"[..]), "is no trust list"), (None, "run `casemate provision`")] {
        fs::remove_file(&published).unwrap();
        if let Some(content) = content {
            fs::write(&published, content).unwrap();
        }
        let ran = run(&lab, &["show", "itl"]);
        ran.failed(1, what);
        assert_eq!((ran.err.lines().count(), ran.out.as_str()), (1, ""), "{}", ran.err);
    }
}

#[test]
fn keys_identities_and_phones_are_told_as_json_and_as_text() {
    let lab = Lab::start(LabSettings::for_test("console-json")).unwrap();
    let provisioned = shown(&lab, &["provision"]);
    let hsm = shown(&lab, &["hsm", "list"]);
    let identities = shown(&lab, &["identity", "list"]);
    assert_eq!((&hsm["state"], &hsm["tokens"][0]["info"]["label"]), (&json!("serving"), &json!(TOKEN_LABEL)));
    let of = |list: &Value, role: &str, at: fn(&Value) -> &Value| {
        let list = list.as_array().unwrap();
        assert_eq!(list.len(), IDENTITIES.len());
        list.iter().map(at).find(|entry| entry["role"] == role).unwrap_or_else(|| panic!("{role}: {list:?}")).clone()
    };
    // Token, firmware, mechanisms, sessions, login, rate, and every key on it.
    let (token, info) = (&hsm["tokens"][0], &hsm["tokens"][0]["info"]);
    assert!(info["mechanisms"].as_array().unwrap().contains(&json!("CKM_RSA_PKCS_PSS")), "{token}");
    assert_eq!((&info["firmware"], &info["login"]), (&json!("2.6"), &json!("user")));
    assert!(info["sessions"].as_u64() > Some(0) && !token["rates"].as_array().unwrap().is_empty(), "{token}");
    assert_eq!([&token["pairs"], &token["pairs-on-record"], &token["unrecorded"]], [&json!(7), &json!(7), &json!([])]);
    let (provision_text, hsm_text) = (said(&lab, &["provision"]), said(&lab, &["hsm", "list"]));
    let identity_text = said(&lab, &["identity", "list"]);
    for (role, algorithm) in IDENTITIES {
        let facts = facts(&lab, role);
        let key = of(&hsm["keys"], role, |key| key);
        assert_eq!((text(&key["fingerprint"]), text(&key["algorithm"])), (&*facts.key_sha256, algorithm), "{role}");
        let backup = if role == "ITLRecovery" { "wrapped" } else { "none" };
        assert_eq!((&key["on-token"], &key["backup"]), (&json!(true), &json!(backup)), "{role}");
        assert_eq!(key["token"], hsm["tokens"][0]["info"]["serial"], "{role}");
        let identity = of(&identities, role, |identity| identity);
        let said =
            [&identity["fingerprint"], &identity["serial"], &identity["not-after"], &identity["key-fingerprint"]];
        assert_eq!(said.map(text), [&*facts.sha256, &*facts.serial, &*facts.not_after, &*facts.key_sha256], "{role}");
        assert_eq!(Path::new(text(&identity["published"])), lab.published("certmgr", &format!("{role}.pem")));
        // A second run makes nothing, and says what there is.
        assert_eq!(of(&provisioned, role, |done| &done["identity"]), identity, "{role}");
        assert!(hsm_text.contains(&facts.key_sha256) && identity_text.contains(&facts.sha256), "{role}");
    }
    for done in provisioned.as_array().unwrap() {
        assert_eq!((&done["key-made"], &done["certificate-made"]), (&json!(false), &json!(false)), "{done}");
    }
    assert!(provision_text.ends_with("7 identities, 0 made now\n"), "{provision_text}");
    assert_eq!(provision_text.matches("already there").count(), 7, "{provision_text}");
    assert!(hsm_text.contains("broker      serving\n") && hsm_text.contains(TOKEN_LABEL), "{hsm_text}");

    assert_eq!(shown(&lab, &["phone", "list"]), json!([]));
    assert!(said(&lab, &["phone", "list"]).contains("no phone yet"));
    let added = shown(&lab, &["phone", "add", PHONE, "--string", "9081726354", "--key", "p-521"]);
    let operation = added["operation"].as_i64().unwrap();
    let expected = json!({"name": PHONE, "operation": operation, "mode": "authentication-string", "key": "p-521"});
    assert_eq!(added, expected, "and nothing else: no string");
    let null = said(&lab, &["phone", "add", "SEP00000000F001", "--null-string"]);
    let expected =
        format!("SEP00000000F001: operation {}, install an RSA-2048 certificate by null-string\n", operation + 1);
    assert_eq!(null, expected);
    lab.wait_for("the phone to enrol", Duration::from_secs(10), || {
        lab.phone(PHONE).play(&["--string", "9081726354"]).is_ok()
    })
    .unwrap();
    let lsc = lab.phone(PHONE).folder().join("lsc.pem");
    let serial = openssl(&["x509", "-noout", "-serial"], &lsc).trim().replace("serial=", "").to_lowercase();
    let end = openssl(&["x509", "-noout", "-enddate", "-dateopt", "iso_8601"], &lsc);
    let end = end.trim().replace("notAfter=", "").replace(' ', "T");
    let phones = shown(&lab, &["phone", "list"]);
    let [pending, delivered] = phones.as_array().unwrap().as_slice() else { panic!("{phones}") };
    assert_eq!((&pending["name"], &pending["operation"]), (&json!("SEP00000000F001"), &json!("pending")));
    assert!(pending["expires"].is_i64() && pending["serial"].is_null(), "{pending}");
    assert_eq!((&delivered["name"], &delivered["operation"]), (&json!(PHONE), &json!("delivered")));
    assert_eq!((text(&delivered["serial"]), &delivered["expires"]), (&*serial, &Value::Null));
    let listed = said(&lab, &["phone", "list"]);
    let line = listed.lines().find(|line| line.starts_with(PHONE)).unwrap();
    assert!([&serial, &end].iter().all(|fact| line.contains(*fact)), "{serial}, {end}: {line}");
}

#[test]
fn the_self_test_is_run_and_told() {
    let lab = Lab::start(LabSettings { restart: false, ..LabSettings::for_test("console-selftest") }).unwrap();
    let report =
        || -> Value { serde_json::from_slice(&fs::read(lab.layout.run().join("post.json")).unwrap()).unwrap() };
    let first = report();
    let status = shown(&lab, &["selftest", "status"]);
    assert_eq!((&status["report"], &status["passed"], &status["reason"]), (&first, &json!(true), &Value::Null));
    assert_eq!((&status["broker"], &status["fips"]["whole"]), (&json!("serving"), &json!("unvalidated")));
    assert_eq!(status["fips"]["module"]["version-matches"], json!(false));
    assert_eq!(status["fips"]["module"]["certificate"], json!(5314));
    assert!(text(&status["fips"]["token"]["token"]).contains("SoftHSM"), "{status}");

    let printed = said(&lab, &["selftest", "run"]);
    let second = report();
    assert_ne!(second["run-id"], first["run-id"], "it ran");
    let tests = second["tests"].as_array().unwrap();
    assert_eq!(printed.lines().filter(|line| line.starts_with("ok ")).count(), tests.len(), "{printed}");
    assert!(printed.contains(&format!("power-on self-test passed: {} tests", tests.len())), "{printed}");
    let shown_now = shown(&lab, &["selftest", "run"]);
    assert_eq!(shown_now, report());
    assert_ne!(shown_now["run-id"], second["run-id"]);
    assert_eq!(lab.wait_for_events("PostPassed", 3).unwrap().len(), 3);
    // The daemons served on.
    lab.add_phone(PHONE, &["--null-string"]).unwrap();

    // Only root, for only root's report counts.
    if lab.layout.owner == Owner::Each {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=12345", "--regid=12345", "--clear-groups", "--"]).arg(lab.layout.bin().join("casemate"));
        command.env("CASEMATE_LAB", &lab.layout.root).args(["selftest", "run"]);
        Ran::of(command).failed(1, "must run as root");
    }

    // What fails is named by both, and by the exit code.
    let program = lab.layout.bin().join("casemate-tvs");
    let mut content = fs::read(&program).unwrap();
    content.push(0);
    fs::remove_file(&program).unwrap();
    fs::write(&program, content).unwrap();
    let ran = run(&lab, &["selftest", "run"]);
    ran.failed(1, "casemate-postd failed");
    assert!(ran.out.contains("power-on self-test FAILED at casemate-tvs"), "{}", ran.out);
    let ran = run(&lab, &["selftest", "run", "--json"]);
    ran.failed(1, "casemate-postd failed");
    assert_eq!((&ran.json()["passed"], &ran.json()), (&json!(false), &report()));
    let ran = run(&lab, &["selftest", "status", "--json"]);
    ran.failed(1, "the power-on self-test has not passed");
    assert_eq!(ran.json()["passed"], json!(false));
    assert!(text(&ran.json()["reason"]).contains("casemate-tvs"));
    fs::remove_file(lab.layout.run().join("post.json")).unwrap();
    let ran = run(&lab, &["selftest", "status"]);
    ran.failed(1, "post.json");
    assert_eq!(ran.out, "");
}

#[test]
fn the_trail_of_an_enrolment_is_told_and_followed() {
    let lab = Lab::start(LabSettings::for_test("console-audit")).unwrap();
    lab.add_phone(PHONE, &["--string", "9081726354", "--key", "p-256"]).unwrap();
    lab.phone(PHONE).play(&["--string", "9081726354"]).unwrap();
    let delivered = lab.wait_for_events("CertificateDelivered", 1).unwrap();

    // As JSON a line an event, the same as in the file.
    let all = said(&lab, &["audit", "tail", "-n", "100000", "--json"]);
    let events: Vec<Value> = all.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(events.len() > 30 && lab.audit().unwrap().starts_with(&events));
    assert!(events.contains(&delivered[0]), "{delivered:?}");
    // As text a line an event, with its time, who told it, and what happened.
    let readable = said(&lab, &["audit", "tail", "-n", "100000"]);
    assert!(readable.lines().count() >= events.len());
    let serial = text(&delivered[0]["CASEMATE_SERIAL"]);
    let line = readable.lines().find(|line| line.ends_with(&format!("{PHONE} has LSC {serial}"))).unwrap();
    let words: Vec<_> = line.split_whitespace().collect();
    assert!(words[0].len() == 24 && words[0].ends_with('Z') && words[1] == "casemate-capf", "{line}");
    assert!(!readable.contains("9081726354") && !all.contains("9081726354"));
    for (arguments, lines) in
        [(&["audit", "tail"][..], 20), (&["audit", "tail", "-n", "3"], 3), (&["audit", "tail", "-n", "0"], 0)]
    {
        assert_eq!(said(&lab, arguments).lines().count(), lines, "{arguments:?}");
    }

    // Followed, it tells what comes.
    let mut command = lab.console();
    let mut follower = command.args(["audit", "tail", "-n", "0", "--follow"]).stdout(Stdio::piped()).spawn().unwrap();
    let (told, lines) = channel();
    let out = BufReader::new(follower.stdout.take().unwrap());
    let reader = thread::spawn(move || out.lines().map_while(Result::ok).all(|line| told.send(line).is_ok()));
    // When it began to follow is not known from outside, so there may have to be another event.
    let mut found = None;
    for number in 0..20 {
        let name = format!("SEP0000000000{number:02X}");
        lab.casemate(&["phone", "add", &name, "--null-string"]).unwrap();
        let line = lines.recv_timeout(Duration::from_millis(1000));
        if let Ok(line) = line {
            found = Some(line);
            break;
        }
    }
    follower.kill().and_then(|()| follower.wait()).unwrap();
    drop(lines);
    reader.join().unwrap();
    let found = found.expect("a followed event");
    assert!(found.contains("install RSA-2048 by null-string"), "{found}");

    fs::remove_file(lab.layout.journal()).unwrap();
    run(&lab, &["audit", "tail"]).failed(1, "journal.jsonl");
    // Where journald is, it is asked, and nothing else.
    let config = fs::read_to_string(lab.layout.config()).unwrap();
    fs::write(lab.layout.config(), config.replace("no-journald", "journal.jsonl")).unwrap();
    fs::write(lab.layout.journal(), "").unwrap();
    let mut command = lab.console();
    command.args(["audit", "tail"]).env("PATH", "/nowhere");
    Ran::of(command).failed(1, "cannot run journalctl");
}

/// A mount namespace with a journald of its own: the self-test's event is in what `audit tail` shows, and what another local user
/// sends journald under an event's `MESSAGE_ID` is not.
const WITH_JOURNALD: &str = r#"
mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/log && mkdir -p /run/systemd/journal || exit 77
/lib/systemd/systemd-journald & journald=$!
trap 'kill $journald' EXIT
for n in $(seq 50); do test -S /run/systemd/journal/socket && break; sleep 0.1; done
"$BIN/casemate-postd" --config "$CONFIG" >&2 || exit 1
forged="MESSAGE_ID=$ID
MESSAGE=forged
CASEMATE_EVENT=PostPassed
SYSLOG_IDENTIFIER=casemate-postd"
echo "$forged" | setpriv --reuid=12345 --regid=12345 --clear-groups -- logger --journald || exit 77
for n in $(seq 100); do journalctl -q MESSAGE=forged -o cat | grep -q forged && break; sleep 0.1; done
journalctl -q MESSAGE=forged -o cat | grep -q forged || exit 77
"$BIN/casemate" --config "$CONFIG" audit tail -n 50 --json || exit 1
echo ---
"$BIN/casemate" --config "$CONFIG" audit tail
"#;

#[test]
fn journald_is_read_where_it_is_and_forged_events_are_not() {
    const JOURNALD: &str = "/lib/systemd/systemd-journald";
    let not_proven = |why: &str| println!("NOT PROVEN here, for {why}: that `audit tail` reads journald");
    if !nix::unistd::geteuid().is_root() || !Path::new(JOURNALD).exists() {
        return not_proven("this test needs root and Debian's package systemd");
    }
    let lab = Lab::prepare(LabSettings { journald: true, ..LabSettings::for_test("console-journald") }).unwrap();
    lab.postd(&[]).unwrap();
    let passed = fs::read_to_string(lab.layout.journal()).unwrap();
    let id = passed.lines().rev().find_map(|line| {
        let event: Value = serde_json::from_str(line).unwrap();
        (event["CASEMATE_EVENT"] == "PostPassed").then(|| text(&event["MESSAGE_ID"]).to_owned())
    });
    let Some(id) = id else { return not_proven("a journald of this machine took the event") };
    let mut command = Command::new("unshare");
    command.args(["--mount", "bash", "-c", WITH_JOURNALD]).env("ID", id);
    command.env("BIN", lab.layout.bin()).env("CONFIG", lab.layout.config());
    let ran = Ran::of(command);
    if ran.code == Some(77) || (ran.code == Some(1) && ran.err.contains("unshare failed")) {
        return not_proven(&ran.err);
    }
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    let (as_json, readable) = ran.out.split_once("---\n").unwrap();
    let events: Vec<Value> = as_json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.len(), 1, "{as_json}");
    let run_id: Value = serde_json::from_slice(&fs::read(lab.layout.run().join("post.json")).unwrap()).unwrap();
    assert_eq!((&events[0]["CASEMATE_EVENT"], &events[0]["_UID"]), (&json!("PostPassed"), &json!("0")));
    assert_eq!(events[0]["CASEMATE_RUN_ID"], run_id["run-id"]);
    assert!(readable.contains("casemate-postd") && readable.contains("power-on self-test passed"), "{readable}");
    assert_eq!(readable.lines().count(), 1, "{readable}");
}

#[test]
fn what_does_not_work_is_said_in_one_line_and_by_the_exit_code() {
    let lab = Lab::start(LabSettings { restart: false, ..LabSettings::for_test("console-failures") }).unwrap();
    let commands: [&[&str]; 9] = [
        &["provision"],
        &["phone", "add", PHONE, "--null-string"],
        &["phone", "list"],
        &["show", "itl"],
        &["selftest", "run"],
        &["selftest", "status"],
        &["hsm", "list"],
        &["identity", "list"],
        &["audit", "tail"],
    ];
    // No lab, or one whose settings are broken.
    let broken = lab.layout.root.join("etc/broken.toml");
    fs::write(&broken, "[paths]\nrum = \"/run\"\n").unwrap();
    for arguments in commands {
        for as_json in [false, true] {
            let arguments = [arguments, if as_json { &["--json"][..] } else { &[] }].concat();
            let mut command = lab.console();
            command.env("CASEMATE_LAB", "/nowhere").args(&arguments);
            let ran = Ran::of(command);
            ran.failed(1, "/nowhere/etc/casemate.toml");
            assert_eq!((ran.out.as_str(), ran.err.lines().count()), ("", 1), "{arguments:?}: {}", ran.err);
            let mut command = lab.console();
            command.arg("--config").arg(&broken).args(&arguments);
            Ran::of(command).failed(1, "rum");
        }
    }
    // The lab as the README names it, from where one stands.
    let (beside, name) = (lab.layout.root.parent().unwrap(), lab.layout.root.file_name().unwrap());
    let mut command = lab.console();
    command.current_dir(beside).env("CASEMATE_LAB", name).args(["phone", "list", "--json"]);
    assert_eq!(Ran::of(command).json(), json!([]));
    // Wrong usage is 2 and changes nothing; what may be a string is not repeated.
    let wrong: [&[&str]; 8] = [
        &[],
        &["phone"],
        &["phone", "remove", PHONE],
        &["phone", "add", PHONE],
        &["phone", "add", "SEP0011", "--null-string"],
        &["phone", "add", PHONE, "--string", "90817x"],
        &["phone", "add", PHONE, "--string", "9081726354", "--null-string"],
        &["audit", "tail", "-n", "-1"],
    ];
    for arguments in wrong {
        let ran = run(&lab, arguments);
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{arguments:?}: {}", ran.err);
        assert!(!ran.err.contains("90817"), "{arguments:?}: {}", ran.err);
    }
    assert_eq!(shown(&lab, &["phone", "list"]), json!([]));
    // Somebody who is no operator.
    if lab.layout.owner == Owner::Each {
        for arguments in [&["phone", "list"][..], &["hsm", "list"], &["identity", "list"], &["provision"]] {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=12345", "--regid=12345", "--clear-groups", "--"]);
            command.arg(lab.layout.bin().join("casemate")).env("CASEMATE_LAB", &lab.layout.root).args(arguments);
            let ran = Ran::of(command);
            assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "{arguments:?}: {}", ran.err);
        }
    }
    // Daemons that are down, each named by those who need it.
    for (daemon, _) in DAEMONS.iter().rev() {
        lab.stop_daemon(daemon).unwrap();
    }
    for (arguments, daemon) in [
        (&["phone", "list"][..], "capf"),
        (&["phone", "add", PHONE, "--null-string"], "capf"),
        (&["provision"], "certmgr"),
        (&["identity", "list"], "certmgr"),
        (&["hsm", "list"], "keyd"),
    ] {
        let ran = run(&lab, arguments);
        ran.failed(1, &format!("{daemon}.sock"));
        assert!(ran.err.contains("running?"), "{}", ran.err);
        assert_eq!((ran.out.as_str(), ran.err.lines().count()), ("", 1), "{arguments:?}: {}", ran.err);
    }
    // What needs no daemon works on.
    assert!(said(&lab, &["show", "itl"]).contains("signature verifies"));
    let status = said(&lab, &["selftest", "status"]);
    assert!(status.contains("passed") && status.contains("key broker      not reached"), "{status}");
    assert_eq!(shown(&lab, &["selftest", "status"])["broker"], Value::Null);
    assert!(said(&lab, &["audit", "tail"]).contains("service stopped"));
}
