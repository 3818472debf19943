//! `casemate-verify`: how an auditor proves, on a machine of his own, that a key of a Casemate node was made in a TPM and cannot
//! leave it.
//!
//! It talks to no Casemate and to no network, needs no TPM and none of a token's libraries: it reads files that the node's
//! operator hands over, and writes files for him. Nothing in them is believed because a node says it. What is proven rests on the
//! certificate of the TPM's maker, which the auditor has from the maker.
//!
//! Exit codes: 0 proven or done, 1 nothing is proven, with the reason, 2 wrong usage.
#![forbid(unsafe_code)]

mod arguments;
mod error;
mod files;
mod maker;
mod text;
mod verify;

use std::{io, process::ExitCode};

use arguments::{Arguments, Command};
use clap::Parser;
use error::VerifyError;

/// Where results go.
type Out<'a> = &'a mut dyn io::Write;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let out = &mut io::stdout().lock();
    let outcome = match &arguments.command {
        Command::Challenge(given) => verify::challenge(given, out),
        Command::Enrol(given) => verify::enrol(given, out),
        Command::Nonce => verify::nonce(out),
        Command::Statement(given) => verify::statement(given, out),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("casemate-verify: {error}");
            ExitCode::FAILURE
        }
    }
}
