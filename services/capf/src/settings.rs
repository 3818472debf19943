use casemate_keyring::ClientSettings;
use casemate_runtime::listener::Limits;
use casemate_store::StoreSettings;
use serde::Deserialize;

/// The section `[capf]` of the settings file.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct CapfSettings {
    /// TCP port (guide 2269).
    pub port: u16,
    /// Limits of the listener.
    pub limits: Limits,
    /// Limits of one session.
    pub session: SessionLimits,
    /// Limits of the records.
    pub store: StoreSettings,
    /// Limits of the key broker's client.
    pub keyring: ClientSettings,
    /// Certificates that are signed at a time; the others wait.
    pub signatures: usize,
    /// Validity of an LSC in days.
    pub validity_days: u32,
    /// Hours after which a null-string operation expires: whoever names the device gets a certificate until then.
    pub null_string_hours: u32,
    /// Hours after which an authentication-string operation expires; 0 for never.
    pub authentication_string_hours: u32,
    /// How often published certificates are looked at, in milliseconds.
    pub watch_ms: u64,
    /// How often expired operations are ended, in milliseconds. An expired one is refused before that too.
    pub expiry_ms: u64,
}

impl Default for CapfSettings {
    fn default() -> Self {
        Self {
            port: 3804,
            limits: Limits::default(),
            session: SessionLimits::default(),
            store: StoreSettings::default(),
            keyring: ClientSettings::default(),
            signatures: 16,
            validity_days: 5 * 365,
            null_string_hours: 24,
            authentication_string_hours: 0,
            watch_ms: 250,
            expiry_ms: 10_000,
        }
    }
}

/// Limits of one session.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SessionLimits {
    /// For each whole message of the phone but its key, in milliseconds.
    pub step_ms: u64,
    /// For the phone's key, in milliseconds: a phone makes it at low priority and may take half an hour (guide 5764). Only a
    /// phone that proved itself is waited for so long.
    pub key_generation_ms: u64,
    /// For the whole session, in milliseconds.
    pub total_ms: u64,
    /// Longest message of a phone: bytes of its elements.
    pub message_bytes: usize,
    /// Wrong authentication strings that lock an operation.
    pub failures: u32,
    /// Keys that one operation certifies before the phone confirms one: the first attempt and its three retries (guide 5209).
    pub certificates: u32,
    /// A phone that is gone is found out by TCP after this many seconds without an answer, so that it can come back: phones
    /// retry after 30 seconds (guide 5209).
    pub gone_after_s: u64,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            step_ms: 30_000,
            key_generation_ms: 2_400_000,
            total_ms: 2_700_000,
            message_bytes: 16 * 1024,
            failures: 5,
            certificates: 4,
            gone_after_s: 20,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_are_refused_and_missing_ones_have_defaults() {
        let settings: CapfSettings = toml::from_str("port = 23804\n[session]\nfailures = 3").unwrap();
        assert_eq!((settings.port, settings.session.failures, settings.session.certificates), (23804, 3, 4));
        assert!(toml::from_str::<CapfSettings>("[session]\nfailurs = 3").is_err());
    }
}
