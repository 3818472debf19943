use std::io;

use casemate_hsm_api::{Backup, KeyAlgorithm, KeyRole, LoginState, TokenInfo};
use casemate_keyring::{BrokerState, FRAMING, KeyRecord, Request, Response, Status};
use serde::Serialize;

use crate::{ConsoleError, Out, json, node::Node, table::Table, text::plain};

/// `casemate hsm list`.
pub(crate) fn list(node: &Node, as_json: bool, out: Out<'_>) -> Result<(), ConsoleError> {
    let status = status(node)?;
    if as_json {
        return json::print(&view(&status), out);
    }
    Ok(write!(out, "{}", render(&status))?)
}

/// What `--json` prints: a key is one flat object.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct View<'a> {
    state: &'a BrokerState,
    token: Option<&'a TokenInfo>,
    keys: Vec<KeyView<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct KeyView<'a> {
    role: KeyRole,
    algorithm: KeyAlgorithm,
    backup: Backup,
    /// Nothing while the token is absent.
    on_token: Option<bool>,
    token: &'a str,
    key_id: &'a str,
    fingerprint: &'a str,
}

impl<'a> KeyView<'a> {
    fn of((key, on_token): &'a (KeyRecord, Option<bool>)) -> Self {
        Self {
            role: key.role,
            algorithm: key.algorithm,
            backup: key.backup,
            on_token: *on_token,
            token: &key.token,
            key_id: &key.key_id,
            fingerprint: &key.fingerprint,
        }
    }
}

fn view(status: &Status) -> View<'_> {
    View { state: &status.state, token: status.token.as_ref(), keys: status.keys.iter().map(KeyView::of).collect() }
}

/// What the key broker says. Asked without its client, which wants a passed self-test: the operator wants the status when
/// that failed, too.
pub(crate) fn status(node: &Node) -> Result<Status, ConsoleError> {
    let server = node.config.server("keyd")?;
    let path = server.path().to_owned();
    let connect = |source: io::Error| ConsoleError::NoBroker { path: path.clone(), source };
    let mut socket = server.connect().map_err(connect)?;
    socket.set_read_timeout(Some(node.timeout())).map_err(connect)?;
    socket.set_write_timeout(Some(node.timeout())).map_err(connect)?;
    let answer = FRAMING.write(&mut socket, &Request::Status).and_then(|()| FRAMING.read(&mut socket));
    match answer {
        Ok(Some(Response::Status(status))) => Ok(status),
        Ok(Some(Response::Refused(refusal))) => Err(ConsoleError::Refused(refusal.to_string())),
        Ok(Some(_)) => Err(ConsoleError::WrongAnswer("casemate-keyd")),
        Ok(None) => Err(ConsoleError::BrokerSilent { path, source: None }),
        Err(source) => Err(ConsoleError::BrokerSilent { path, source: Some(source) }),
    }
}

/// Where the broker stands, in words.
pub(crate) fn state(state: &BrokerState) -> String {
    match state {
        BrokerState::Serving => "serving".to_owned(),
        BrokerState::Waiting(reason) => format!("waiting: {}", plain(reason)),
        BrokerState::OutOfService(reason) => format!("out of service, a person must act: {}", plain(reason)),
    }
}

fn render(status: &Status) -> String {
    let mut text = format!("broker      {}\n", state(&status.state));
    match &status.token {
        Some(token) => {
            let algorithms: Vec<String> = token.algorithms.iter().map(ToString::to_string).collect();
            let login = match token.login {
                LoginState::User => "logged in",
                LoginState::Public => "not logged in",
            };
            let lines = [
                ("token", format!("{} (serial {})", token.label, token.serial)),
                ("made by", format!("{}, {}", token.manufacturer, token.model)),
                ("firmware", token.firmware.clone()),
                ("library", token.library.clone()),
                ("mechanisms", algorithms.join(", ")),
                ("sessions", format!("{}, {login}", token.sessions)),
            ];
            for (name, value) in lines {
                text += &format!("{name:<10}  {}\n", plain(&value));
            }
        }
        None => text += "token       absent\n",
    }
    if status.keys.is_empty() {
        return text + "\nno key is recorded; run `casemate provision`\n";
    }
    let mut table = Table::new(&["ROLE", "ALGORITHM", "BACKUP", "ON TOKEN", "TOKEN", "FINGERPRINT"]);
    for (key, present) in &status.keys {
        let backup = match key.backup {
            Backup::None => "none",
            Backup::Wrapped => "wrapped",
        };
        let present = match present {
            Some(true) => "yes",
            Some(false) => "MISSING",
            None => "unknown",
        };
        table.row(&[key.role.name(), &key.algorithm.to_string(), backup, present, &key.token, &key.fingerprint]);
    }
    format!("{text}\n{table}")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn token() -> TokenInfo {
        TokenInfo {
            label: "casemate".into(),
            serial: "0123".into(),
            manufacturer: "SoftHSM project".into(),
            model: "SoftHSM v2".into(),
            firmware: "2.6".into(),
            library: "Implementation of PKCS11 2.6".into(),
            algorithms: vec![KeyAlgorithm::Rsa2048, KeyAlgorithm::P384],
            login: LoginState::User,
            sessions: 9,
        }
    }

    #[test]
    fn json_shows_a_key_as_one_flat_object() {
        let key = KeyRecord {
            role: KeyRole::Capf,
            algorithm: KeyAlgorithm::Rsa2048,
            backup: Backup::None,
            key_id: "00".into(),
            token: "0123".into(),
            fingerprint: "ab".into(),
            spki_der: Vec::new(),
        };
        let status = Status { state: BrokerState::Serving, token: Some(token()), keys: vec![(key, Some(true))] };
        let shown = serde_json::to_value(view(&status)).unwrap();
        assert_eq!(shown["keys"][0]["role"], "CAPF");
        assert_eq!(shown["keys"][0]["on-token"], true);
        assert_eq!(shown["token"]["label"], "casemate");
    }

    #[test]
    fn token_and_keys_are_shown_and_a_missing_key_stands_out() {
        let key = |role, backup| KeyRecord {
            role,
            algorithm: KeyAlgorithm::Rsa2048,
            backup,
            key_id: "00".into(),
            token: "0123".into(),
            fingerprint: "ab".into(),
            spki_der: Vec::new(),
        };
        let keys = vec![
            (key(KeyRole::ItlRecovery, Backup::Wrapped), Some(true)),
            (key(KeyRole::Tvs, Backup::None), Some(false)),
        ];
        let status = Status { state: BrokerState::Serving, token: Some(token()), keys };
        assert_eq!(
            render(&status),
            "broker      serving\n\
             token       casemate (serial 0123)\n\
             made by     SoftHSM project, SoftHSM v2\n\
             firmware    2.6\n\
             library     Implementation of PKCS11 2.6\n\
             mechanisms  RSA-2048, P-384\n\
             sessions    9, logged in\n\
             \n\
             ROLE         ALGORITHM  BACKUP   ON TOKEN  TOKEN  FINGERPRINT\n\
             ITLRecovery  RSA-2048   wrapped  yes       0123   ab\n\
             TVS          RSA-2048   none     MISSING   0123   ab\n"
        );
    }

    #[test]
    fn an_absent_token_is_said() {
        let status = Status { state: BrokerState::Waiting("no slot".into()), token: None, keys: Vec::new() };
        let text = render(&status);
        assert!(text.starts_with("broker      waiting: no slot\ntoken       absent\n"), "{text}");
    }
}
