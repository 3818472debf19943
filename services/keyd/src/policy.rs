//! Who may have what signed with which key: `key-policy.toml`, read once at start.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::Path,
};

use casemate_hsm_api::{Backup, KeyAlgorithm, KeyRole, KeySpec};
use casemate_keyring::Purpose;
use serde::Deserialize;

use crate::KeydError;

/// One thing that a daemon may do with a key.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
#[serde(rename_all = "kebab-case")]
pub enum Grant {
    /// Have it made, while the node is provisioned.
    Generate,
    /// Have a next key made while the key serves, and have that one retired.
    Rekey,
    /// [`Purpose::SelfSigned`].
    SelfSigned,
    /// [`Purpose::CertificateRequest`].
    CertificateRequest,
    /// [`Purpose::DeviceCertificate`].
    DeviceCertificate,
    /// [`Purpose::TrustList`].
    TrustList,
    /// [`Purpose::File`].
    File,
    /// [`Purpose::TlsHandshake`].
    TlsHandshake,
}

impl From<&Purpose> for Grant {
    fn from(purpose: &Purpose) -> Self {
        match purpose {
            Purpose::SelfSigned => Self::SelfSigned,
            Purpose::CertificateRequest => Self::CertificateRequest,
            Purpose::DeviceCertificate { .. } => Self::DeviceCertificate,
            Purpose::TrustList => Self::TrustList,
            Purpose::File { .. } => Self::File,
            Purpose::TlsHandshake => Self::TlsHandshake,
        }
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Generate => "generate",
            Self::Rekey => "rekey",
            Self::SelfSigned => "self-signed",
            Self::CertificateRequest => "certificate-request",
            Self::DeviceCertificate => "device-certificate",
            Self::TrustList => "trust-list",
            Self::File => "file",
            Self::TlsHandshake => "tls-handshake",
        })
    }
}

/// What the policy says of one key.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct KeyRules {
    algorithm: KeyAlgorithm,
    backup: Backup,
    /// By daemon.
    grants: BTreeMap<String, BTreeSet<Grant>>,
}

/// The key policy: what each key is, and who may do what with it. What it does not name is refused.
#[derive(Clone, Debug)]
pub struct KeyPolicy(BTreeMap<KeyRole, KeyRules>);

impl KeyPolicy {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// [`KeydError::PolicyUnreadable`], [`KeydError::Policy`].
    pub fn load(path: &Path) -> Result<Self, KeydError> {
        let text =
            fs::read_to_string(path).map_err(|source| KeydError::PolicyUnreadable { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|detail| KeydError::Policy { path: path.to_owned(), detail })
    }

    /// Reads the text of a policy. Every role must stand in it, so that a misspelt one is not silently without rules.
    ///
    /// # Errors
    /// With line and reason.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rules: BTreeMap<KeyRole, KeyRules> = toml::from_str(text).map_err(|error| error.to_string())?;
        match KeyRole::ALL.into_iter().find(|role| !rules.contains_key(role)) {
            Some(role) => Err(format!("no section [{role}]")),
            None => Ok(Self(rules)),
        }
    }

    /// What the key of `role` is to be when it is made.
    #[must_use]
    pub fn spec(&self, role: KeyRole) -> Option<KeySpec> {
        self.0.get(&role).map(|rules| KeySpec { algorithm: rules.algorithm, backup: rules.backup })
    }

    /// Whether `daemon` may do `grant` with the key of `role`.
    #[must_use]
    pub fn permits(&self, daemon: &str, role: KeyRole, grant: Grant) -> bool {
        self.of(daemon, role).is_some_and(|grants| grants.contains(&grant))
    }

    /// Whether `daemon` may do anything with the key of `role`, and so may know its public half.
    #[must_use]
    pub fn permits_any(&self, daemon: &str, role: KeyRole) -> bool {
        self.of(daemon, role).is_some_and(|grants| !grants.is_empty())
    }

    fn of(&self, daemon: &str, role: KeyRole) -> Option<&BTreeSet<Grant>> {
        self.0.get(&role)?.grants.get(daemon)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIPPED: &str = include_str!("../key-policy.toml");

    fn shipped() -> KeyPolicy {
        KeyPolicy::parse(SHIPPED).unwrap()
    }

    /// Every (daemon, role, grant) of the shipped file.
    fn grants() -> Vec<(String, KeyRole, Grant)> {
        let mut all = Vec::new();
        for (role, rules) in shipped().0 {
            for (daemon, grants) in rules.grants {
                all.extend(grants.into_iter().map(|grant| (daemon.clone(), role, grant)));
            }
        }
        all
    }

    fn holders(grant: Grant) -> BTreeSet<(String, KeyRole)> {
        grants().into_iter().filter(|(_, _, g)| *g == grant).map(|(daemon, role, _)| (daemon, role)).collect()
    }

    fn pairs(daemon: &str, roles: &[KeyRole]) -> BTreeSet<(String, KeyRole)> {
        roles.iter().map(|role| (daemon.to_owned(), *role)).collect()
    }

    #[test]
    fn the_shipped_file_grants_what_the_design_says_and_nothing_else() {
        use KeyRole::{CallManager, CallManagerEcdsa, Capf, ItlRecovery, Tvs};
        for grant in [Grant::Generate, Grant::Rekey, Grant::SelfSigned, Grant::CertificateRequest] {
            assert_eq!(holders(grant), pairs("certmgr", &KeyRole::ALL), "{grant}: certmgr alone");
        }
        assert_eq!(holders(Grant::DeviceCertificate), pairs("capf", &[Capf]));
        assert_eq!(holders(Grant::TrustList), pairs("ctlprovider", &[ItlRecovery, CallManager]));
        assert_eq!(holders(Grant::File), pairs("ctlprovider", &[CallManager]));
        let mut handshakes = pairs("tftp", &[CallManager, CallManagerEcdsa]);
        handshakes.extend(pairs("capf", &[Capf]));
        handshakes.extend(pairs("tvs", &[Tvs]));
        assert_eq!(holders(Grant::TlsHandshake), handshakes);
    }

    #[test]
    fn the_shipped_file_specifies_the_keys_of_the_design() {
        let policy = shipped();
        for role in KeyRole::ALL {
            let spec = policy.spec(role).unwrap();
            let expected = match role {
                KeyRole::CallManagerEcdsa | KeyRole::TomcatEcdsa => KeyAlgorithm::P384,
                _ => KeyAlgorithm::Rsa2048,
            };
            assert_eq!(spec.algorithm, expected, "{role}");
            assert_eq!(spec.backup == Backup::Wrapped, role == KeyRole::ItlRecovery, "{role}");
        }
    }

    #[test]
    fn what_is_misspelt_or_left_out_is_no_policy() {
        assert!(KeyPolicy::parse(&SHIPPED.replace("[TVS]", "[Tvs]")).is_err());
        assert!(KeyPolicy::parse(&SHIPPED.replace("\"file\"", "\"files\"")).is_err());
        assert!(KeyPolicy::parse(&SHIPPED.replace("backup = \"wrapped\"\n", "")).is_err());
        let without = SHIPPED.split("[tomcat-ECDSA]").next().unwrap();
        assert!(KeyPolicy::parse(without).unwrap_err().contains("tomcat-ECDSA"));
    }

    #[test]
    fn a_daemon_that_is_not_named_may_nothing() {
        let policy = shipped();
        assert!(policy.permits("capf", KeyRole::Capf, Grant::TlsHandshake));
        assert!(!policy.permits_any("capf", KeyRole::CallManager));
        assert!(!policy.permits_any("console", KeyRole::Capf));
    }
}
