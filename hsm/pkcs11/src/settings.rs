use std::{fmt, num::NonZeroUsize, path::PathBuf, thread, time::Duration};

use serde::{Deserialize, Serialize};

use crate::template::Usage;

/// How the token is known. A serial number is the token itself, a label is what somebody wrote on it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(from = "Said", rename_all = "kebab-case")]
pub enum TokenName {
    /// `CK_TOKEN_INFO.label`, trimmed.
    Label(String),
    /// `CK_TOKEN_INFO.serialNumber`, trimmed.
    Serial(String),
    /// Label and serial number: the very token, as long as it is called so.
    #[serde(untagged)]
    Both {
        /// `CK_TOKEN_INFO.label`, trimmed.
        label: String,
        /// `CK_TOKEN_INFO.serialNumber`, trimmed.
        serial: String,
    },
}

/// `token = "label"`, or `token = { label = "...", serial = "..." }` with one of them or both.
#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Said {
    Plain(String),
    Label { label: String },
    Serial { serial: String },
    Both { label: String, serial: String },
}

impl From<Said> for TokenName {
    fn from(said: Said) -> Self {
        match said {
            Said::Plain(label) | Said::Label { label } => Self::Label(label),
            Said::Serial { serial } => Self::Serial(serial),
            Said::Both { label, serial } => Self::Both { label, serial },
        }
    }
}

impl fmt::Display for TokenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label(text) | Self::Serial(text) => f.write_str(text),
            Self::Both { label, serial } => write!(f, "{label} ({serial})"),
        }
    }
}

/// Everything that an operator may set about a PKCS#11 token: the one home of these settings and their defaults. What belongs to
/// the process that opens it is in [`Pkcs11Files`].
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Pkcs11Settings {
    /// The vendor's library.
    pub module: PathBuf,
    /// Which token: `token = "label"`, or `token = { label = "...", serial = "..." }` with one of them or both.
    pub token: TokenName,
    /// Sessions, and so calls to the token at the same time; by default as many as processors. A network HSM may take more.
    pub sessions: usize,
    /// Requests that may wait for a session; the next one is refused as busy.
    pub queue: usize,
    /// How long a request may wait for a session, and again how long the token may take over it, in milliseconds.
    pub call_timeout_ms: u64,
    /// How long the token may take over making a key pair, in milliseconds.
    pub generate_timeout_ms: u64,
    /// Calls that may hang in the module at once. Each costs a thread, which is replaced up to this bound.
    pub hung_calls: usize,
    /// How often in a row a login may end unknown (the process died within it) before the PIN is not tried again until its
    /// file is written anew. A token that shows that a PIN was refused since is not tried again at all.
    pub unresolved_logins: u32,
    /// Whether the module may be finalised and initialised again to find a token that came back. Some modules, SoftHSM among
    /// them, look for tokens only then. It happens only while no call is in the module, and only while this process has no other
    /// token of the same module open: to the others it would be the end. Then a token that comes back is looked for without it.
    pub reinitialize: bool,
    /// Whether keys may do nothing but sign, as they should. Some modules (tpm2-pkcs11) make only RSA and EC keys that may
    /// decrypt as well, and refuse to be told otherwise. Where several modules share these settings, `sign-only = false` is for the
    /// one that `module` names.
    pub sign_only: bool,
}

impl Default for Pkcs11Settings {
    fn default() -> Self {
        Self {
            module: "/usr/lib/softhsm/libsofthsm2.so".into(),
            token: TokenName::Label("casemate".to_owned()),
            sessions: processors(),
            queue: 256,
            call_timeout_ms: 5_000,
            generate_timeout_ms: 60_000,
            hung_calls: 8,
            unresolved_logins: 3,
            reinitialize: true,
            sign_only: true,
        }
    }
}

/// As many sessions as there are processors to feed the token from, and two where there is one. More only help a token that
/// works for itself.
fn processors() -> usize {
    thread::available_parallelism().map_or(2, NonZeroUsize::get).clamp(2, 16)
}

