use casemate_keyring::ClientSettings;
use casemate_runtime::control::ControlSettings;
use casemate_store::StoreSettings;
use serde::Deserialize;

/// Section `[certmgr]` of the settings. What the certificates say of this node is in `[node]`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct CertmgrSettings {
    /// How the key broker is asked.
    pub keyring: ClientSettings,
    /// Limits of the records.
    pub store: StoreSettings,
    /// Limits of `certmgr.sock`.
    pub control: ControlSettings,
}
