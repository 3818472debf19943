use casemate_keyring::ClientSettings;
use casemate_runtime::control::ControlSettings;
use casemate_store::StoreSettings;
use serde::{Deserialize, Deserializer, de::Error};

/// Section `[certmgr]` of the settings. What the certificates say of this node is in `[node]`; how long they are valid says the
/// role (guide 3490-3501). Reading it refuses what certmgr could not serve with.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
// The derived reading becomes a function of this type, called by the one below, which looks at the values as well.
#[serde(remote = "Self", default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct CertmgrSettings {
    /// How the key broker is asked.
    pub keyring: ClientSettings,
    /// Limits of the records.
    pub store: StoreSettings,
    /// Limits of `certmgr.sock`.
    pub control: ControlSettings,
    /// After a re-key.
    pub rekey: RekeySettings,
}

/// `[certmgr.rekey]`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RekeySettings {
    /// How long a new certificate has been published, in milliseconds, before the key of the one before it is retired: longer than
    /// the daemons take to look for it (`poll-ms` of `[tftp]`, `[tvs]` and `[ctlprovider]`, `watch-ms` of `[capf]`).
    pub settle_ms: u64,
}

impl Default for RekeySettings {
    fn default() -> Self {
        Self { settle_ms: 2000 }
    }
}

impl CertmgrSettings {
    /// The first of the settings that is zero where nothing could be provisioned with that. Each is named, so that a new one does
    /// not compile until it is looked at; those of the control socket cannot be zero.
    fn useless_zero(&self) -> Option<&'static str> {
        let Self {
            keyring: ClientSettings { connections, timeout_ms, generate_timeout_ms },
            store: StoreSettings { readers, queue, batch, wait_ms },
            control: ControlSettings { .. },
            rekey: RekeySettings { settle_ms },
        } = *self;
        let zeros = [
            ("keyring.connections", connections == 0),
            ("keyring.timeout-ms", timeout_ms == 0),
            ("keyring.generate-timeout-ms", generate_timeout_ms == 0),
            ("store.readers", readers == 0),
            ("store.queue", queue == 0),
            ("store.batch", batch == 0),
            ("store.wait-ms", wait_ms == 0),
            ("rekey.settle-ms", settle_ms == 0),
        ];
        zeros.into_iter().find_map(|(key, is_zero)| is_zero.then_some(key))
    }
}

impl<'de> Deserialize<'de> for CertmgrSettings {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let settings = Self::deserialize(from)?;
        match settings.useless_zero() {
            Some(key) => {
                Err(D::Error::custom(format!("{key} is 0, with which nothing could be provisioned; set at least 1")))
            }
            None => Ok(settings),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_are_refused_and_missing_ones_have_defaults() {
        let settings: CertmgrSettings = toml::from_str("keyring.connections = 3").unwrap();
        assert_eq!((settings.keyring.connections, settings.store.queue), (3, StoreSettings::default().queue));
        assert!(toml::from_str::<CertmgrSettings>("").is_ok(), "the defaults can be served with");
        assert!(toml::from_str::<CertmgrSettings>("keyring.connection = 3").is_err());
    }

    #[test]
    fn a_zero_with_which_nothing_could_be_provisioned_is_refused_by_name() {
        let refusal = |key: &str| toml::from_str::<CertmgrSettings>(&format!("{key} = 0")).unwrap_err().to_string();
        for key in [
            "keyring.connections",
            "keyring.timeout-ms",
            "keyring.generate-timeout-ms",
            "store.readers",
            "store.queue",
            "store.batch",
            "store.wait-ms",
            "rekey.settle-ms",
        ] {
            assert!(refusal(key).contains(&format!("{key} is 0")), "{key}: {}", refusal(key));
        }
        for key in ["places", "places-per-user", "idle-ms", "write-ms", "audited-refusals"] {
            assert!(refusal(&format!("control.{key}")).contains(key), "{key}");
        }
    }
}
