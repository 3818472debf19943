use std::{io, time::Duration};

use casemate_hsm_api::{Backup, KeyAlgorithm, KeyRole, LoginState, SignatureRate, TokenInfo};
use casemate_keyring::{BrokerState, FRAMING, KeyRecord, Request, Response, Status, TokenStatus, UnrecordedKey};
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
    tokens: Vec<TokenView<'a>>,
    keys: Vec<KeyView<'a>>,
    /// Keys that are to follow those, while their roles are re-keyed.
    next: Vec<KeyView<'a>>,
    /// Keys that sign nothing any more.
    retired: Vec<RetiredView<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct RetiredView<'a> {
    role: KeyRole,
    token: &'a str,
    key_id: &'a str,
    fingerprint: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct TokenView<'a> {
    name: &'a str,
    state: &'a BrokerState,
    /// Nothing while the token is absent.
    info: Option<&'a TokenInfo>,
    /// Key pairs on it, and how many of them are on record; nothing while the token is absent.
    pairs: Option<usize>,
    pairs_on_record: Option<usize>,
    /// Those that are not, or the first of many.
    unrecorded: &'a [UnrecordedKey],
    rates: Vec<RateView>,
    roles: &'a [KeyRole],
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct RateView {
    algorithm: KeyAlgorithm,
    signatures_per_second: u64,
    #[serde(flatten)]
    measured: SignatureRate,
}

impl<'a> TokenView<'a> {
    fn of(token: &'a TokenStatus) -> Self {
        let rate = |(algorithm, measured): &(KeyAlgorithm, SignatureRate)| RateView {
            algorithm: *algorithm,
            signatures_per_second: measured.per_second(),
            measured: *measured,
        };
        Self {
            name: &token.name,
            state: &token.state,
            info: token.info.as_ref(),
            pairs: token.pairs.map(|(all, _)| all),
            pairs_on_record: token.pairs.map(|(_, recorded)| recorded),
            unrecorded: &token.unrecorded,
            rates: token.rates.iter().map(rate).collect(),
            roles: &token.roles,
        }
    }
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

impl<'a> RetiredView<'a> {
    fn of(KeyRecord { role, token, key_id, fingerprint, .. }: &'a KeyRecord) -> Self {
        Self { role: *role, token, key_id, fingerprint }
    }
}

fn view(status: &Status) -> View<'_> {
    View {
        state: &status.state,
        tokens: status.tokens.iter().map(TokenView::of).collect(),
        keys: status.keys.iter().map(KeyView::of).collect(),
        next: status.next.iter().map(KeyView::of).collect(),
        retired: status.retired.iter().map(RetiredView::of).collect(),
    }
}

/// What the key broker says.
pub(crate) fn status(node: &Node) -> Result<Status, ConsoleError> {
    match ask(node, &Request::Status, node.timeout())? {
        Response::Status(status) => Ok(status),
        _ => Err(ConsoleError::WrongAnswer("casemate-keyd")),
    }
}

