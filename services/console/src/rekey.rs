//! `casemate identity rekey`: the plan first, and nothing without a yes.

use std::{
    io::{self, BufRead},
    thread,
    time::{Duration, Instant},
};

use casemate_certmgr::{
    FinishedRekey, Request, Response,
    rekey::{RekeyPlan, Stage},
};
use casemate_hsm_api::KeyRole;
use casemate_runtime::control;

use crate::{ConsoleError, Out, arguments::Rekey, json, node::Node, text::plain};

/// Shows the plan, asks, and re-keys; with `--plan` it only shows.
pub(crate) fn run(node: &Node, asked: &Rekey, as_json: bool, out: Out<'_>) -> Result<(), ConsoleError> {
    let role = asked.role;
    let plan = plan(node, role)?;
    if !as_json {
        write!(out, "{}", render(&plan))?;
        out.flush()?;
    }
    if asked.plan {
        return if as_json { json::print(&plan, out) } else { Ok(()) };
    }
    if let Some(reason) = &plan.refused {
        return Err(ConsoleError::Refused(format!("{role} is not re-keyed: {reason}")));
    }
    if !asked.yes {
        if as_json {
            return Err(ConsoleError::NotConfirmed { role: role.to_string() });
        }
        confirm(role, &mut io::stdin().lock(), out)?;
    }
    let limit = Duration::from_millis(node.settings.provision_timeout_ms);
    match ask(node, Request::Rekey { role }, limit)? {
        Response::Rekeyed(identity) if !as_json => {
            writeln!(out, "key made and certificate {} published; phones are told next", identity.serial)?;
            out.flush()?;
        }
        Response::Rekeyed(_) => {}
        _ => return Err(WRONG_ANSWER),
    }
    let finished = finish(node, role)?;
    if as_json {
        return json::print(&finished, out);
    }
    Ok(write!(out, "{}", done(&finished))?)
}

/// `casemate identity list-signer`.
pub(crate) fn list_signer(node: &Node, role: KeyRole, as_json: bool, out: Out<'_>) -> Result<(), ConsoleError> {
    let Response::ListSigner(role) = ask(node, Request::SignLists { role }, node.timeout())? else {
        return Err(WRONG_ANSWER);
    };
    if as_json {
        return json::print(&serde_json::json!({ "list-signer": role }), out);
    }
    Ok(writeln!(
        out,
        "{role} signs the trust lists; phones that hold the list published before take them without asking anybody"
    )?)
}

const WRONG_ANSWER: ConsoleError = ConsoleError::WrongAnswer("casemate-certmgr");

fn ask(node: &Node, request: Request, limit: Duration) -> Result<Response, ConsoleError> {
    match control::call(&node.config.server("certmgr")?, &request, limit)? {
        Response::Failed(reason) => Err(ConsoleError::Refused(reason)),
        response => Ok(response),
    }
}

fn plan(node: &Node, role: KeyRole) -> Result<RekeyPlan, ConsoleError> {
    match ask(node, Request::PlanRekey { role }, node.timeout())? {
        Response::Plan(plan) => Ok(*plan),
        _ => Err(WRONG_ANSWER),
    }
}

/// Waits for the list, and that the old key is retired.
fn finish(node: &Node, role: KeyRole) -> Result<FinishedRekey, ConsoleError> {
    let end = Instant::now() + Duration::from_millis(node.settings.rekey_timeout_ms);
    loop {
        match ask(node, Request::FinishRekey { role }, node.timeout())? {
            Response::RekeyFinished(finished) => return Ok(finished),
            Response::RekeyWaits(reason) if Instant::now() >= end => {
                return Err(ConsoleError::RekeyWaits { role: role.to_string(), reason });
            }
            Response::RekeyWaits(_) => thread::sleep(Duration::from_millis(node.settings.follow_ms)),
            _ => return Err(WRONG_ANSWER),
        }
    }
}

/// Takes the role's name, typed out, for a yes.
fn confirm(role: KeyRole, input: &mut dyn BufRead, out: Out<'_>) -> Result<(), ConsoleError> {
    write!(out, "type {role} to re-key it: ")?;
    out.flush()?;
    let mut line = String::new();
    input.read_line(&mut line)?;
    if line.trim() == role.name() { Ok(()) } else { Err(ConsoleError::NotConfirmed { role: role.to_string() }) }
}

