use std::{
    fs::File,
    io::{self, Read, Write},
    path::Path,
    time::Duration,
};

use casemate_hsm_attest::{Answer, AttestationKey, Outcome, Report};
use casemate_keyring::{Evidence, Request, Response};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    ConsoleError, Out,
    arguments::{AnswerChallenge, Attest, FromToken},
    hsm, json,
    node::Node,
    text::plain,
};

/// No challenge is longer, in bytes.
const CHALLENGE_LIMIT: u64 = 64 * 1024;

/// `casemate hsm attest`: writes what can be said of the key, and fails if that is nothing.
pub(crate) fn attest(node: &Node, asked: &Attest, as_json: bool, out: Out<'_>) -> Result<(), ConsoleError> {
    let evidence = evidence(node, &Request::Attest { role: asked.role, nonce: asked.nonce.0.clone() })?;
    let (result, unproven) = match evidence {
        Evidence::Document(document) => (Outcome::Statement(Box::new(parse(&document)?)), None),
        Evidence::Unproven(reason) => (Outcome::Unproven(reason.clone()), Some(reason)),
    };
    let what = if unproven.is_some() { "that nothing is proven" } else { "the statement" };
    give(&Report { role: asked.role, result }, what, asked.output.as_deref(), as_json, out)?;
    unproven.map_or(Ok(()), |reason| Err(ConsoleError::Unproven(plain(&reason))))
}

/// `casemate hsm attestation-key`.
pub(crate) fn attestation_key(node: &Node, asked: &FromToken, as_json: bool, out: Out<'_>) -> Result<(), ConsoleError> {
    let key: AttestationKey = document(node, &Request::AttestationKey { token: asked.token.clone() })?;
    give(&key, "the attestation key", asked.output.as_deref(), as_json, out)
}

/// `casemate hsm answer`.
pub(crate) fn answer(node: &Node, asked: &AnswerChallenge, as_json: bool, out: Out<'_>) -> Result<(), ConsoleError> {
    let challenge = read(&asked.challenge)?;
    let answer: Answer = document(node, &Request::AnswerChallenge { token: asked.from.token.clone(), challenge })?;
    give(&answer, "the answer", asked.from.output.as_deref(), as_json, out)
}

fn read(path: &Path) -> Result<String, ConsoleError> {
    let mut text = String::new();
    File::open(path).and_then(|file| file.take(CHALLENGE_LIMIT).read_to_string(&mut text)).map_err(|source| {
        ConsoleError::File {
            path: path.to_owned(),
            source,
            hint: "it is the file that the auditor wrote with `casemate-verify challenge`",
        }
    })?;
    Ok(text)
}

/// What a token has to say. A TPM may have to make its endorsement key for it, which takes it as long as any RSA key.
fn evidence(node: &Node, request: &Request) -> Result<Evidence, ConsoleError> {
    match hsm::ask(node, request, Duration::from_millis(node.settings.provision_timeout_ms))? {
        Response::Evidence(evidence) => Ok(evidence),
        _ => Err(ConsoleError::WrongAnswer("casemate-keyd")),
    }
}

fn document<T: DeserializeOwned>(node: &Node, request: &Request) -> Result<T, ConsoleError> {
    match evidence(node, request)? {
        Evidence::Document(document) => parse(&document),
        Evidence::Unproven(reason) => Err(ConsoleError::Unproven(plain(&reason))),
    }
}

fn parse<T: DeserializeOwned>(document: &str) -> Result<T, ConsoleError> {
    serde_json::from_str(document).map_err(|_| ConsoleError::WrongAnswer("casemate-keyd"))
}

/// Writes `document` to the file and says so, or prints it.
fn give(
    document: &impl Serialize,
    what: &str,
    file: Option<&Path>,
    as_json: bool,
    out: Out<'_>,
) -> Result<(), ConsoleError> {
    let Some(path) = file else { return json::print(document, out) };
    let text = serde_json::to_string_pretty(document)? + "\n";
    let failed = |source: io::Error| ConsoleError::NotWritten { path: path.to_owned(), source };
    // Root may be led to write through somebody's link; and evidence is not written over other evidence.
    let mut made = File::create_new(path).map_err(failed)?;
    made.write_all(text.as_bytes()).and_then(|()| made.sync_all()).map_err(failed)?;
    if as_json {
        return json::print(document, out);
    }
    Ok(writeln!(out, "{what} is in {}", path.display())?)
}

#[cfg(test)]
mod tests {
    use casemate_hsm_api::KeyRole;

    use super::*;

    #[test]
    fn a_document_goes_to_its_file_or_to_the_screen() {
        let report = Report { role: KeyRole::Capf, result: Outcome::Unproven("no".to_owned()) };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.json");
        let again = dir.path().join("again.json");
        let shown = |file: Option<&Path>, as_json| {
            let mut out = Vec::new();
            give(&report, "it", file, as_json, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(shown(Some(&path), false), format!("it is in {}\n", path.display()));
        let printed = shown(None, false);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), printed);
        assert_eq!(shown(Some(&again), true), printed);
        assert_eq!(serde_json::from_str::<Report>(&printed).unwrap(), report);
        for taken in [path, dir.path().join("no/such")] {
            let failed = give(&report, "it", Some(&taken), false, &mut Vec::new());
            assert!(matches!(failed, Err(ConsoleError::NotWritten { .. })), "{failed:?}");
        }
    }
}
