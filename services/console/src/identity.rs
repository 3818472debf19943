use casemate_certmgr::{Identity, Request, Response};
use casemate_runtime::control;

use crate::{ConsoleError, Out, json, node::Node, table::Table};

/// `casemate identity list`.
pub(crate) fn list(node: &Node, as_json: bool, out: Out<'_>) -> Result<(), ConsoleError> {
    let socket = node.config.server("certmgr")?;
    let identities = match control::call(&socket, &Request::Identities, node.timeout())? {
        Response::Identities(identities) => identities,
        Response::Failed(reason) => return Err(ConsoleError::Refused(reason)),
        _ => return Err(ConsoleError::WrongAnswer("casemate-certmgr")),
    };
    if as_json {
        return json::print(&identities, out);
    }
    Ok(write!(out, "{}", render(&identities))?)
}

fn render(identities: &[Identity]) -> String {
    if identities.is_empty() {
        return "no identity yet; run `casemate provision`\n".to_owned();
    }
    let mut table = Table::new(&["ROLE", "SUBJECT", "NOT AFTER", "SERIAL"]);
    for identity in identities {
        table.row(&[identity.role.name(), &identity.subject, &identity.not_after, &identity.serial]);
    }
    let details = identities.iter().map(|identity| {
        format!(
            "\n{}\n  certificate  SHA-256 {}\n  key          SHA-256 {}, token {}\n  published    {}\n",
            identity.role, identity.fingerprint, identity.key_fingerprint, identity.token, identity.published
        )
    });
    details.fold(table.to_string(), |text, detail| text + &detail)
}

#[cfg(test)]
pub(crate) mod tests {
    use casemate_hsm_api::KeyRole;

    use super::*;

    pub(crate) fn identity() -> Identity {
        Identity {
            role: KeyRole::Capf,
            subject: "CN=CAPF-0011aabb,O=Casemate".into(),
            serial: "4f00".into(),
            not_after: "2031-11-22T10:00:00Z".into(),
            fingerprint: "aa".into(),
            key_fingerprint: "bb".into(),
            token: "0123".into(),
            published: "/var/lib/casemate/certmgr/public/CAPF.pem".into(),
        }
    }

    #[test]
    fn an_identity_is_shown_with_certificate_key_and_file() {
        assert_eq!(
            render(&[identity()]),
            "ROLE  SUBJECT                      NOT AFTER             SERIAL\n\
             CAPF  CN=CAPF-0011aabb,O=Casemate  2031-11-22T10:00:00Z  4f00\n\
             \nCAPF\n  certificate  SHA-256 aa\n  key          SHA-256 bb, token 0123\n  \
             published    /var/lib/casemate/certmgr/public/CAPF.pem\n"
        );
        assert!(render(&[]).contains("casemate provision"));
    }

    #[test]
    fn json_uses_the_guides_names_of_roles() {
        let value = serde_json::to_value(identity()).unwrap();
        assert_eq!(value["role"], "CAPF");
        assert_eq!(value["key-fingerprint"], "bb");
    }
}