/// The files of the process that opens a token.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Pkcs11Files {
    /// File with the user PIN: mode 0400 or 0600, owned by the user that reads it, or a credential of systemd. Read at each login,
    /// never kept.
    pub pin: PathBuf,
    /// Folder where refused PINs are remembered. It must survive restarts.
    pub state: PathBuf,
}

impl Pkcs11Settings {
    /// The token `name` behind `module`, with the defaults in all else.
    #[must_use]
    pub fn new(module: impl Into<PathBuf>, name: TokenName) -> Self {
        Self { module: module.into(), token: name, ..Self::default() }
    }

    pub(crate) const fn usage(&self) -> Usage {
        if self.sign_only { Usage::SignOnly } else { Usage::MayDecrypt }
    }

    /// The limit of a call.
    #[must_use]
    pub const fn call_timeout(&self) -> Duration {
        Duration::from_millis(self.call_timeout_ms)
    }

    /// The limit of a key generation.
    #[must_use]
    pub const fn generate_timeout(&self) -> Duration {
        Duration::from_millis(self.generate_timeout_ms)
    }
}

/// How long to wait before an absent token, or one whose PIN is locked, is looked for again: twice as long each time, up to a limit.
/// Who puts the token back or unlocks its PIN waits for at most the limit, so it is short by default: a look costs a token little.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Backoff {
    /// The first wait in milliseconds.
    pub first_ms: u64,
    /// The longest wait in milliseconds.
    pub limit_ms: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first_ms: 250, limit_ms: 5_000 }
    }
}

impl Backoff {
    /// The waits, without end.
    pub fn waits(self) -> impl Iterator<Item = Duration> {
        std::iter::successors(Some(self.first_ms.min(self.limit_ms)), move |last| {
            Some(last.saturating_mul(2).min(self.limit_ms))
        })
        .map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_has_its_default_and_a_misspelling_is_refused() {
        let read: Pkcs11Settings = toml::from_str("module = '/m.so'\ntoken = { serial = 'abc' }\n").unwrap();
        assert_eq!(read, Pkcs11Settings::new("/m.so", TokenName::Serial("abc".into())));
        assert_eq!(toml::from_str::<Pkcs11Settings>("").unwrap(), Pkcs11Settings::default());
        for bad in ["call_timeout = 3", "modul = '/m.so'", "pin = '/pin'"] {
            assert!(toml::from_str::<Pkcs11Settings>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_token_is_named_by_label_or_serial_or_both() {
        let token = |said: &str| toml::from_str::<Pkcs11Settings>(&format!("token = {said}")).map(|read| read.token);
        let label = TokenName::Label("lab".into());
        assert_eq!(token("'lab'").unwrap(), label);
        assert_eq!(token("{ label = 'lab' }").unwrap(), label);
        assert_eq!(token("{ serial = 'ab' }").unwrap(), TokenName::Serial("ab".into()));
        let both = TokenName::Both { label: "lab".into(), serial: "ab".into() };
        assert_eq!(token("{ label = 'lab', serial = 'ab' }").unwrap(), both);
        for bad in ["{ label = 'lab', name = 'ab' }", "{ name = 'lab' }", "{}", "7"] {
            assert!(token(bad).is_err(), "{bad}");
        }
        for name in [label, TokenName::Serial("ab".into()), both] {
            let settings = Pkcs11Settings::new("/m.so", name);
            let written = serde_json::to_string(&settings).unwrap();
            assert_eq!(serde_json::from_str::<Pkcs11Settings>(&written).unwrap(), settings);
        }
    }

    #[test]
    fn waits_double_up_to_the_limit() {
        let waits: Vec<u128> =
            Backoff { first_ms: 10, limit_ms: 50 }.waits().take(5).map(|wait| wait.as_millis()).collect();
        assert_eq!(waits, [10, 20, 40, 50, 50]);
        let longest = Backoff::default().waits().take(100).max();
        assert_eq!(longest, Some(Duration::from_secs(5)), "who unlocked a PIN does not wait for half a minute");
    }
}
