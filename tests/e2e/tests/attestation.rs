//! An auditor proves that a key lives in a TPM, with the console on the node and casemate-verify on a machine of his own; and
//! whatever is not true proves nothing, with its reason.
#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

mod forgery;

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use casemate_harness::{Lab, LabError, LabSettings, Tokens, programs};
use casemate_pki::CertificateFacts;
use forgery::Forger;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde_json::{Value, json};
use tempfile::TempDir;

/// ITLRecovery and tomcat in a TPM with a certificate of its maker, the rest in SoftHSM.
fn lab(name: &str) -> Lab {
    let lab = Lab::prepare(LabSettings { tokens: Tokens::Split, ..LabSettings::for_test(name) }).unwrap();
    let text = fs::read_to_string(lab.role_tokens()).unwrap();
    let line = "ITLRecovery = \"tpm\"\n";
    assert!(text.contains(line), "{text}");
    fs::write(lab.role_tokens(), text.replace(line, &format!("{line}tomcat = \"tpm\"\n"))).unwrap();
    lab.postd(&[]).unwrap();
    lab.start_daemons().unwrap();
    lab.casemate(&["provision"]).unwrap();
    lab
}

/// The auditor's machine: a folder to which files are carried.
struct Auditor(TempDir);

impl Auditor {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn read(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(name)).unwrap()).unwrap()
    }

    fn write(&self, name: &str, document: &Value) {
        fs::write(self.path(name), document.to_string()).unwrap();
    }

    fn verify(&self, arguments: &[&str]) -> Output {
        let program = programs().join("casemate-verify");
        Command::new(program).args(arguments).current_dir(self.0.path()).env_clear().output().unwrap()
    }

    fn done(&self, arguments: &[&str]) -> String {
        let output = self.verify(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Why nothing is proven; nothing else is told.
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.verify(arguments);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), &*output.stdout), (Some(1), &b""[..]), "{text}");
        assert!(text.starts_with("casemate-verify: nothing is proven: "), "{text}");
        text
    }

    fn nonce(&self) -> String {
        self.done(&["nonce"]).trim_end().to_owned()
    }

    /// Makes a challenge for the key in the file `name`.key.json, as the maker of `lab`'s TPM allows it.
    fn challenge(&self, maker: &str, name: &str) -> [String; 9] {
        ["challenge", "--key", &format!("{name}.key.json"), "--makers", maker, "--output"]
            .map(str::to_owned)
            .into_iter()
            .chain([format!("{name}.challenge.json"), "--keep".to_owned(), format!("{name}.expected.json")])
            .collect::<Vec<_>>()
            .try_into()
            .unwrap()
    }

    /// Enrols the TPM of `lab` under `name`.
    fn enrol(&self, lab: &Lab, name: &str) {
        lab.casemate(&["hsm", "attestation-key", "--output", &self.path(&format!("{name}.key.json"))]).unwrap();
        let told = self.done(&self.challenge(&maker(lab), name).each_ref().map(String::as_str));
        assert!(told.contains("CN=swtpm-localca"), "{told}");
        let (challenge, answer) = (format!("{name}.challenge.json"), format!("{name}.answer.json"));
        lab.casemate(&["hsm", "answer", &self.path(&challenge), "--output", &self.path(&answer)]).unwrap();
        let (expected, enrolled) = (format!("{name}.expected.json"), format!("{name}.enrolled.json"));
        self.done(&["enrol", "--expected", &expected, "--answer", &answer, "--output", &enrolled]);
    }
}

fn maker(lab: &Lab) -> String {
    lab.layout.tpm_maker().join("cert.pem").display().to_string()
}

fn certificate(lab: &Lab, role: &str) -> PathBuf {
    lab.published("certmgr", &format!("{role}.pem"))
}

/// Has the node of `lab` write its statement on `role` to the file `name` of the auditor.
fn attest(lab: &Lab, auditor: &Auditor, role: &str, nonce: &str, name: &str) {
    lab.casemate(&["hsm", "attest", role, "--nonce", nonce, "--output", &auditor.path(name)]).unwrap();
}

fn judgment<'a>(enrolled: &'a str, statement: &'a str, certificate: &'a str, nonce: &'a str) -> [&'a str; 9] {
    ["statement", "--enrolled", enrolled, "--statement", statement, "--certificate", certificate, "--nonce", nonce]
}

fn failed(result: Result<String, LabError>) -> String {
    let Err(LabError::Failed { output, .. }) = result else { panic!("{result:?}") };
    output
}

