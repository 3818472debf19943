use std::{env, path::PathBuf};

use casemate_hsm_pkcs11::{Backoff, Pkcs11Files, Pkcs11Settings};
use casemate_runtime::config::Paths;
use casemate_store::StoreSettings;
use serde::{Deserialize, Deserializer, de::Error};

use crate::{JudgeLimits, KeydError};

/// `[keyd]` of the settings file. Reading it refuses what keyd could not serve or record with.
#[derive(Clone, Debug, Deserialize)]
// The derived reading becomes a function of this type, called by the one below, which looks at the values as well.
#[serde(remote = "Self", default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// File with the token's user PIN, mode 0400, keyd's own. By default the credential `pin` that systemd loaded.
    pub pin_file: Option<PathBuf>,
    /// How often a PIN file is looked at after its PIN was refused, in milliseconds. The PIN itself is tried only when the
    /// file changed.
    pub pin_poll_ms: u64,
    /// The token, a PKCS#11 one. Its settings are those of the crate that opens it, as those of another kind of token would be.
    pub pkcs11: Pkcs11Settings,
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
            pkcs11: Pkcs11Settings::default(),
            backoff: Backoff::default(),
            record: RecordSettings::default(),
            connections: ConnectionSettings::default(),
            limits: JudgeLimits::default(),
            store: StoreSettings::default(),
        }
    }
}

impl Settings {
    /// The first of the settings that is zero where that would serve nobody, ask the token without a pause, or keep no record.
    fn useless_zero(&self) -> Option<&'static str> {
        let Self { pin_file: _, pin_poll_ms, pkcs11, backoff, record, connections, limits, store } = self;
        let zeros = [
            ("pin-poll-ms", *pin_poll_ms == 0),
            ("pkcs11.sessions", pkcs11.sessions == 0),
            ("pkcs11.queue", pkcs11.queue == 0),
            ("pkcs11.call-timeout-ms", pkcs11.call_timeout_ms == 0),
            ("pkcs11.generate-timeout-ms", pkcs11.generate_timeout_ms == 0),
            ("backoff.first-ms", backoff.first_ms == 0),
            ("backoff.limit-ms", backoff.limit_ms == 0),
            ("record.file-bytes", record.file_bytes == 0),
            ("record.keep", record.keep == 0),
            ("record.queue", record.queue == 0),
            ("connections.limit", connections.limit == 0),
            ("connections.limit-per-user", connections.limit_per_user == 0),
            ("connections.timeout-ms", connections.timeout_ms == 0),
            ("limits.device-validity-days", limits.device_validity_days == 0),
            ("limits.device-start-hours", limits.device_start_hours == 0),
            ("limits.identity-start-hours", limits.identity_start_hours == 0),
            ("limits.files.list-bytes", limits.files.list_bytes == 0),
            ("limits.files.file-bytes", limits.files.file_bytes == 0),
            ("store.readers", store.readers == 0),
            ("store.queue", store.queue == 0),
            ("store.batch", store.batch == 0),
            ("store.wait-ms", store.wait_ms == 0),
        ];
        zeros.into_iter().find_map(|(key, is_zero)| is_zero.then_some(key))
    }

    /// Where the PIN is.
    ///
    /// # Errors
    /// [`KeydError::NoPinFile`].
    pub fn pin_file(&self) -> Result<PathBuf, KeydError> {
        let credential = || env::var_os("CREDENTIALS_DIRECTORY").map(|folder| PathBuf::from(folder).join("pin"));
        self.pin_file.clone().or_else(credential).ok_or(KeydError::NoPinFile)
    }

    /// The PIN file, and the folder where refused PINs are remembered.
    ///
    /// # Errors
    /// [`KeydError::NoPinFile`].
    pub fn token_files(&self, paths: &Paths) -> Result<Pkcs11Files, KeydError> {
        Ok(Pkcs11Files { pin: self.pin_file()?, state: paths.state_of("keyd") })
    }
}

impl<'de> Deserialize<'de> for Settings {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let settings = Self::deserialize(from)?;
        match settings.useless_zero() {
            Some(key) => Err(D::Error::custom(format!("{key} is 0, with which keyd could not serve; set at least 1"))),
            None => Ok(settings),
        }
    }
}

/// `[keyd.record]`: the record of signatures, which is on disk before a certificate, list or file signature exists.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RecordSettings {
    /// A file of so many bytes is put aside and a new one begun.
    pub file_bytes: u64,
    /// How many files that were put aside are kept; at least one, for else the record would be gone whenever it is full.
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
    use casemate_hsm_pkcs11::TokenName;

    use super::*;

    #[test]
    fn the_tokens_settings_are_those_of_its_crate() {
        let settings: Settings =
            toml::from_str("pin-file = '/p'\n[pkcs11]\ntoken = { serial = 'ab' }\nsessions = 7").unwrap();
        let token = Pkcs11Settings { token: TokenName::Serial("ab".into()), sessions: 7, ..Pkcs11Settings::default() };
        assert_eq!(settings.pkcs11, token);
        let files = settings.token_files(&Paths::default()).unwrap();
        assert_eq!(files, Pkcs11Files { pin: "/p".into(), state: Paths::default().state_of("keyd") });
    }

    #[test]
    fn a_zero_with_which_keyd_could_not_serve_is_refused_by_name() {
        for key in [
            "pin-poll-ms",
            "pkcs11.sessions",
            "pkcs11.call-timeout-ms",
            "backoff.first-ms",
            "backoff.limit-ms",
            "record.file-bytes",
            "record.keep",
            "connections.limit",
            "connections.timeout-ms",
            "limits.device-validity-days",
            "limits.files.list-bytes",
            "store.queue",
        ] {
            let refusal = toml::from_str::<Settings>(&format!("{key} = 0")).unwrap_err().to_string();
            assert!(refusal.contains(&format!("{key} is 0")), "{key}: {refusal}");
        }
        assert!(toml::from_str::<Settings>("pkcs11.hung-calls = 0").is_ok(), "no call may hang");
        assert!(toml::from_str::<Settings>("").is_ok(), "the defaults can be served with");
    }

    #[test]
    fn a_misspelt_key_is_refused() {
        assert!(toml::from_str::<Settings>("pinfile = '/p'").is_err());
        assert!(toml::from_str::<Settings>("[record]\nfile-byte = 1").is_err());
        assert!(toml::from_str::<Settings>("pkcs11 = { modul = '/m.so' }").is_err());
    }
}
