//! `casemate-setup`: makes the image's token at the first boot, in the steps of `casemate-setup.service`.
//!
//! Nobody talks to it. It runs as the key broker's user after the power-on self-test: `pins` thinks of two PINs, systemd-creds seals
//! them to the TPM as root, `token` makes the SoftHSM token with them and forgets them. `mend` runs before each start of the key
//! broker. It may touch the broker's folder and its own, starts `softhsm2-util`, and has no network. What was interrupted is done
//! again from the beginning; a token that stands there without its PIN is left alone, and said to be.
#![forbid(unsafe_code)]

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use casemate_audit::{Auditor, Event};
use casemate_post::Passed;
use casemate_runtime::{config::Config, daemon::Failure, daemon::chain, log};
use casemate_setup::{Places, make_pins, make_token, mend};
use clap::{Parser, Subcommand};

/// Makes the image's token at the first boot.
#[derive(Debug, Parser)]
struct Arguments {
    /// Settings file.
    #[arg(long, default_value = "/etc/casemate/casemate.toml")]
    config: PathBuf,
    /// Run the cryptographic module's tests in this process, print one line, and exit.
    #[arg(long)]
    self_test: bool,
    #[command(subcommand)]
    step: Option<Step>,
}

#[derive(Debug, Subcommand)]
enum Step {
    /// Write two new PINs into this folder, which is in memory
    Pins {
        /// The folder
        folder: PathBuf,
    },
    /// Make the token with the PINs of this folder, now that they are sealed, and remove them
    Token {
        /// The folder
        folder: PathBuf,
    },
    /// Put back SoftHSM's own file where a power cut emptied it
    Mend,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.self_test {
        return casemate_post::self_test();
    }
    let Some(step) = &arguments.step else {
        eprintln!("casemate-setup: say which step: pins, token or mend");
        return ExitCode::from(2);
    };
    log::init();
    match run(&arguments.config, step) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("casemate-setup: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run(config: &Path, step: &Step) -> Result<(), Failure> {
    let config = Config::load(config)?;
    let places = Places::of(&config.paths);
    let auditor = Auditor::open("casemate-setup", &config.audit)?;
    match step {
        Step::Pins { folder } => {
            let passed = Passed::for_this_process(&config.paths.post_report())?;
            Ok(make_pins(&passed, &places, folder)?)
        }
        Step::Token { folder } => {
            make_token(&places, folder)?;
            // What cannot be recorded must not have happened in silence: the unit fails, and keyd does not start on this token.
            Ok(auditor.try_record(&Event::TokenSetUp { label: casemate_setup::LABEL.into() })?)
        }
        Step::Mend => {
            if let Some(object) = mend(&places)? {
                auditor.record(&Event::TokenMended { file: object.display().to_string() });
            }
            Ok(())
        }
    }
}
