//! The section `[tftp]` of the settings file.

use std::num::{NonZeroU32, NonZeroU64};

use casemate_keyring::ClientSettings;
use casemate_runtime::listener::Limits;
use serde::Deserialize;

use crate::options::BlockSize;

/// Settings of the file server.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// UDP port of TFTP.
    pub tftp_port: u16,
    /// TCP port of HTTP.
    pub http_port: u16,
    /// TCP port of HTTPS.
    pub https_port: u16,
    /// How long a file is served without looking whether it changed, and how often certificates are looked at, in
    /// milliseconds.
    pub poll_ms: NonZeroU64,
    /// Bytes of files that are kept in memory.
    pub cache_bytes: u64,
    /// Bytes of one file. Phones fail on lists over 64 kB (guide 2882).
    pub file_bytes: u64,
    /// Refusals that are audited in ten seconds, of TFTP, of HTTP and of HTTPS each.
    pub audited_refusals: NonZeroU32,
    /// TFTP transfers.
    pub udp: UdpSettings,
    /// HTTP and HTTPS requests.
    pub http: HttpSettings,
    /// HTTP connections, and HTTPS connections, each with these limits.
    pub connections: Limits,
    /// The key broker, for HTTPS handshakes.
    pub keyring: ClientSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tftp_port: 69,
            http_port: 6970,
            https_port: 6971,
            poll_ms: NonZeroU64::new(250).expect("250 is not zero"),
            cache_bytes: 64 << 20,
            file_bytes: 1 << 20,
            audited_refusals: NonZeroU32::new(100).expect("100 is not zero"),
            udp: UdpSettings::default(),
            http: HttpSettings::default(),
            connections: Limits::default(),
            keyring: ClientSettings::default(),
        }
    }
}

/// Limits of TFTP.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct UdpSettings {
    /// Transfers at a time, from the client's first acknowledgment on; each has a socket of its own.
    pub transfers: usize,
    /// Transfers at a time to one address, and as many before the first acknowledgment. Phones behind one router share an
    /// address.
    pub transfers_per_address: usize,
    /// Transfers at a time before the client's first acknowledgment. Until then the address may be forged.
    pub unproven: usize,
    /// How long the client has for its first acknowledgment, repetitions included, in milliseconds.
    pub unproven_ms: u64,
    /// Largest block that is agreed to, 8 to 65464 bytes.
    pub block_bytes: BlockSize,
    /// Wait before a packet is repeated the first time, in milliseconds; doubled with each repetition.
    pub timeout_ms: NonZeroU64,
    /// Repetitions of one packet.
    pub retries: u32,
    /// For a whole transfer, in milliseconds.
    pub transfer_ms: u64,
}

impl Default for UdpSettings {
    fn default() -> Self {
        Self {
            transfers: 512,
            transfers_per_address: 64,
            unproven: 512,
            unproven_ms: 2000,
            block_bytes: BlockSize::default(),
            timeout_ms: NonZeroU64::new(1000).expect("1000 is not zero"),
            retries: 4,
            transfer_ms: 120_000,
        }
    }
}

/// Limits of HTTP.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct HttpSettings {
    /// Bytes of a request line with its header; at least 8192.
    pub header_bytes: usize,
    /// Header fields of one request.
    pub header_fields: usize,
    /// From the last answer, or the connection, to the end of the next request's header, in milliseconds.
    pub header_ms: u64,
    /// Requests on one connection; it is closed after the last.
    pub requests: u32,
    /// For a whole connection, in milliseconds.
    pub connection_ms: u64,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self { header_bytes: 8192, header_fields: 64, header_ms: 10_000, requests: 100, connection_ms: 60_000 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_those_of_the_phones_and_nonsense_is_refused() {
        let settings: Settings = toml::from_str("").unwrap();
        assert_eq!((settings.tftp_port, settings.http_port, settings.https_port), (69, 6970, 6971));
        let settings: Settings = toml::from_str("[udp]\nblock-bytes = 65464\n[connections]\nhandshakes = 2").unwrap();
        assert_eq!((settings.udp.block_bytes.bytes(), settings.connections.handshakes), (65464, 2));
        for bad in [
            "poll-ms = 0",
            "[udp]\nblock-bytes = 7",
            "[udp]\nblock-bytes = 65465",
            "[http]\nheaders = 1",
            "audited-refusals = 0",
        ] {
            assert!(toml::from_str::<Settings>(bad).is_err(), "{bad}");
        }
    }
}
