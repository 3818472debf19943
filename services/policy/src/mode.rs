use std::fmt;

use serde::{Deserialize, Serialize};

/// The security mode of the appliance (guide 8923-9172). It changes what is accepted from others; our own cryptography runs
/// inside the FIPS module in both, and no change of mode makes or replaces a key.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Only what SP 800-52 revision 2 and SP 800-131A allow.
    #[default]
    Fips,
    /// Also TLS 1.2 peers without the extended master secret.
    NonFips,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fips => "fips",
            Self::NonFips => "non-fips",
        })
    }
}
