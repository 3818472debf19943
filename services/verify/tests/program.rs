//! The program on the statement of a TPM that is no more (hsm/attest/tests/vectors).
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use casemate_pki::CertificateFacts;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SubjectPublicKeyInfo,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A desk of the auditor's with the vector's files on it.
struct Desk {
    folder: TempDir,
    vector: Value,
}

fn pem(der: &[u8]) -> String {
    pem::encode(&pem::Pem::new("CERTIFICATE", der))
}

/// A certificate of the key with this `SubjectPublicKeyInfo`, by an authority of no interest.
fn certificate(spki: &[u8]) -> String {
    let issuer = Issuer::new(CertificateParams::new(Vec::new()).unwrap(), KeyPair::generate().unwrap());
    let key = SubjectPublicKeyInfo::from_der(spki).unwrap();
    pem(CertificateParams::new(Vec::new()).unwrap().signed_by(&key, &issuer).unwrap().der())
}

/// An authority named `name`, whose certificate is by `parent` or by itself, and that certificate in DER.
fn authority(name: &str, parent: Option<&Issuer<'_, KeyPair>>) -> (Issuer<'static, KeyPair>, Vec<u8>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = match parent {
        Some(parent) => params.signed_by(&key, parent),
        None => params.self_signed(&key),
    };
    let der = certificate.unwrap().der().to_vec();
    (Issuer::new(params, key), der)
}

impl Desk {
    fn new() -> Self {
        let vector: Value = serde_json::from_str(include_str!("../../../hsm/attest/tests/vectors/swtpm.json")).unwrap();
        let desk = Self { folder: tempfile::tempdir().unwrap(), vector };
        let of = |field: &str| hex::decode(desk.vector[field].as_str().unwrap()).unwrap();
        fs::write(desk.path("certificate.pem"), certificate(&of("spki"))).unwrap();
        fs::write(desk.path("maker.pem"), pem(&of("maker"))).unwrap();
        desk.write("enrolled.json", &desk.vector["enrolled"]);
        desk.write("key.json", &desk.vector["statement"]["by"]);
        desk.report(&json!({ "statement": desk.vector["statement"] }));
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, document: &Value) {
        fs::write(self.path(name), document.to_string()).unwrap();
    }

    fn report(&self, result: &Value) {
        self.write("statement.json", &json!({ "role": "CAPF", "result": result }));
    }

    fn nonce(&self) -> &str {
        self.vector["nonce"].as_str().unwrap()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_casemate-verify"))
            .args(arguments)
            .current_dir(self.folder.path())
            .output()
            .unwrap()
    }

    fn judge(&self, nonce: &str) -> Output {
        let files =
            ["--enrolled", "enrolled.json", "--statement", "statement.json", "--certificate", "certificate.pem"];
        self.run(&[&["statement"], &files[..], &["--nonce", nonce]].concat())
    }

    /// The reason for which nothing is proven; and nothing else is told.
    fn refused(&self, nonce: &str) -> String {
        refused(&self.judge(nonce))
    }
}

fn refused(output: &Output) -> String {
    assert_eq!((output.status.code(), &*output.stdout), (Some(1), &b""[..]), "{output:?}");
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(text.starts_with("casemate-verify: nothing is proven: "), "{text}");
    text
}

