use std::{fmt, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

/// Where the TPM answers.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TpmAddress {
    /// A device node; `/dev/tpmrm0`, behind which the kernel keeps each process's objects apart. `/dev/tpm0` has one user at a
    /// time and no such care.
    Device(PathBuf),
    /// An swtpm that serves commands on this TCP port of 127.0.0.1, and its control channel on the next one.
    Swtpm(u16),
}

impl fmt::Display for TpmAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(path) => write!(f, "{}", path.display()),
            Self::Swtpm(port) => write!(f, "swtpm on 127.0.0.1:{port}"),
        }
    }
}

/// Everything that an operator may set about a TPM as token.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TpmSettings {
    /// `address = { device = "/dev/tpmrm0" }` or `address = { swtpm = 2321 }`.
    pub address: TpmAddress,
    /// Folder of the key blobs. It must survive restarts and belongs into the backup: without it the keys are lost, and with
    /// it alone nobody can use them.
    pub folder: PathBuf,
    /// File with the PIN: mode 0400 or 0600, owned by the user that reads it, or a credential of systemd. Read at each login,
    /// never kept.
    pub pin_file: PathBuf,
    /// Folder where refused PINs are remembered. It must survive restarts.
    pub state: PathBuf,
    /// The trusted wrapping key of `backup: wrapped`: a file with the `TPM2B_PUBLIC` of a storage key, as `tpm2_readpublic -o`
    /// writes it. Without one such keys are refused.
    #[serde(default)]
    pub wrapping_key: Option<PathBuf>,
    /// File with the authorization of the owner hierarchy, if it has one; as safe as the PIN file.
    #[serde(default)]
    pub owner_auth_file: Option<PathBuf>,
    /// Whether nobody else uses this TPM without a resource manager: then what a process that died left loaded is flushed
    /// when a connection begins. Without a word, so for swtpm and not for a device.
    #[serde(default)]
    pub exclusive: Option<bool>,
    /// Keys that stay loaded between signatures. TPMs have room for three objects at least, and the storage key takes one.
    #[serde(default = "loaded_keys")]
    pub loaded_keys: usize,
    /// Key pairs that the folder may hold; with more the token is full.
    #[serde(default = "keys")]
    pub keys: usize,
    /// Requests that may wait for the TPM; the next one is refused as busy.
    #[serde(default = "queue")]
    pub queue: usize,
    /// How long a request may wait for its turn, and again how long the TPM may take over it, in milliseconds.
    #[serde(default = "call_timeout_ms")]
    pub call_timeout_ms: u64,
    /// How long the TPM may take over making a key pair, in milliseconds. Some take a minute over an RSA key.
    #[serde(default = "generate_timeout_ms")]
    pub generate_timeout_ms: u64,
    /// How long in all a command is repeated that the TPM puts off (`TPM_RC_RETRY`, `TPM_RC_YIELDED`), in milliseconds.
    #[serde(default = "retry_ms")]
    pub retry_ms: u64,
    /// How often in a row a login may end unknown (the process died within it) before the PIN counts as refused.
    #[serde(default = "unresolved_logins")]
    pub unresolved_logins: u32,
}

const fn loaded_keys() -> usize {
    2
}

const fn keys() -> usize {
    256
}

const fn queue() -> usize {
    256
}

const fn call_timeout_ms() -> u64 {
    5_000
}

const fn generate_timeout_ms() -> u64 {
    120_000
}

const fn retry_ms() -> u64 {
    2_000
}

const fn unresolved_logins() -> u32 {
    3
}

impl TpmSettings {
    /// The four that have no default, and the defaults.
    #[must_use]
    pub const fn new(address: TpmAddress, folder: PathBuf, pin_file: PathBuf, state: PathBuf) -> Self {
        Self {
            address,
            folder,
            pin_file,
            state,
            wrapping_key: None,
            owner_auth_file: None,
            exclusive: None,
            loaded_keys: loaded_keys(),
            keys: keys(),
            queue: queue(),
            call_timeout_ms: call_timeout_ms(),
            generate_timeout_ms: generate_timeout_ms(),
            retry_ms: retry_ms(),
            unresolved_logins: unresolved_logins(),
        }
    }

    /// The limit of a call.
    #[must_use]
    pub const fn call_timeout(&self) -> Duration {
        Duration::from_millis(self.call_timeout_ms)
    }

    /// The limit of a key generation.
    #[must_use]
    pub const fn generate_timeout(&self) -> Duration {
        Duration::from_millis(self.generate_timeout_ms)
    }

    pub(crate) const fn retry(&self) -> Duration {
        Duration::from_millis(self.retry_ms)
    }

    pub(crate) fn is_exclusive(&self) -> bool {
        self.exclusive.unwrap_or(matches!(self.address, TpmAddress::Swtpm(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_has_a_default_and_a_misspelling_is_refused() {
        let text = "address = { device = '/dev/tpmrm0' }\nfolder = '/f'\npin-file = '/pin'\nstate = '/s'\n";
        let read: TpmSettings = toml::from_str(text).unwrap();
        let address = TpmAddress::Device("/dev/tpmrm0".into());
        assert_eq!(read, TpmSettings::new(address, "/f".into(), "/pin".into(), "/s".into()));
        assert!(!read.is_exclusive(), "others may use a device");
        assert!(toml::from_str::<TpmSettings>(&format!("{text}call_timeout = 3\n")).is_err());
        let swtpm: TpmSettings = toml::from_str(&text.replace("device = '/dev/tpmrm0'", "swtpm = 2321")).unwrap();
        assert_eq!(swtpm.address, TpmAddress::Swtpm(2321));
        assert!(swtpm.is_exclusive());
    }
}
