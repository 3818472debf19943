use std::{
    env,
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use casemate_hsm_pkcs11::{Backoff, Pkcs11Settings};
use casemate_hsm_tpm::{TpmAddress, TpmSettings};
use casemate_runtime::config::Paths;
use casemate_store::StoreSettings;
use serde::{Deserialize, Deserializer, de::Error};

use crate::{JudgeLimits, KeydError};

/// `[keyd]` of the settings file. Reading it refuses what keyd could not serve or record with.
#[derive(Clone, Debug, Deserialize)]
// The derived reading becomes a function of this type, called by the one below, which looks at the values as well.
#[serde(remote = "Self", default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// File with the user PIN of PKCS#11 tokens, mode 0400, keyd's own, where `role-tokens.toml` does not name another for one. By
    /// default the credential `pin` that systemd loaded. A PIN that is to be changed by `casemate hsm change-pin` is in a file in a
    /// folder of its own, in which keyd may write.
    pub pin_file: Option<PathBuf>,
    /// How often a PIN file is looked at after its PIN was refused, in milliseconds. The PIN itself is tried only when the
    /// file changed.
    pub pin_poll_ms: u64,
    /// What all PKCS#11 tokens have in common, and the module of those whose URI names none. Which tokens there are stands in
    /// `role-tokens.toml` alone, so `token` is refused here.
    #[serde(deserialize_with = "pkcs11_without_token")]
    pub pkcs11: Pkcs11Settings,
    /// The TPM, if `role-tokens.toml` names it. `address` is `/dev/tpmrm0` unless said otherwise, `folder` is `tpm` in keyd's state,
    /// and `pin-file` the credential `tpm-pin` that systemd loaded.
    #[serde(deserialize_with = "tpm_with_defaults")]
    pub tpm: TpmSettings,
    /// How long a token's rate is measured before the first key of an algorithm is made on it, in milliseconds, the making of
    /// the temporary key not counted.
    pub measure_ms: u64,
    /// How long to wait before an absent token is looked for again.
    pub backoff: Backoff,
    /// Refusals by key policy or judge that go to the audit trail in ten seconds, for each user of `[users]`; and as many of
    /// strangers, refused connections and broken frames together. The rest is counted.
    pub audited_refusals: NonZeroU32,
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
            tpm: tpm_defaults(),
            measure_ms: 300,
            backoff: Backoff::default(),
            audited_refusals: NonZeroU32::new(100).expect("100 is not zero"),
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
        let Self {
            pin_file: _,
            pin_poll_ms,
            pkcs11,
            tpm,
            measure_ms: _,
            backoff,
            audited_refusals: _,
            record,
            connections,
            limits,
            store,
        } = self;
        let zeros = [
            ("pin-poll-ms", *pin_poll_ms == 0),
            ("pkcs11.sessions", pkcs11.sessions == 0),
            ("pkcs11.queue", pkcs11.queue == 0),
            ("pkcs11.call-timeout-ms", pkcs11.call_timeout_ms == 0),
            ("pkcs11.generate-timeout-ms", pkcs11.generate_timeout_ms == 0),
            ("tpm.loaded-keys", tpm.loaded_keys == 0),
            ("tpm.keys", tpm.keys == 0),
            ("tpm.queue", tpm.queue == 0),
            ("tpm.call-timeout-ms", tpm.call_timeout_ms == 0),
            ("tpm.generate-timeout-ms", tpm.generate_timeout_ms == 0),
            ("backoff.first-ms", backoff.first_ms == 0),
            ("backoff.limit-ms", backoff.limit_ms == 0),
            ("record.file-bytes", record.file_bytes == 0),
            ("record.keep", record.keep == 0),
            ("record.queue", record.queue == 0),
            ("record.caller-day-bytes", record.caller_day_bytes == 0),
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

    /// Where the PIN of a PKCS#11 token is whose URI does not say it.
    ///
    /// # Errors
    /// [`KeydError::NoPinFile`].
    pub fn pin_file(&self, token: &str) -> Result<PathBuf, KeydError> {
        let none =
            || KeydError::NoPinFile { token: token.to_owned(), setting: "pin-file in [keyd]", credential: "pin" };
        self.pin_file.clone().or_else(|| credential("pin")).ok_or_else(none)
    }

    /// The TPM's settings in this process.
    ///
    /// # Errors
    /// [`KeydError::NoPinFile`].
    pub fn tpm(&self, paths: &Paths) -> Result<TpmSettings, KeydError> {
        let said = |path: &Path| (!path.as_os_str().is_empty()).then(|| path.to_owned());
        let none = || KeydError::NoPinFile {
            token: "the TPM".to_owned(),
            setting: "pin-file in [keyd.tpm]",
            credential: "tpm-pin",
        };
        let state = paths.state_of("keyd");
        Ok(TpmSettings {
            folder: said(&self.tpm.folder).unwrap_or_else(|| state.join("tpm")),
            pin_file: said(&self.tpm.pin_file).or_else(|| credential("tpm-pin")).ok_or_else(none)?,
            state,
            ..self.tpm.clone()
        })
    }
}

/// A file that systemd loaded for this unit (`LoadCredential=` or `LoadCredentialEncrypted=`).
fn credential(name: &str) -> Option<PathBuf> {
    env::var_os("CREDENTIALS_DIRECTORY").map(|folder| PathBuf::from(folder).join(name))
}

fn pkcs11_without_token<'de, D: Deserializer<'de>>(from: D) -> Result<Pkcs11Settings, D::Error> {
    let table = toml::Table::deserialize(from)?;
    if table.contains_key("token") {
        return Err(D::Error::custom("tokens are named in role-tokens.toml, and token in [keyd.pkcs11] no more"));
    }
    table.try_into().map_err(D::Error::custom)
}

/// The paths are empty where they depend on this process.
fn tpm_defaults() -> TpmSettings {
    let address = TpmAddress::Device("/dev/tpmrm0".into());
    TpmSettings::new(address, PathBuf::new(), PathBuf::new(), PathBuf::new())
}

fn tpm_with_defaults<'de, D: Deserializer<'de>>(from: D) -> Result<TpmSettings, D::Error> {
    let said = toml::Table::deserialize(from)?;
    if said.contains_key("state") {
        return Err(D::Error::custom("state is keyd's own folder, and is not set"));
    }
    let mut all = toml::Table::try_from(tpm_defaults()).map_err(D::Error::custom)?;
    all.extend(said);
    all.try_into().map_err(D::Error::custom)
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
    /// What one user may fill of it in a day, in bytes; some 700 are one certificate, list or file. Beyond that nothing that must stand
    /// in it is signed for him, so that a daemon that was taken over cannot write over its traces before days have gone by: by
    /// default more than eight with one such daemon, and almost three with all three that write. What stands in the record of the last
    /// day counts when keyd starts.
    pub caller_day_bytes: u64,
}

impl Default for RecordSettings {
    fn default() -> Self {
        Self { file_bytes: 64 << 20, keep: 16, queue: 1024, caller_day_bytes: 128 << 20 }
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
    fn each_kind_of_token_has_the_settings_of_its_crate() {
        let settings: Settings = toml::from_str(
            "pin-file = '/p'\n[pkcs11]\nsessions = 7\n[tpm]\naddress = { swtpm = 2321 }\npin-file = '/t'\nkeys = 9",
        )
        .unwrap();
        assert_eq!(settings.pkcs11, Pkcs11Settings { sessions: 7, ..Pkcs11Settings::default() });
        assert_eq!(settings.pin_file("t").unwrap(), Path::new("/p"));
        let state = Paths::default().state_of("keyd");
        let tpm = TpmSettings::new(TpmAddress::Swtpm(2321), state.join("tpm"), "/t".into(), state);
        assert_eq!(settings.tpm(&Paths::default()).unwrap(), TpmSettings { keys: 9, ..tpm });
        assert!(toml::from_str::<Settings>("[tpm]\nstate = '/s'").is_err());
    }

    #[test]
    fn a_token_is_named_in_one_place_alone() {
        let refused = toml::from_str::<Settings>("pkcs11 = { token = 'casemate' }").unwrap_err().to_string();
        assert!(refused.contains("role-tokens.toml"), "{refused}");
    }

    #[test]
    fn a_zero_with_which_keyd_could_not_serve_is_refused_by_name() {
        for key in [
            "pin-poll-ms",
            "pkcs11.sessions",
            "pkcs11.call-timeout-ms",
            "tpm.queue",
            "tpm.call-timeout-ms",
            "backoff.first-ms",
            "backoff.limit-ms",
            "record.file-bytes",
            "record.keep",
            "record.caller-day-bytes",
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
    fn one_caller_needs_more_than_a_week_to_write_over_the_record() {
        let record = RecordSettings::default();
        let room = record.file_bytes * u64::from(record.keep);
        assert!(room / record.caller_day_bytes >= 8);
        // An enrolment of ten thousand phones in a day, ten times.
        assert!(record.caller_day_bytes > 10 * 10_000 * 1000);
    }

    #[test]
    fn a_misspelt_key_is_refused() {
        assert!(toml::from_str::<Settings>("pinfile = '/p'").is_err());
        assert!(toml::from_str::<Settings>("[record]\nfile-byte = 1").is_err());
        assert!(toml::from_str::<Settings>("audited-refusals = 0").is_err());
        assert!(toml::from_str::<Settings>("pkcs11 = { modul = '/m.so' }").is_err());
        assert!(toml::from_str::<Settings>("tpm = { adress = { swtpm = 1 } }").is_err());
    }
}