#[test]
fn a_true_statement_is_proven_and_everything_else_is_nothing() {
    let (lab, auditor) = (lab("attestation"), Auditor::new());
    auditor.enrol(&lab, "node");
    let nonce = auditor.nonce();
    attest(&lab, &auditor, "tomcat", &nonce, "tomcat.json");
    let tomcat = certificate(&lab, "tomcat").display().to_string();
    let judge = |statement: &str, certificate: &str, nonce: &str| {
        auditor.refused(&judgment("node.enrolled.json", statement, certificate, nonce))
    };

    let told = auditor.done(&judgment("node.enrolled.json", "tomcat.json", &tomcat, &nonce));
    let listed: Value = serde_json::from_str(&lab.casemate(&["hsm", "list", "--json"]).unwrap()).unwrap();
    let tokens = listed["tokens"].as_array().unwrap();
    let tpm = tokens.iter().find(|token| token["name"] == "tpm").unwrap();
    let key = listed["keys"].as_array().unwrap().iter().find(|key| key["role"] == "tomcat").unwrap();
    for fact in [
        "made          in this TPM, by the TPM itself".to_owned(),
        "leaves it     never".to_owned(),
        "certified by  CN=swtpm-localca".to_owned(),
        format!("firmware      {} (0x", tpm["info"]["firmware"].as_str().unwrap()),
        format!("its key       SHA-256 {}", key["fingerprint"].as_str().unwrap()),
    ] {
        assert!(told.contains(&fact), "{fact}: {told}");
    }

    // A flipped bit, anywhere.
    let report = auditor.read("tomcat.json");
    let fields = ["public", "certify", "signature", "by/public", "by/endorsement-certificate"];
    for field in fields.into_iter().chain(["quote/quoted", "quote/signature", "quote/pcrs/4/sha256"]) {
        let at = format!("/result/statement/{field}");
        let mut bytes = hex::decode(report.pointer(&at).unwrap().as_str().unwrap()).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        let mut flipped = report.clone();
        *flipped.pointer_mut(&at).unwrap() = hex::encode(bytes).into();
        auditor.write("flipped.json", &flipped);
        judge("flipped.json", &tomcat, &nonce);
    }

    // The PCR values are those that another program reads, and no others are believed: of another machine, or of an old statement.
    let told_pcr = |index: u8| {
        let line = told.lines().find(|line| line.starts_with(&format!("  PCR {index} "))).unwrap();
        line.split_whitespace().last().unwrap().to_owned()
    };
    assert_eq!(
        (told_pcr(0), told_pcr(11)),
        ("00".repeat(32), "00".repeat(32)),
        "swtpm without firmware measures nothing"
    );
    let mut invented = report.clone();
    *invented.pointer_mut("/result/statement/quote/pcrs/8/sha256").unwrap() = "ab".repeat(32).into();
    auditor.write("invented.json", &invented);
    assert!(judge("invented.json", &tomcat, &nonce).contains("quoted other values"));
    let (other, mut replayed) = (auditor.nonce(), report.clone());
    attest(&lab, &auditor, "tomcat", &other, "other.json");
    let of_other = auditor.read("other.json");
    replayed["result"]["statement"]["quote"] = of_other["result"]["statement"]["quote"].clone();
    auditor.write("replayed.json", &replayed);
    assert!(judge("replayed.json", &tomcat, &nonce).contains("nonce"));

    // Another key's certificate, another nonce.
    let capf = certificate(&lab, "CAPF").display().to_string();
    assert!(judge("tomcat.json", &capf, &nonce).contains("about another key"));
    assert!(judge("tomcat.json", &tomcat, &auditor.nonce()).contains("nonce"));

    // A key that may be backed up may leave.
    attest(&lab, &auditor, "ITLRecovery", &nonce, "recovery.json");
    let recovery = certificate(&lab, "ITLRecovery").display().to_string();
    let reason = judge("recovery.json", &recovery, &nonce);
    assert!(reason.contains("not bound to its TPM: fixedTPM is clear"), "{reason}");

    // A key in software: the node says so, and so does the auditor's program.
    let said =
        failed(lab.casemate(&["hsm", "attest", "CAPF", "--nonce", &nonce, "--output", &auditor.path("capf.json")]));
    assert!(said.contains("unproven: the token's vendor offers no statement"), "{said}");
    let reason = judge("capf.json", &capf, &nonce);
    assert!(reason.contains("CAPF") && reason.contains("vendor offers no statement"), "{reason}");
    let pkcs11 = ["hsm", "attestation-key", "--token", "pkcs11:token=casemate-lab"];
    assert!(failed(lab.casemate(&pkcs11)).contains("unproven"));

    // A node that lies: statements made by hand for the key in software.
    let spki = CertificateFacts::parse(&CertificateDer::from_pem_file(&capf).unwrap()).unwrap().spki_der;
    let forger = Forger::new();
    let endorsed = report.pointer("/result/statement/by").unwrap();
    let mut beside = endorsed.clone();
    beside["public"] = json!(hex::encode(forger.area()));
    for (by, reason) in [(beside, "nobody endorsed"), (endorsed.clone(), "signature of the statement does not verify")]
    {
        let statement = forger.statement(&spki, &hex::decode(&nonce).unwrap(), &by);
        auditor.write("forged.json", &json!({ "role": "CAPF", "result": { "statement": statement } }));
        let said = judge("forged.json", &capf, &nonce);
        assert!(said.contains(reason), "{said}");
        // The forger's key under the good TPM's certificate: the TPM does not answer for it.
        if by != *endorsed {
            auditor.write("forged.key.json", &by);
            auditor.done(&auditor.challenge(&maker(&lab), "forged").each_ref().map(String::as_str));
            let answered = failed(lab.casemate(&["hsm", "answer", &auditor.path("forged.challenge.json")]));
            assert!(answered.contains("the challenge is for another attestation key"), "{answered}");
            auditor.write("forged.answer.json", &json!({ "secret": "00".repeat(32) }));
            let enrol = [
                "--expected",
                "forged.expected.json",
                "--answer",
                "forged.answer.json",
                "--output",
                "forged.enrolled.json",
            ];
            assert!(
                auditor.refused(&[&["enrol"], &enrol[..]].concat()).contains("the answer to the challenge is wrong")
            );
        }
    }

    // All of it is in the audit trail.
    let attested = lab.wait_for_events("KeyAttested", 4).unwrap();
    let of = |role: &str| attested.iter().find(|event| event["CASEMATE_ROLE"] == role).unwrap();
    assert_eq!(
        (&of("tomcat")["CASEMATE_NONCE"], &of("tomcat")["CASEMATE_OUTCOME"]),
        (&json!(nonce), &json!("statement given"))
    );
    assert!(of("CAPF")["CASEMATE_OUTCOME"].as_str().unwrap().starts_with("unproven, "));
    assert_eq!(lab.wait_for_events("AttestationKeyShown", 2).unwrap().len(), 2);
    assert_eq!(lab.wait_for_events("ChallengeAnswered", 1).unwrap().len(), 1);
    let refused = lab.wait_for_events("AttestationRefused", 1).unwrap();
    assert!(refused[0]["CASEMATE_REASON"].as_str().unwrap().contains("another attestation key"), "{refused:?}");
    assert_eq!(lab.starts("keyd"), 1);
    lab.casemate(&["provision"]).unwrap();
}