/// The key broker's answer. Asked without its client, which wants a passed self-test: the operator wants the status when that
/// failed, too.
pub(crate) fn ask(node: &Node, request: &Request, limit: Duration) -> Result<Response, ConsoleError> {
    let server = node.config.server("keyd")?;
    let path = server.path().to_owned();
    let connect = |source: io::Error| ConsoleError::NoBroker { path: path.clone(), source };
    let mut socket = server.connect().map_err(connect)?;
    socket.set_read_timeout(Some(limit)).map_err(connect)?;
    socket.set_write_timeout(Some(limit)).map_err(connect)?;
    let answer = FRAMING.write(&mut socket, request).and_then(|()| FRAMING.read(&mut socket));
    match answer {
        Ok(Some(Response::Refused(refusal))) => Err(ConsoleError::Refused(refusal.to_string())),
        Ok(Some(response)) => Ok(response),
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

/// How many sessions there are, and how many the token denies us.
fn sessions(info: &TokenInfo) -> String {
    match info.refused_sessions {
        0 => format!("{}, ", info.sessions),
        refused => format!("{}, and {refused} more that the settings ask for are refused, ", info.sessions),
    }
}

/// One token with what is known of it.
fn render_token(token: &TokenStatus) -> String {
    let list = |items: Vec<String>| if items.is_empty() { "none".to_owned() } else { items.join(", ") };
    let mut lines = vec![("state", state(&token.state))];
    let head = match &token.info {
        Some(info) => {
            let login = match info.login {
                LoginState::User => "logged in",
                LoginState::Public => "not logged in",
            };
            lines.extend([
                ("made by", format!("{}, {}", info.manufacturer, info.model)),
                ("firmware", info.firmware.clone()),
                ("library", info.library.clone()),
                ("mechanisms", if info.mechanisms.is_empty() { "none".to_owned() } else { info.mechanisms.join(" ") }),
                ("algorithms", list(info.algorithms.iter().map(ToString::to_string).collect())),
                ("sessions", sessions(info) + login),
            ]);
            format!("{} (serial {}), named {}", info.label, info.serial, token.name)
        }
        None => format!("absent, named {}", token.name),
    };
    if let Some((all, recorded)) = token.pairs {
        lines.push(("keys", format!("{all} pairs, {recorded} of them on record")));
        for UnrecordedKey { label, key_id, algorithm } in &token.unrecorded {
            lines.push(("not ours", format!("{algorithm} {label:?}, {key_id}")));
        }
        match all.saturating_sub(recorded + token.unrecorded.len()) {
            0 => {}
            more => lines.push(("not ours", format!("{more} more"))),
        }
    }
    let rates: Vec<_> = token.rates.iter().map(|(algorithm, rate)| format!("{algorithm} {rate}")).collect();
    lines.push(("rate", if rates.is_empty() { "not measured by this process".to_owned() } else { list(rates) }));
    lines.push(("roles", list(token.roles.iter().map(ToString::to_string).collect())));
    lines.insert(0, ("token", head));
    lines.iter().map(|(name, value)| format!("{name:<10}  {}\n", plain(value))).collect()
}

fn render(status: &Status) -> String {
    let mut text = format!("broker      {}\n", state(&status.state));
    for token in &status.tokens {
        text += &format!("\n{}", render_token(token));
    }
    if status.keys.is_empty() {
        return text + "\nno key is recorded; run `casemate provision`\n";
    }
    let mut table = Table::new(&["ROLE", "ALGORITHM", "BACKUP", "ON TOKEN", "TOKEN", "FINGERPRINT"]);
    let next = status.next.iter().map(|key| (format!("{} (next)", key.0.role), key));
    for (role, (key, present)) in status.keys.iter().map(|key| (key.0.role.to_string(), key)).chain(next) {
        let backup = match key.backup {
            Backup::None => "none",
            Backup::Wrapped => "wrapped",
        };
        let present = match present {
            Some(true) => "yes",
            Some(false) => "MISSING",
            None => "unknown",
        };
        table.row(&[&role, &key.algorithm.to_string(), backup, present, &key.token, &key.fingerprint]);
    }
    for key in &status.retired {
        let (role, algorithm) = (format!("{} (retired)", key.role), key.algorithm.to_string());
        table.row(&[&role, &algorithm, "", "not looked for", &key.token, &key.fingerprint]);
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
            mechanisms: vec!["CKM_ECDSA".into(), "CKM_RSA_PKCS".into()],
            algorithms: vec![KeyAlgorithm::Rsa2048, KeyAlgorithm::P384],
            login: LoginState::User,
            sessions: 9,
            refused_sessions: 0,
        }
    }

    pub(crate) fn serving() -> TokenStatus {
        TokenStatus {
            name: "pkcs11:token=casemate".into(),
            state: BrokerState::Serving,
            info: Some(token()),
            pairs: Some((4, 2)),
            unrecorded: vec![UnrecordedKey {
                label: "web\u{7}".into(),
                key_id: "0a".into(),
                algorithm: KeyAlgorithm::P256,
            }],
            rates: vec![(KeyAlgorithm::Rsa2048, SignatureRate { signatures: 499, micros: 300_200 })],
            roles: vec![KeyRole::ItlRecovery, KeyRole::Tvs],
        }
    }

    fn absent() -> TokenStatus {
        TokenStatus {
            name: "tpm".into(),
            state: BrokerState::Waiting("no slot".into()),
            info: None,
            pairs: None,
            unrecorded: Vec::new(),
            rates: Vec::new(),
            roles: vec![KeyRole::Capf],
        }
    }

    fn key(role: KeyRole, backup: Backup) -> KeyRecord {
        KeyRecord {
            role,
            algorithm: KeyAlgorithm::Rsa2048,
            backup,
            key_id: "00".into(),
            token: "0123".into(),
            fingerprint: "ab".into(),
            spki_der: Vec::new(),
        }
    }

    #[test]
    fn json_shows_each_token_with_its_rates_and_a_key_as_one_flat_object() {
        let keys = vec![(key(KeyRole::Capf, Backup::None), Some(true))];
        let status = Status {
            state: BrokerState::Serving,
            tokens: vec![serving(), absent()],
            keys,
            next: Vec::new(),
            retired: Vec::new(),
            recorded: 0,
        };
        let shown = serde_json::to_value(view(&status)).unwrap();
        assert_eq!(shown["keys"][0]["role"], "CAPF");
        assert_eq!(shown["keys"][0]["on-token"], true);
        assert_eq!(shown["tokens"][0]["info"]["label"], "casemate");
        assert_eq!((&shown["tokens"][0]["pairs"], &shown["tokens"][0]["pairs-on-record"]), (&4.into(), &2.into()));
        assert_eq!(shown["tokens"][0]["unrecorded"][0]["algorithm"], "p-256");
        assert_eq!(shown["tokens"][0]["info"]["mechanisms"][1], "CKM_RSA_PKCS");
        assert_eq!(shown["tokens"][0]["rates"][0]["algorithm"], "rsa-2048");
        assert_eq!(shown["tokens"][0]["rates"][0]["signatures-per-second"], 1662);
        assert_eq!(shown["tokens"][1]["name"], "tpm");
        assert_eq!(shown["tokens"][1]["roles"][0], "CAPF");
        assert_eq!(shown["tokens"][1]["state"]["waiting"], "no slot");
    }

    #[test]
    fn tokens_and_keys_are_shown_and_a_missing_key_stands_out() {
        let keys = vec![
            (key(KeyRole::ItlRecovery, Backup::Wrapped), Some(true)),
            (key(KeyRole::Tvs, Backup::None), Some(false)),
        ];
        let state = BrokerState::Waiting("tpm: no slot".into());
        let next = vec![(key(KeyRole::Tvs, Backup::None), Some(true))];
        let retired = vec![key(KeyRole::Capf, Backup::None)];
        let status = Status { state, tokens: vec![serving(), absent()], keys, next, retired, recorded: 7 };
        assert_eq!(
            render(&status),
            "broker      waiting: tpm: no slot\n\
             \n\
             token       casemate (serial 0123), named pkcs11:token=casemate\n\
             state       serving\n\
             made by     SoftHSM project, SoftHSM v2\n\
             firmware    2.6\n\
             library     Implementation of PKCS11 2.6\n\
             mechanisms  CKM_ECDSA CKM_RSA_PKCS\n\
             algorithms  RSA-2048, P-384\n\
             sessions    9, logged in\n\
             keys        4 pairs, 2 of them on record\n\
             not ours    P-256 \"web\\u{7}\", 0a\n\
             not ours    1 more\n\
             rate        RSA-2048 1662.2 signatures/s\n\
             roles       ITLRecovery, TVS\n\
             \n\
             token       absent, named tpm\n\
             state       waiting: no slot\n\
             rate        not measured by this process\n\
             roles       CAPF\n\
             \n\
             ROLE            ALGORITHM  BACKUP   ON TOKEN        TOKEN  FINGERPRINT\n\
             ITLRecovery     RSA-2048   wrapped  yes             0123   ab\n\
             TVS             RSA-2048   none     MISSING         0123   ab\n\
             TVS (next)      RSA-2048   none     yes             0123   ab\n\
             CAPF (retired)  RSA-2048            not looked for  0123   ab\n"
        );
    }
}
