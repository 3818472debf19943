use casemate_keyring::ClientSettings;
use casemate_phonefile::{DeviceSecurityMode, Limits};
use serde::Deserialize;

/// Section `[ctlprovider]` of the settings. Names and address of the servers are in `[node]`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct CtlproviderSettings {
    /// Between two looks at certificates and devices, in milliseconds.
    pub poll_ms: u64,
    /// After a look that failed, in milliseconds.
    pub retry_ms: u64,
    /// Between two comparisons of every device's file with what CAPF says, in milliseconds; between them only devices that
    /// changed are looked at. A comparison signs nothing where nothing differs.
    pub compare_ms: u64,
    /// How long CAPF may take to answer, in milliseconds.
    pub capf_timeout_ms: u64,
    /// Devices that CAPF is asked for at once.
    pub page: u32,
    /// Files that are signed at a time; no more than `keyring.connections` of them are.
    pub signatures: usize,
    /// Files that share one synchronisation of the disk at most.
    pub batch: usize,
    /// Whether phones are offered their configuration over HTTPS 6971, and with it elliptic curves.
    pub https: bool,
    /// How phones secure their signalling.
    pub device_security: DeviceSecurityMode,
    /// Where phones find enrolment (guide 2269), as device files say; so with the other ports.
    pub capf_port: u16,
    /// Trust verification.
    pub tvs_port: u16,
    /// Plain SIP.
    pub sip_port: u16,
    /// SIP over TLS.
    pub sip_tls_port: u16,
    /// How large files may be.
    pub limits: Limits,
    /// How the key broker is asked.
    pub keyring: ClientSettings,
}

impl Default for CtlproviderSettings {
    fn default() -> Self {
        Self {
            poll_ms: 250,
            retry_ms: 1000,
            compare_ms: 600_000,
            capf_timeout_ms: 5000,
            page: 1024,
            signatures: 16,
            batch: 256,
            https: true,
            device_security: DeviceSecurityMode::Encrypted,
            capf_port: 3804,
            tvs_port: 2445,
            sip_port: 5060,
            sip_tls_port: 5061,
            limits: Limits::default(),
            keyring: ClientSettings::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_are_refused_and_missing_ones_have_defaults() {
        let settings: CtlproviderSettings = toml::from_str("https = false\ncapf-port = 23804").unwrap();
        assert_eq!((settings.https, settings.capf_port, settings.tvs_port), (false, 23804, 2445));
        assert!(toml::from_str::<CtlproviderSettings>("tvs = 1").is_err());
        assert!(toml::from_str::<CtlproviderSettings>("device-security = \"open\"").is_err());
    }
}
