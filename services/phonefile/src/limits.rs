use serde::{Deserialize, Serialize};

/// How large a file may be. Settings, with the guide's numbers as defaults.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Limits {
    /// Longest trust list in bytes. Phones do not load one over 64 kilobytes (guide 2880).
    pub list_bytes: usize,
    /// More certificates than this in a list bring a warning: above 39 the file outgrows 64 kilobytes (guide 2880).
    pub list_certificates: usize,
    /// Longest signed file in bytes, header and all.
    pub file_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { list_bytes: 64 * 1024, list_certificates: 39, file_bytes: 1024 * 1024 }
    }
}

/// What an operator should know of a list that is still valid.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ListWarning {
    /// More certificates than phones are sure to load.
    #[error(
        "the trust list has {count} certificates; with more than {limit} phones may fail to load it and to register"
    )]
    Certificates {
        /// Different certificates in the list.
        count: usize,
        /// The limit.
        limit: usize,
    },
}
