use std::{num::NonZeroU32, path::PathBuf};

use clap::Parser;

/// Checks whether a PKCS#11 module can carry Casemate's keys. `casemate hsm check` starts it.
#[derive(Debug, Parser)]
#[command(name = "casemate-hsm-check", version)]
pub(crate) struct Options {
    /// The module
    pub(crate) module: PathBuf,
    /// The token's label, where the module has several
    #[arg(long)]
    pub(crate) token: Option<String>,
    /// File with the user PIN; otherwise it is read from standard input
    #[arg(long)]
    pub(crate) pin_file: Option<PathBuf>,
    /// Folder in which a refused PIN is remembered, and who checks a token
    #[arg(long)]
    pub(crate) state: PathBuf,
    /// Folder with key-policy.toml and role-tokens.toml
    #[arg(long)]
    pub(crate) etc: PathBuf,
    /// How long each algorithm's rate is measured, in milliseconds
    #[arg(long)]
    pub(crate) rate_ms: u64,
    /// This process ends after so many seconds even if nobody ends it
    #[arg(long)]
    pub(crate) limit_s: NonZeroU32,
    /// Try every algorithm that the token offers, and not only P-256 and those of the key policy
    #[arg(long)]
    pub(crate) all: bool,
    /// Only remove what checks of this machine that died left on the token
    #[arg(long)]
    pub(crate) remove: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