fn render(plan: &RekeyPlan) -> String {
    let stage = match plan.stage {
        Stage::NotBegun => "not begun",
        Stage::KeyMade => "under way: the next key is made",
        Stage::Certified => "under way: the new certificate is published, the old key is not retired yet",
    };
    let here = match plan.from.on_token {
        Some(true) => "",
        Some(false) => " (MISSING there)",
        None => " (away)",
    };
    let certificate = plan.from.certificate.as_deref().map(|serial| format!(", certificate {serial}"));
    let from =
        format!("token {}{here}, key {}{}", plan.from.token, plan.from.fingerprint, certificate.unwrap_or_default());
    let token = plan.to.token.as_deref().unwrap_or("away");
    let key = plan.to.fingerprint.as_deref().map_or_else(|| "a new key".to_owned(), |key| format!("key {key}"));
    let to = format!("token {token} ({}), {key}", plan.to.name);
    let since =
        plan.list_signer_since.as_deref().map_or_else(String::new, |since| format!(", certified since {since}"));
    let list = match (plan.list_signer, &plan.refused) {
        (Some(signer), _) => format!("signed by {signer}{since}"),
        (None, None) => "does not name it".to_owned(),
        (None, _) => "signed by nobody".to_owned(),
    };
    let restarts = if plan.restarts.is_empty() { "nothing".to_owned() } else { plan.restarts.join(", ") };
    let lines = [
        ("re-key", format!("{}, {stage}", plan.role)),
        ("from", from),
        ("to", to),
        ("list", list),
        ("phones", format!("{} fetch the list, {} files are signed anew", plan.phones, plan.files)),
        ("restart", restarts),
    ];
    let mut text: String = lines.iter().map(|(name, value)| format!("{name:<10}  {}\n", plain(value))).collect();
    for effect in &plan.effects {
        text += &format!("- {}\n", plain(effect));
    }
    if let Some(reason) = &plan.refused {
        text += &format!("CANNOT BEGIN NOW: {}\n", plain(reason));
    }
    text
}

fn done(finished: &FinishedRekey) -> String {
    let FinishedRekey { identity, retired, retired_token } = finished;
    format!(
        "{} is re-keyed: key {} in token {}, certificate {} until {}\nkey {retired} is retired, and stays in token {}\n",
        identity.role,
        identity.key_fingerprint,
        plain(&identity.token),
        identity.serial,
        identity.not_after,
        plain(retired_token)
    )
}

#[cfg(test)]
mod tests {
    use casemate_certmgr::rekey::{Held, Target};

    use super::*;

    fn plan() -> RekeyPlan {
        RekeyPlan {
            role: KeyRole::ItlRecovery,
            stage: Stage::NotBegun,
            from: Held { token: "T1".into(), on_token: None, fingerprint: "aa".into(), certificate: Some("4f".into()) },
            to: Target { name: "pkcs11:token=second".into(), token: Some("T2".into()), fingerprint: None },
            list_signer: Some(KeyRole::CallManager),
            list_signer_since: Some("2026-11-23T10:00:00Z".into()),
            phones: 7,
            files: 0,
            restarts: Vec::new(),
            effects: vec!["Phones\u{1b} fetch it.".into()],
            refused: None,
        }
    }

    #[test]
    fn a_plan_is_shown_whole() {
        assert_eq!(
            render(&plan()),
            "re-key      ITLRecovery, not begun\n\
             from        token T1 (away), key aa, certificate 4f\n\
             to          token T2 (pkcs11:token=second), a new key\n\
             list        signed by CallManager, certified since 2026-11-23T10:00:00Z\n\
             phones      7 fetch the list, 0 files are signed anew\n\
             restart     nothing\n\
             - Phones\\u{1b} fetch it.\n"
        );
        let refused = RekeyPlan { refused: Some("wait".into()), stage: Stage::Certified, ..plan() };
        assert!(render(&refused).ends_with("CANNOT BEGIN NOW: wait\n") && render(&refused).contains("under way"));
    }

    #[test]
    fn only_the_roles_name_is_a_yes() {
        for (typed, taken) in [("ITLRecovery\n", true), ("y\n", false), ("itlrecovery\n", false), ("", false)] {
            let confirmed = confirm(KeyRole::ItlRecovery, &mut typed.as_bytes(), &mut Vec::new());
            assert_eq!(confirmed.is_ok(), taken, "{typed:?}");
        }
    }
}
