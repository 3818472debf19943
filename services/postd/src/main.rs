#![forbid(unsafe_code)]
//! `casemate-postd`: runs once, before any other daemon and before the network (systemd `Type=oneshot`; the others are
//! ordered after it and require it).
//!
//! Nobody talks to it and it talks to nobody. As root it reads the installed binaries and their manifest, runs each daemon
//! once with `--self-test`, tests the AWS-LC module and the noise source in its own process, writes `<run>/post.json`, audits
//! how it ended, and exits: with 0 only if everything passed. Then nothing else starts on any other code, and should it die on
//! the way (a broken module aborts its process), there is no report, and no daemon starts without one.

use std::{path::PathBuf, process::ExitCode};

use casemate_entropy::CpuJitter;
use casemate_post::Report;
use casemate_postd::{PostdError, power_on, write_manifest};
use casemate_runtime::{config::Config, log};
use clap::Parser;

/// Proves the installation and its cryptography before anything else starts.
#[derive(Debug, Parser)]
struct Arguments {
    /// Settings file.
    #[arg(long, default_value = "/etc/casemate/casemate.toml")]
    config: PathBuf,
    /// Write the manifest of the installed binaries, and do nothing else.
    #[arg(long)]
    write_manifest: bool,
    /// Run the cryptographic module's tests in this process, print one line, and exit.
    #[arg(long)]
    self_test: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.self_test {
        return casemate_post::self_test();
    }
    log::init();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("casemate-postd: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether what was asked for succeeded.
fn run(arguments: &Arguments) -> Result<bool, PostdError> {
    let config = Config::load(&arguments.config)?;
    if arguments.write_manifest {
        for (name, binary) in write_manifest(&config)?.binaries {
            println!("{}  {name}", binary.sha256);
        }
        return Ok(true);
    }
    let mut source = CpuJitter::new();
    let report: Report = power_on(&config, &casemate_kat::published(), &mut source, &mut std::io::stdout())?;
    Ok(report.failure().is_none())
}
