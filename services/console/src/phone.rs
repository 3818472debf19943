use casemate_capf::{
    authentication::{AuthenticationString, Mode},
    control::{Authentication, PAGE_LIMIT, Phone, Request, Response},
};
use casemate_runtime::control;
use serde::Serialize;

use crate::{ConsoleError, Out, arguments::AddPhone, json, node::Node, table::Table, text::date};

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Added<'a> {
    name: &'a str,
    operation: i64,
    mode: Mode,
    key: casemate_hsm_api::KeyAlgorithm,
}

/// `casemate phone add`. The authentication string goes to capf and nowhere else.
pub(crate) fn add(node: &Node, phone: &AddPhone, as_json: bool, out: Out<'_>) -> Result<(), ConsoleError> {
    let (authentication, mode) = match &phone.string {
        Some(digits) => {
            let string = AuthenticationString::try_from(digits.clone()).map_err(|_| ConsoleError::BadString)?;
            (Authentication::String(string), Mode::AuthenticationString)
        }
        None => (Authentication::NullString, Mode::NullString),
    };
    let request = Request::AddPhone { name: phone.name.clone(), authentication, key: phone.key };
    let operation = match ask(node, &request)? {
        Response::Added { operation } => operation,
        Response::Phones(_) | Response::Devices(_) | Response::Refused(_) => return Err(wrong_answer()),
    };
    let added = Added { name: phone.name.as_str(), operation, mode, key: phone.key };
    if as_json {
        return json::print(&added, out);
    }
    Ok(writeln!(out, "{}: operation {operation}, install an {} certificate by {mode}", added.name, added.key)?)
}

/// `casemate phone list`.
pub(crate) fn list(node: &Node, as_json: bool, out: Out<'_>) -> Result<(), ConsoleError> {
    let mut phones: Vec<Phone> = Vec::new();
    loop {
        let after = phones.last().map(|phone| phone.name.clone());
        let limit = node.settings.page.clamp(1, PAGE_LIMIT);
        match ask(node, &Request::ListPhones { after, limit })? {
            Response::Phones(page) if page.is_empty() => break,
            Response::Phones(page) => phones.extend(page),
            Response::Added { .. } | Response::Devices(_) | Response::Refused(_) => return Err(wrong_answer()),
        }
    }
    if as_json {
        return json::print(&phones, out);
    }
    Ok(write!(out, "{}", render(&phones))?)
}

fn ask(node: &Node, request: &Request) -> Result<Response, ConsoleError> {
    match control::call(&node.config.server("capf")?, request, node.timeout())? {
        Response::Refused(reason) => Err(ConsoleError::Refused(reason)),
        answer => Ok(answer),
    }
}

const fn wrong_answer() -> ConsoleError {
    ConsoleError::WrongAnswer("casemate-capf")
}

fn render(phones: &[Phone]) -> String {
    if phones.is_empty() {
        return "no phone yet; run `casemate phone add NAME --string DIGITS`\n".to_owned();
    }
    let mut table =
        Table::new(&["NAME", "OPERATION", "MODE", "KEY", "FAILURES", "EXPIRES", "CERTIFICATE", "NOT AFTER"]);
    for phone in phones {
        table.row(&[
            phone.name.as_str(),
            &phone.operation,
            phone.mode.name(),
            &phone.key.to_string(),
            &phone.failures.to_string(),
            &date(phone.expires),
            phone.serial.as_deref().unwrap_or("-"),
            &date(phone.not_after),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use casemate_hsm_api::KeyAlgorithm;

    use super::*;

    #[test]
    fn a_phone_is_one_line() {
        let mut phone = Phone {
            name: "SEP001122334455".parse().unwrap(),
            mode: Mode::AuthenticationString,
            key: KeyAlgorithm::Rsa2048,
            operation: "pending".into(),
            failures: 2,
            expires: None,
            serial: None,
            not_after: None,
        };
        let first = phone.clone();
        (phone.name, phone.mode) = ("SEPAABBCCDDEEFF".parse().unwrap(), Mode::NullString);
        (phone.operation, phone.failures, phone.expires) = ("delivered".into(), 0, Some(86_400));
        (phone.serial, phone.not_after) = (Some("4f00".into()), Some(0));
        assert_eq!(
            render(&[first, phone]),
            "NAME             OPERATION  MODE                   KEY       FAILURES  EXPIRES               CERTIFICATE  NOT AFTER\n\
             SEP001122334455  pending    authentication-string  RSA-2048  2         -                     -            -\n\
             SEPAABBCCDDEEFF  delivered  null-string            RSA-2048  0         1970-01-02T00:00:00Z  4f00         1970-01-01T00:00:00Z\n"
        );
        assert!(render(&[]).contains("casemate phone add"));
    }
}
