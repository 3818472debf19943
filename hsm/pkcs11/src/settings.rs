use std::{fmt, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

/// How the token is known. A serial number is the token itself, a label is what somebody wrote on it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenName {
    /// `CK_TOKEN_INFO.label`, trimmed.
    Label(String),
    /// `CK_TOKEN_INFO.serialNumber`, trimmed.
    Serial(String),
}

impl fmt::Display for TokenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label(text) | Self::Serial(text) => f.write_str(text),
        }
    }
}

/// Everything that an operator may set about a token.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Pkcs11Settings {
    /// The vendor's library, for SoftHSM `/usr/lib/softhsm/libsofthsm2.so`.
    pub module: PathBuf,
    /// Which token: `token = { label = "..." }` or `token = { serial = "..." }`.
    pub token: TokenName,
    /// File with the user PIN: mode 0400 or 0600, owned by the user that reads it. Read at each login, never kept.
    pub pin_file: PathBuf,
    /// Folder where refused PINs are remembered. It must survive restarts.
    pub state: PathBuf,
    /// Sessions, and so calls to the token at the same time.
    #[serde(default = "sessions")]
    pub sessions: usize,
    /// Requests that may wait for a session; the next one is refused as busy.
    #[serde(default = "queue")]
    pub queue: usize,
    /// How long a request may wait for a session, and again how long the token may take over it, in milliseconds.
    #[serde(default = "call_timeout_ms")]
    pub call_timeout_ms: u64,
    /// How long the token may take over making a key pair, in milliseconds.
    #[serde(default = "generate_timeout_ms")]
    pub generate_timeout_ms: u64,
    /// Calls that may hang in the module at once. Each costs a thread, which is replaced up to this bound.
    #[serde(default = "hung_calls")]
    pub hung_calls: usize,
    /// How often in a row a login may end unknown (the process died within it) before the PIN counts as refused. A token
    /// that shows that a PIN was refused since is not tried again at all.
    #[serde(default = "unresolved_logins")]
    pub unresolved_logins: u32,
    /// Whether the module may be finalised and initialised again to find a token that came back. Some modules, SoftHSM among
    /// them, look for tokens only then. It happens only while no call is in the module.
    #[serde(default = "reinitialize")]
    pub reinitialize: bool,
}

const fn sessions() -> usize {
    4
}

const fn queue() -> usize {
    256
}

const fn call_timeout_ms() -> u64 {
    5_000
}

const fn generate_timeout_ms() -> u64 {
    60_000
}

const fn hung_calls() -> usize {
    8
}

const fn unresolved_logins() -> u32 {
    3
}

const fn reinitialize() -> bool {
    true
}

impl Pkcs11Settings {
    /// The four that have no default, and the defaults.
    #[must_use]
    pub const fn new(module: PathBuf, token: TokenName, pin_file: PathBuf, state: PathBuf) -> Self {
        Self {
            module,
            token,
            pin_file,
            state,
            sessions: sessions(),
            queue: queue(),
            call_timeout_ms: call_timeout_ms(),
            generate_timeout_ms: generate_timeout_ms(),
            hung_calls: hung_calls(),
            unresolved_logins: unresolved_logins(),
            reinitialize: reinitialize(),
        }
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

/// How long to wait before an absent token is looked for again: twice as long each time, up to a limit.
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
        Self { first_ms: 250, limit_ms: 30_000 }
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
    fn what_is_not_said_has_a_default_and_a_misspelling_is_refused() {
        let text = "module = '/m.so'\ntoken = { serial = 'abc' }\npin-file = '/pin'\nstate = '/s'\n";
        let read: Pkcs11Settings = toml::from_str(text).unwrap();
        let made = Pkcs11Settings::new("/m.so".into(), TokenName::Serial("abc".into()), "/pin".into(), "/s".into());
        assert_eq!(read, made);
        assert!(toml::from_str::<Pkcs11Settings>(&format!("{text}call_timeout = 3\n")).is_err());
    }

    #[test]
    fn waits_double_up_to_the_limit() {
        let waits: Vec<u128> =
            Backoff { first_ms: 10, limit_ms: 50 }.waits().take(5).map(|wait| wait.as_millis()).collect();
        assert_eq!(waits, [10, 20, 40, 50, 50]);
    }
}
