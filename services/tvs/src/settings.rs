//! The section `[tvs]` of the settings file.

use std::num::{NonZeroU32, NonZeroU64};

use casemate_keyring::ClientSettings;
use casemate_runtime::listener::Limits;
use serde::Deserialize;

use crate::session::SessionLimits;

/// Settings of the trust verification service.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// TCP port.
    pub port: u16,
    /// How often published certificates are looked at, in milliseconds: an answer is never older than this.
    pub poll_ms: NonZeroU64,
    /// Seconds for which a phone may remember that a certificate is valid: so long a withdrawn one may stay trusted there.
    pub ttl_seconds: u32,
    /// Bytes of one message, header included.
    pub message_bytes: usize,
    /// Questions on one connection.
    pub requests: u32,
    /// How long a connection may wait for the next question, in milliseconds.
    pub idle_ms: u64,
    /// From the first byte of a question to its last, and for writing an answer, in milliseconds.
    pub message_ms: u64,
    /// Refusals that are audited in ten seconds.
    pub audited_refusals: NonZeroU32,
    /// Answers that are audited in ten seconds, of those that a certificate is valid and of those that it is not; the others are
    /// counted.
    pub audited_answers: NonZeroU32,
    /// Connections.
    pub connections: Limits,
    /// The key broker, for handshakes.
    pub keyring: ClientSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            port: 2445,
            poll_ms: NonZeroU64::new(250).expect("250 is not zero"),
            ttl_seconds: 3600,
            message_bytes: 16 * 1024,
            requests: 64,
            idle_ms: 30_000,
            message_ms: 10_000,
            audited_refusals: NonZeroU32::new(100).expect("100 is not zero"),
            audited_answers: NonZeroU32::new(100).expect("100 is not zero"),
            connections: Limits::default(),
            keyring: ClientSettings::default(),
        }
    }
}

impl Settings {
    /// The limits of one session.
    #[must_use]
    pub const fn session(&self) -> SessionLimits {
        SessionLimits { message_bytes: self.message_bytes, requests: self.requests, ttl: self.ttl_seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_the_phones_and_unknown_keys_are_refused() {
        assert_eq!(toml::from_str::<Settings>("").unwrap().port, 2445);
        assert_eq!(toml::from_str::<Settings>("ttl-seconds = 5").unwrap().session().ttl, 5);
        for bad in
            ["ttl = 5", "poll-ms = 0", "audited-refusals = 0", "audited-answers = 0", "[connections]\nhandshake = 1"]
        {
            assert!(toml::from_str::<Settings>(bad).is_err(), "{bad}");
        }
    }
}
