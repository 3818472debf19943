use std::time::Duration;

use casemate_certmgr::{Provisioned, Request, Response};
use casemate_hsm_api::KeyRole;
use casemate_runtime::{
    control::{self, ControlError},
    daemon::chain,
};

use crate::{ConsoleError, Out, json, node::Node};

/// `casemate provision`: one role after the other, each shown as it is done.
pub(crate) fn run(node: &Node, as_json: bool, out: Out<'_>) -> Result<(), ConsoleError> {
    let mut done = Vec::with_capacity(KeyRole::ALL.len());
    for role in KeyRole::ALL {
        let provisioned = provision(node, role)?;
        if !as_json {
            writeln!(out, "{}", render(&provisioned))?;
            out.flush()?;
        }
        done.push(provisioned);
    }
    if as_json {
        return json::print(&done, out);
    }
    let made = done.iter().filter(|provisioned| provisioned.certificate_made).count();
    Ok(writeln!(out, "{} identities, {made} made now", done.len())?)
}

fn provision(node: &Node, role: KeyRole) -> Result<Provisioned, ConsoleError> {
    let socket = node.config.server("certmgr")?;
    let limit = Duration::from_millis(node.settings.provision_timeout_ms);
    let stopped = |reason| ConsoleError::NotProvisioned { role: role.to_string(), reason };
    match control::call(&socket, &Request::Provision { role }, limit) {
        Ok(Response::Provisioned(provisioned)) => Ok(provisioned),
        Ok(Response::Failed(reason)) => Err(stopped(reason)),
        Ok(_) => Err(ConsoleError::WrongAnswer("casemate-certmgr")),
        Err(error @ ControlError::Connect { .. }) => Err(error.into()),
        Err(error) => Err(stopped(chain(&error))),
    }
}

fn render(provisioned: &Provisioned) -> String {
    let made = match (provisioned.key_made, provisioned.certificate_made) {
        (true, true) => "key and certificate made",
        (false, true) => "certificate made",
        (true, false) => "key made",
        (false, false) => "already there",
    };
    let identity = &provisioned.identity;
    format!("{:<17}  {made:<24}  {} until {}", identity.role.name(), identity.subject, identity.not_after)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::identity;

    #[test]
    fn what_was_made_and_what_was_there_is_told_apart() {
        let of = |key_made, certificate_made| Provisioned { identity: identity(), key_made, certificate_made };
        assert_eq!(
            render(&of(true, true)),
            "CAPF               key and certificate made  CN=CAPF-0011aabb,O=Casemate until 2031-11-22T10:00:00Z"
        );
        assert_eq!(
            render(&of(false, false)),
            "CAPF               already there             CN=CAPF-0011aabb,O=Casemate until 2031-11-22T10:00:00Z"
        );
    }
}