#[test]
fn a_true_statement_is_proven_in_plain_words() {
    let desk = Desk::new();
    let output = desk.judge(desk.nonce());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for line in [
        "made          in this TPM, by the TPM itself",
        "leaves it     never,",
        "certified by  CN=swtpm-localca",
        "TPM           manufacturer id:",
        "firmware      8217.4131 (0x2019102300163636)",
        "said          after it was given your nonce",
        "PCR 0         0000000000000000000000000000000000000000000000000000000000000000",
        "PCR 11        0000000000000000000000000000000000000000000000000000000000000000",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

#[test]
fn what_is_not_true_is_shown_as_nothing_with_its_reason() {
    let desk = Desk::new();
    assert!(desk.refused(&"00".repeat(32)).contains("nonce"));
    let mut other = desk.vector["statement"].clone();
    other["quote"]["pcrs"][7]["sha256"] = "5a".repeat(32).into();
    desk.report(&json!({ "statement": other }));
    assert!(desk.refused(desk.nonce()).contains("the TPM quoted other values than are listed"));
    let mut without = desk.vector["statement"].clone();
    without.as_object_mut().unwrap().remove("quote");
    desk.report(&json!({ "statement": without }));
    assert!(desk.refused(desk.nonce()).contains("missing field `quote`"));
    desk.report(&json!({ "statement": desk.vector["statement"] }));
    let mut stranger = desk.vector["enrolled"].clone();
    stranger["name"] = format!("000b{}", "00".repeat(32)).into();
    desk.write("enrolled.json", &stranger);
    assert!(desk.refused(desk.nonce()).contains("nobody endorsed"));
    desk.write("enrolled.json", &desk.vector["enrolled"]);
    let other = KeyPair::generate().unwrap();
    let own = CertificateParams::new(Vec::new()).unwrap().self_signed(&other).unwrap();
    fs::write(desk.path("certificate.pem"), own.pem()).unwrap();
    assert!(desk.refused(desk.nonce()).contains("not the key of the certificate"));
    desk.report(&json!({ "unproven": "no\u{1b}[2J statement" }));
    let unproven = desk.refused(desk.nonce());
    assert!(unproven.contains("CAPF") && unproven.contains("no\\u{1b}[2J statement"), "{unproven}");
}

#[test]
fn files_that_are_none_prove_nothing() {
    let desk = Desk::new();
    let good = fs::read(desk.path("certificate.pem")).unwrap();
    for content in [Vec::new(), b"-----BEGIN CERTIFICATE-----\n".to_vec(), [good.clone(), good.clone()].concat()] {
        fs::write(desk.path("certificate.pem"), content).unwrap();
        assert!(desk.refused(desk.nonce()).contains("certificate.pem"));
    }
    fs::write(desk.path("certificate.pem"), good).unwrap();
    for name in ["enrolled.json", "statement.json"] {
        let good = fs::read(desk.path(name)).unwrap();
        fs::write(desk.path(name), &good[1..]).unwrap();
        assert!(desk.refused(desk.nonce()).contains(name));
        fs::remove_file(desk.path(name)).unwrap();
        assert!(desk.refused(desk.nonce()).contains(name));
        fs::write(desk.path(name), good).unwrap();
    }
    let short = desk.judge("00");
    assert_eq!(short.status.code(), Some(2), "a nonce that can be guessed is no nonce");
}

#[test]
fn a_challenge_is_made_for_a_named_makers_tpm_alone_and_its_secret_enrols() {
    use std::os::unix::fs::PermissionsExt;

    let desk = Desk::new();
    let challenge = |makers: &str, output: &str, keep: &str| {
        desk.run(&["challenge", "--key", "key.json", "--makers", makers, "--output", output, "--keep", keep])
    };
    let stranger = challenge("certificate.pem", "challenge.json", "expected.json");
    assert!(refused(&stranger).contains("not issued by a maker"));
    assert!(!desk.path("challenge.json").exists() && !desk.path("expected.json").exists());
    let made = challenge("maker.pem", "challenge.json", "expected.json");
    assert!(made.status.success(), "{made:?}");
    let mode = fs::metadata(desk.path("expected.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "the secret is the auditor's alone");
    let read = |name: &str| -> Value { serde_json::from_slice(&fs::read(desk.path(name)).unwrap()).unwrap() };
    let (sent, kept) = (read("challenge.json").to_string(), read("expected.json"));
    assert!(!sent.contains(kept["secret"].as_str().unwrap()));
    let again = challenge("maker.pem", "other.json", "expected.json");
    assert_eq!((again.status.code(), read("expected.json")), (Some(1), kept.clone()), "no secret is written over");
    let enrol = ["enrol", "--expected", "expected.json", "--answer", "answer.json", "--output", "own.json"];
    desk.write("answer.json", &json!({ "secret": "00".repeat(32) }));
    assert!(refused(&desk.run(&enrol)).contains("not in one TPM"));
    desk.write("answer.json", &json!({ "secret": kept["secret"] }));
    assert!(desk.run(&enrol).status.success());
    assert_eq!(read("own.json"), desk.vector["enrolled"]);
}

/// A maker whose certificate signs another's, which signs the TPM's: the one in between comes with the key, from the TPM.
#[test]
fn certificates_that_came_with_the_key_lead_to_the_maker_and_are_not_believed() {
    let desk = Desk::new();
    let (root, root_der) = authority("Root", None);
    let (between, between_der) = authority("Between", Some(&root));
    let (stranger, stranger_der) = authority("Stranger", None);
    let own = hex::decode(desk.vector["statement"]["by"]["endorsement-certificate"].as_str().unwrap()).unwrap();
    let key = SubjectPublicKeyInfo::from_der(&CertificateFacts::parse(&own).unwrap().spki_der).unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(vec![2, 23, 133, 8, 1])];
    let by = |issuer| params.clone().signed_by(&key, issuer).unwrap().der().to_vec();
    fs::write(desk.path("root.pem"), pem(&root_der)).unwrap();
    fs::write(desk.path("between.pem"), pem(&between_der)).unwrap();
    let challenge = |endorsement: &[u8], beside: &[&[u8]], more: &[&str]| {
        let mut key = desk.vector["statement"]["by"].clone();
        key["endorsement-certificate"] = hex::encode(endorsement).into();
        key["intermediates"] = beside.iter().map(hex::encode).collect();
        desk.write("key.json", &key);
        let _ = (fs::remove_file(desk.path("expected.json")), fs::remove_file(desk.path("challenge.json")));
        let files = ["--makers", "root.pem", "--output", "challenge.json", "--keep", "expected.json"];
        desk.run(&[&["challenge", "--key", "key.json"], &files[..], more].concat())
    };
    let good = by(&between);
    assert!(refused(&challenge(&good, &[], &[])).contains("not issued by a maker"));
    let accepted = |output: Output| assert!(output.status.success(), "{output:?}");
    accepted(challenge(&good, &[&between_der], &[]));
    accepted(challenge(&good, &[], &["--intermediates", "between.pem"]));
    // What is beside it and of no use does no harm.
    accepted(challenge(&good, &[b"garbage", &stranger_der, &good, &between_der], &[]));
    // A certificate of the same maker's for something else.
    let mut other = params.clone();
    other.extended_key_usages.clear();
    let other = other.signed_by(&key, &between).unwrap();
    assert!(refused(&challenge(other.der(), &[&between_der], &[])).contains("extended key usage"));
    // An authority that came from the node is none.
    assert!(refused(&challenge(&by(&stranger), &[&stranger_der, &between_der], &[])).contains("not issued by a maker"));
    for beside in [vec![&between_der[..]; 9], vec![&between_der[..], &[0x30; 4097]]] {
        assert!(refused(&challenge(&good, &beside, &[])).contains("beside the endorsement certificate"));
    }
    accepted(challenge(&good, &[&between_der[..]; 8], &[]));
    let mut key = desk.vector["statement"]["by"].clone();
    key["intermediates"] = json!(["30zz"]);
    desk.write("key.json", &key);
    let made = desk.run(&["challenge", "--key", "key.json", "--makers", "root.pem", "--output", "a", "--keep", "b"]);
    assert!(refused(&made).contains("key.json is no attestation key"));
}

#[test]
fn each_nonce_is_another() {
    let desk = Desk::new();
    let nonce = || String::from_utf8(desk.run(&["nonce"]).stdout).unwrap();
    let (one, other) = (nonce(), nonce());
    assert!(one != other && one.trim_end().len() == 64, "{one} {other}");
}