/// A real TPM that nobody endorsed, or another maker did, says nothing to this auditor.
#[test]
fn a_statement_of_another_tpm_is_nothing() {
    let (ours, theirs, auditor) = (lab("attestation-ours"), lab("attestation-theirs"), Auditor::new());
    auditor.enrol(&ours, "ours");
    let nonce = auditor.nonce();
    attest(&theirs, &auditor, "tomcat", &nonce, "theirs.json");
    let certificate = certificate(&theirs, "tomcat").display().to_string();
    let judged = judgment("ours.enrolled.json", "theirs.json", &certificate, &nonce);
    assert!(auditor.refused(&judged).contains("nobody endorsed"));
    theirs.casemate(&["hsm", "attestation-key", "--output", &auditor.path("unnamed.key.json")]).unwrap();
    let unnamed = auditor.challenge(&maker(&ours), "unnamed");
    assert!(auditor.refused(&unnamed.each_ref().map(String::as_str)).contains("not issued by a maker that was named"));
    // Their attestation key under our TPM's certificate: neither TPM answers.
    let mut mixed = auditor.read("unnamed.key.json");
    mixed["endorsement-certificate"] = auditor.read("ours.key.json")["endorsement-certificate"].clone();
    auditor.write("mixed.key.json", &mixed);
    auditor.done(&auditor.challenge(&maker(&ours), "mixed").each_ref().map(String::as_str));
    for (lab, reason) in [(&ours, "for another attestation key"), (&theirs, "for another TPM")] {
        let answered = failed(lab.casemate(&["hsm", "answer", &auditor.path("mixed.challenge.json")]));
        assert!(answered.contains(reason), "{answered}");
    }
    auditor.enrol(&theirs, "theirs");
    let judged = judgment("theirs.enrolled.json", "theirs.json", &certificate, &nonce);
    auditor.done(&judged);
}
