use std::num::NonZeroU32;

use casemate_keyring::ClientSettings;
use casemate_runtime::{control::ControlSettings, listener::Limits};
use casemate_store::StoreSettings;
use serde::{Deserialize, Deserializer, de::Error};
use time::Duration;

/// The section `[capf]` of the settings file. Reading it refuses what capf could not serve with.
#[derive(Clone, Copy, Debug, Deserialize)]
// The derived reading becomes a function of this type, called by the one below, which looks at the values as well.
#[serde(remote = "Self", default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct CapfSettings {
    /// TCP port (guide 2269).
    pub port: u16,
    /// Limits of the listener. `sessions` is of no effect: a phone enrols once, so none is remembered.
    pub limits: Limits,
    /// Limits of one session.
    pub session: SessionLimits,
    /// Limits of the records.
    pub store: StoreSettings,
    /// Limits of the key broker's client.
    pub keyring: ClientSettings,
    /// Limits of `capf.sock`.
    pub control: ControlSettings,
    /// Certificates that are signed at a time; the others wait.
    pub signatures: usize,
    /// Validity of an LSC in days.
    pub validity_days: Validity,
    /// Seconds after which a null-string operation expires: whoever names the device gets a certificate until then.
    pub null_string_s: u32,
    /// Seconds after which an authentication-string operation expires; 0 for never.
    pub authentication_string_s: u32,
    /// How often published certificates are looked at, in milliseconds.
    pub watch_ms: u64,
    /// How often expired operations are ended, in milliseconds. An expired one is refused before that too.
    pub expiry_ms: u64,
    /// How often audit events that were recorded are taken off the list of those to be recorded, in milliseconds; those of a
    /// shorter time are repeated after a kill.
    pub outbox_ms: u64,
    /// Refusals of strangers, and of devices that proved nothing, that are audited in ten seconds.
    pub audited_refusals: NonZeroU32,
}

impl Default for CapfSettings {
    fn default() -> Self {
        Self {
            port: 3804,
            limits: Limits::default(),
            session: SessionLimits::default(),
            store: StoreSettings::default(),
            keyring: ClientSettings::default(),
            control: ControlSettings::default(),
            signatures: 16,
            validity_days: Validity(5 * 365),
            null_string_s: 24 * 3600,
            authentication_string_s: 0,
            watch_ms: 250,
            expiry_ms: 10_000,
            outbox_ms: 250,
            audited_refusals: NonZeroU32::new(100).expect("100 is not zero"),
        }
    }
}

impl CapfSettings {
    /// The first of the settings that is zero where nobody could be served with that.
    fn useless_zero(&self) -> Option<&'static str> {
        let Self { limits, session, store, keyring, .. } = self;
        let zeros = [
            ("signatures", self.signatures == 0),
            ("null-string-s", self.null_string_s == 0),
            ("watch-ms", self.watch_ms == 0),
            ("expiry-ms", self.expiry_ms == 0),
            ("outbox-ms", self.outbox_ms == 0),
            ("limits.connections", limits.connections == 0),
            ("limits.connections-per-address", limits.connections_per_address == 0),
            ("limits.handshakes", limits.handshakes == 0),
            ("limits.handshake-ms", limits.handshake_ms == 0),
            ("session.step-ms", session.step_ms == 0),
            ("session.key-generation-ms", session.key_generation_ms == 0),
            ("session.total-ms", session.total_ms == 0),
            ("session.message-bytes", session.message_bytes == 0),
            ("session.failures", session.failures == 0),
            ("session.certificates", session.certificates == 0),
            ("session.gone-after-s", session.gone_after_s == 0),
            ("store.readers", store.readers == 0),
            ("store.queue", store.queue == 0),
            ("store.batch", store.batch == 0),
            ("store.wait-ms", store.wait_ms == 0),
            ("keyring.connections", keyring.connections == 0),
            ("keyring.timeout-ms", keyring.timeout_ms == 0),
        ];
        zeros.into_iter().find_map(|(key, is_zero)| is_zero.then_some(key))
    }
}

impl<'de> Deserialize<'de> for CapfSettings {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let settings = Self::deserialize(from)?;
        match settings.useless_zero() {
            Some(key) => Err(D::Error::custom(format!("{key} is 0, with which no phone could enrol; set at least 1"))),
            None => Ok(settings),
        }
    }
}

/// How long an LSC is valid, in days: 1 to 3650. The certificates of this node last five years themselves (guide 3490-3501),
/// and X.509 ends with the year 9999 (RFC 5280, 4.1.2.5).
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "u32")]
pub struct Validity(u16);

/// A validity that no LSC may have.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a certificate is valid for 1 to {MOST_DAYS} days, not {0}")]
pub struct BadValidity(u32);

const MOST_DAYS: u16 = 3650;

impl TryFrom<u32> for Validity {
    type Error = BadValidity;

    fn try_from(days: u32) -> Result<Self, BadValidity> {
        match u16::try_from(days) {
            Ok(fit @ 1..=MOST_DAYS) => Ok(Self(fit)),
            _ => Err(BadValidity(days)),
        }
    }
}

impl From<Validity> for Duration {
    fn from(Validity(days): Validity) -> Self {
        Self::days(days.into())
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

    fn refusal(text: &str) -> String {
        toml::from_str::<CapfSettings>(text).unwrap_err().to_string()
    }

    #[test]
    fn unknown_keys_are_refused_and_missing_ones_have_defaults() {
        let settings: CapfSettings = toml::from_str("port = 23804\n[session]\nfailures = 3").unwrap();
        assert_eq!((settings.port, settings.session.failures, settings.session.certificates), (23804, 3, 4));
        assert!(toml::from_str::<CapfSettings>("[session]\nfailurs = 3").is_err());
        assert!(toml::from_str::<CapfSettings>("").is_ok(), "the defaults can be served with");
        assert!(toml::from_str::<CapfSettings>("authentication-string-s = 0").is_ok(), "0 is never here");
    }

    #[test]
    fn a_zero_that_serves_nobody_is_refused_by_name() {
        for key in [
            "signatures",
            "null-string-s",
            "watch-ms",
            "limits.handshakes",
            "session.step-ms",
            "session.failures",
            "store.queue",
            "keyring.connections",
        ] {
            assert!(refusal(&format!("{key} = 0")).contains(&format!("{key} is 0")), "{key}");
        }
        for key in ["audited-refusals", "control.places"] {
            let (_, name) = key.rsplit_once('.').unwrap_or(("", key));
            assert!(refusal(&format!("{key} = 0")).contains(name), "{key}");
        }
    }

    #[test]
    fn a_validity_of_none_or_of_ages_is_refused_by_name() {
        for days in ["0", "3651", "4294967295"] {
            let refusal = refusal(&format!("validity-days = {days}"));
            assert!(refusal.contains("1 to 3650 days") && refusal.contains("validity-days"), "{refusal}");
        }
        let settings: CapfSettings = toml::from_str("validity-days = 3650").unwrap();
        assert_eq!(Duration::from(settings.validity_days), Duration::days(3650));
    }
}
