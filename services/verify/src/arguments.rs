use std::{path::PathBuf, str::FromStr};

use clap::{Args, Parser, Subcommand};

/// Fewer bytes of a nonce could be guessed, and an old statement be shown again.
const SHORTEST_NONCE: usize = 16;

/// Proves that a key of a Casemate node was made in a TPM and cannot leave it.
#[derive(Debug, Parser)]
#[command(name = "casemate-verify", version, arg_required_else_help = true, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Once for each TPM: judge its endorsement certificate and make a challenge that no other TPM can answer
    Challenge(Challenge),
    /// Once for each TPM: take its answer, and believe its attestation key from then on
    Enrol(Enrol),
    /// A fresh nonce for one statement
    Nonce,
    /// Say what a statement proves of the key in a certificate
    Statement(Statement),
}

#[derive(Debug, Args)]
pub(crate) struct Challenge {
    /// What `casemate hsm attestation-key` wrote
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,
    /// Certificates of TPM makers that you believe, from the makers themselves (PEM)
    #[arg(long, value_name = "PEM", num_args = 1.., required = true)]
    pub(crate) makers: Vec<PathBuf>,
    /// Certificates between a maker's and the TPM's, beside those that the TPM itself holds (PEM); they are judged, not believed
    #[arg(long, value_name = "PEM", num_args = 1..)]
    pub(crate) intermediates: Vec<PathBuf>,
    /// The challenge, to be answered by `casemate hsm answer`
    #[arg(long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// What has to come back; it stays on this machine
    #[arg(long, value_name = "FILE")]
    pub(crate) keep: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Enrol {
    /// What `casemate-verify challenge` kept
    #[arg(long, value_name = "FILE")]
    pub(crate) expected: PathBuf,
    /// What `casemate hsm answer` wrote
    #[arg(long, value_name = "FILE")]
    pub(crate) answer: PathBuf,
    /// The enrolled attestation key; it stays on this machine, and whoever changes it decides what is believed
    #[arg(long, value_name = "FILE")]
    pub(crate) output: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Statement {
    /// What `casemate-verify enrol` wrote
    #[arg(long, value_name = "FILE")]
    pub(crate) enrolled: PathBuf,
    /// What `casemate hsm attest` wrote
    #[arg(long, value_name = "FILE")]
    pub(crate) statement: PathBuf,
    /// The certificate that phones see (PEM)
    #[arg(long, value_name = "PEM")]
    pub(crate) certificate: PathBuf,
    /// The nonce that you gave for this statement
    #[arg(long, value_name = "HEX")]
    pub(crate) nonce: Nonce,
}

/// An auditor's nonce.
#[derive(Clone, Debug)]
pub(crate) struct Nonce(pub(crate) Vec<u8>);

impl FromStr for Nonce {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = hex::decode(text).map_err(|error| format!("it is no row of hexadecimal digits: {error}"))?;
        if bytes.len() < SHORTEST_NONCE {
            return Err(format!(
                "it has {} bytes, and fewer than {SHORTEST_NONCE} can be guessed; `casemate-verify nonce` makes one",
                bytes.len()
            ));
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_grammar_holds_and_a_short_nonce_is_refused() {
        Arguments::command().debug_assert();
        assert!("00".repeat(16).parse::<Nonce>().is_ok());
        assert!("00".repeat(15).parse::<Nonce>().unwrap_err().contains("15 bytes"));
        assert!("".parse::<Nonce>().is_err() && "zz".repeat(16).parse::<Nonce>().is_err());
    }
}
