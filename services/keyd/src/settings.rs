use std::{env, path::PathBuf};

use casemate_hsm_pkcs11::{Backoff, Pkcs11Settings, TokenName};
use casemate_runtime::config::Paths;
use casemate_store::StoreSettings;
use serde::Deserialize;

use crate::{JudgeLimits, KeydError};

/// `[keyd]` of the settings file.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// File with the token's user PIN, mode 0400, keyd's own. By default the credential `pin` that systemd loaded.
    pub pin_file: Option<PathBuf>,
    /// How often a PIN file is looked at after its PIN was refused, in milliseconds. The PIN itself is tried only when the
    /// file changed.
    pub pin_poll_ms: u64,
    /// The token.
    pub pkcs11: TokenSettings,
    /// How long to wait before an absent token is looked for again.
    pub backoff: Backoff,
    /// The record of signatures.
    pub record: RecordSettings,
    /// The socket.
    pub connections: ConnectionSettings,
    /// What is signed at most.
    pub limits: JudgeLimits,
    /// The records of keys.
    pub store: StoreSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            pin_file: None,
            pin_poll_ms: 2_000,
            pkcs11: TokenSettings::default(),
            backoff: Backoff::default(),
            record: RecordSettings::default(),
            connections: ConnectionSettings::default(),
            limits: JudgeLimits::default(),
            store: StoreSettings::default(),
        }
    }
}

impl Settings {
    /// Where the PIN is.
    ///
    /// # Errors
    /// [`KeydError::NoPinFile`].
    pub fn pin_file(&self) -> Result<PathBuf, KeydError> {
        let credential = || env::var_os("CREDENTIALS_DIRECTORY").map(|folder| PathBuf::from(folder).join("pin"));
        self.pin_file.clone().or_else(credential).ok_or(KeydError::NoPinFile)
    }

    /// The settings of the token's store, with the folder where refused PINs are remembered.
    ///
    /// # Errors
    /// [`KeydError::NoPinFile`].
    pub fn token_store(&self, paths: &Paths) -> Result<Pkcs11Settings, KeydError> {
        let token = &self.pkcs11;
        let name = match &token.token {
            TokenSetting::Label(label) => TokenName::Label(label.clone()),
            TokenSetting::Named(name) => name.clone(),
        };
        Ok(Pkcs11Settings {
            module: token.module.clone(),
            token: name,
            pin_file: self.pin_file()?,
            state: paths.state_of("keyd"),
            sessions: token.sessions,
            queue: token.queue,
            call_timeout_ms: token.call_timeout_ms,
            generate_timeout_ms: token.generate_timeout_ms,
            hung_calls: token.hung_calls,
            unresolved_logins: token.unresolved_logins,
            reinitialize: token.reinitialize,
        })
    }
}

/// `token = "label"`, `token = { label = "..." }` or `token = { serial = "..." }`.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum TokenSetting {
    /// A label alone.
    Label(String),
    /// Label or serial.
    Named(TokenName),
}

/// `[keyd.pkcs11]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct TokenSettings {
    /// The vendor's library.
    pub module: PathBuf,
    /// Which token.
    pub token: TokenSetting,
    /// Sessions, and so signatures at the same time.
    pub sessions: usize,
    /// Requests that may wait for a session.
    pub queue: usize,
    /// How long a request may wait, and again how long the token may take, in milliseconds.
    pub call_timeout_ms: u64,
    /// How long the token may take to make a key pair, in milliseconds.
    pub generate_timeout_ms: u64,
    /// Calls that may hang in the module at once. Each costs a thread, which is replaced up to this bound.
    pub hung_calls: usize,
    /// How often in a row a login may end unknown before the PIN counts as refused.
    pub unresolved_logins: u32,
    /// Whether the module may be started anew to find a token that came back.
    pub reinitialize: bool,
}

impl Default for TokenSettings {
    fn default() -> Self {
        Self {
            module: "/usr/lib/softhsm/libsofthsm2.so".into(),
            token: TokenSetting::Label("casemate".into()),
            sessions: 4,
            queue: 256,
            call_timeout_ms: 5_000,
            generate_timeout_ms: 60_000,
            hung_calls: 8,
            unresolved_logins: 3,
            reinitialize: true,
        }
    }
}

/// `[keyd.record]`: the record of signatures, which is on disk before a certificate, list or file signature exists.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RecordSettings {
    /// A file of so many bytes is put aside and a new one begun.
    pub file_bytes: u64,
    /// How many files that were put aside are kept.
    pub keep: u32,
    /// Records that may wait for the disk; one more is refused.
    pub queue: usize,
}

impl Default for RecordSettings {
    fn default() -> Self {
        Self { file_bytes: 64 << 20, keep: 16, queue: 1024 }
    }
}

/// `[keyd.connections]`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ConnectionSettings {
    /// Connections at a time; each is a thread.
    pub limit: usize,
    /// Connections of one user at a time.
    pub limit_per_user: usize,
    /// An idle connection is closed after so many milliseconds, and so is one whose request is not whole so long after its first
    /// byte, or whose answer is not taken.
    pub timeout_ms: u64,
}

impl Default for ConnectionSettings {
    fn default() -> Self {
        Self { limit: 256, limit_per_user: 128, timeout_ms: 30_000 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_named_by_label_or_serial() {
        let store = |text: &str| {
            let settings: Settings = toml::from_str(&format!("pin-file = '/p'\n{text}")).unwrap();
            settings.token_store(&Paths::default()).unwrap()
        };
        let label = TokenName::Label("lab".into());
        assert_eq!(store("pkcs11 = { module = '/m.so', token = 'lab' }").token, label);
        assert_eq!(store("[pkcs11]\ntoken = { label = 'lab' }").token, label);
        assert_eq!(store("[pkcs11]\ntoken = { serial = 'ab' }").token, TokenName::Serial("ab".into()));
        assert_eq!(store("").pin_file, PathBuf::from("/p"));
    }

    #[test]
    fn every_setting_of_the_store_can_be_set_and_has_its_default() {
        let store = |text: &str| {
            let settings: Settings =
                toml::from_str(&format!("pin-file = '/p'\n[pkcs11]\nmodule = '/m.so'\n{text}")).unwrap();
            settings.token_store(&Paths::default()).unwrap()
        };
        let state = Paths::default().state_of("keyd");
        let default = Pkcs11Settings::new("/m.so".into(), TokenName::Label("casemate".into()), "/p".into(), state);
        assert_eq!(store(""), default);
        let set = Pkcs11Settings {
            sessions: 1,
            queue: 2,
            call_timeout_ms: 3,
            generate_timeout_ms: 4,
            hung_calls: 5,
            unresolved_logins: 6,
            reinitialize: false,
            ..default
        };
        let text = "sessions = 1\nqueue = 2\ncall-timeout-ms = 3\ngenerate-timeout-ms = 4\nhung-calls = 5\n\
                    unresolved-logins = 6\nreinitialize = false";
        assert_eq!(store(text), set);
    }

    #[test]
    fn a_misspelt_key_is_refused() {
        assert!(toml::from_str::<Settings>("pinfile = '/p'").is_err());
        assert!(toml::from_str::<Settings>("[record]\nfile-byte = 1").is_err());
        assert!(toml::from_str::<Settings>("pkcs11 = { modul = '/m.so' }").is_err());
    }
}
