use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// What an identity key is for: the certificate purposes of the guide, Table 15 (lines 3398-3412).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub enum KeyRole {
    /// Signaling and the HTTPS file server; second list signer; RSA.
    #[serde(rename = "CallManager")]
    CallManager,
    /// The elliptic-curve sibling of `CallManager` (guide 2931).
    #[serde(rename = "CallManager-ECDSA")]
    CallManagerEcdsa,
    /// Certificate Authority Proxy Function: issues the phones' LSCs (guide 4765).
    #[serde(rename = "CAPF")]
    Capf,
    /// Trust Verification Service (guide 2742).
    #[serde(rename = "TVS")]
    Tvs,
    /// Signs trust lists; valid for 20 years (guide 2866-2880).
    #[serde(rename = "ITLRecovery")]
    ItlRecovery,
    /// Administration over HTTPS, RSA.
    #[serde(rename = "tomcat")]
    Tomcat,
    /// Administration over HTTPS, elliptic curve.
    #[serde(rename = "tomcat-ECDSA")]
    TomcatEcdsa,
}

impl KeyRole {
    /// Every role, in the order in which provisioning makes them.
    pub const ALL: [Self; 7] = [
        Self::ItlRecovery,
        Self::CallManager,
        Self::CallManagerEcdsa,
        Self::Capf,
        Self::Tvs,
        Self::Tomcat,
        Self::TomcatEcdsa,
    ];

    /// The guide's name of the certificate purpose, as operators type it and files carry it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CallManager => "CallManager",
            Self::CallManagerEcdsa => "CallManager-ECDSA",
            Self::Capf => "CAPF",
            Self::Tvs => "TVS",
            Self::ItlRecovery => "ITLRecovery",
            Self::Tomcat => "tomcat",
            Self::TomcatEcdsa => "tomcat-ECDSA",
        }
    }
}

impl fmt::Display for KeyRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text names no key role.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} is no certificate purpose; one of CallManager, CallManager-ECDSA, CAPF, TVS, ITLRecovery, tomcat, tomcat-ECDSA"
)]
pub struct UnknownRole(pub String);

impl FromStr for KeyRole {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        Self::ALL.into_iter().find(|role| role.name() == text).ok_or_else(|| UnknownRole(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_read_back_as_its_role() {
        for role in KeyRole::ALL {
            assert_eq!(role.name().parse::<KeyRole>().unwrap(), role);
        }
        assert!("callmanager".parse::<KeyRole>().is_err());
    }
}
