//! `casemate-phone`: plays the start of a Cisco phone against any address.
//!
//! It calls the file, TVS and CAPF services at the host and ports of its command line, writes nothing but its state
//! folder, and listens to nobody. When a service is gone it says which and exits with 1. Exit 0 only if all held.
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use casemate_phone::capf::AuthString;
use casemate_phone::identity::KeySpec;
use casemate_phone::play::{Expected, Ports, Question, Settings, Step, Transcript, play};
use casemate_phone::tls::TlsVersions;
use casemate_phone::transfer::Via;
use casemate_phone::{PhoneError, Result};
use clap::Parser;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// Plays the start of a Cisco phone: trust list, configuration, trust verification, enrolment.
#[derive(Debug, Parser)]
#[command(name = "casemate-phone", version)]
struct Arguments {
    /// Device name, such as SEP001122334455
    #[arg(long)]
    name: String,
    /// Host name or address of every service
    #[arg(long)]
    host: String,
    /// The phone's own folder
    #[arg(long)]
    state: PathBuf,
    /// The authentication string that the user types in
    #[arg(long)]
    string: Option<AuthString>,
    /// The key that CAPF must ask for: rsa-2048, rsa-3072, rsa-4096, p-256, p-384 or p-521
    #[arg(long)]
    key: Option<KeySpec>,
    #[arg(long, default_value_t = 69)]
    tftp_port: u16,
    #[arg(long, default_value_t = 6970)]
    http_port: u16,
    #[arg(long, default_value_t = 6971)]
    https_port: u16,
    /// Instead of the configuration's port, or 3804
    #[arg(long)]
    capf_port: Option<u16>,
    /// Instead of the configuration's port, or 2445
    #[arg(long)]
    tvs_port: Option<u16>,
    /// How files are fetched
    #[arg(long, value_enum, default_value_t)]
    via: Via,
    /// Newest CAPF version that the phone speaks
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=3))]
    capf_version: u8,
    /// TLS versions that the phone offers
    #[arg(long, value_enum, default_value_t)]
    tls: TlsVersions,
    /// A certificate (PEM or DER) to ask TVS about
    #[arg(long)]
    ask_about: Option<PathBuf>,
    /// What TVS must say about it
    #[arg(long, value_enum, default_value_t, requires = "ask_about")]
    expect: Expected,
    /// Seconds for one exchange with one service
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    /// One JSON document instead of lines
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let json = arguments.json;
    let mut steps = Vec::new();
    let result = settings(arguments).and_then(|settings| {
        play(&settings, &mut |step| {
            if !json {
                print(&format!("{:<20}{:>11.3} ms  {}", step.name, step.took.as_secs_f64() * 1e3, step.said));
            }
            steps.push(step.clone());
        })
    });
    match (result, json) {
        (Ok(transcript), true) => report(Some(&transcript), &transcript.steps, None),
        (Ok(_), false) => ExitCode::SUCCESS,
        (Err(error), true) => report(None, &steps, Some(&error)),
        (Err(error), false) => {
            let _ = writeln!(io::stderr(), "casemate-phone: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A closed standard output must not end the phone in the middle of an enrolment.
fn print(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

fn report(transcript: Option<&Transcript>, steps: &[Step], error: Option<&PhoneError>) -> ExitCode {
    let document = serde_json::json!({
        "ok": error.is_none(),
        "device": transcript.map(|transcript| &transcript.device),
        "steps": steps,
        "certificate": transcript.and_then(|transcript| transcript.certificate.as_ref()),
        "error": error.map(ToString::to_string),
    });
    print(&document.to_string());
    if error.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn settings(arguments: Arguments) -> Result<Settings> {
    let question = match arguments.ask_about {
        Some(path) => Some(Question { certificate: read_certificate(&path)?, expected: arguments.expect }),
        None => None,
    };
    Ok(Settings {
        device: arguments.name,
        host: arguments.host,
        ports: Ports {
            tftp: arguments.tftp_port,
            http: arguments.http_port,
            https: arguments.https_port,
            capf: arguments.capf_port,
            tvs: arguments.tvs_port,
        },
        state: arguments.state,
        string: arguments.string,
        key: arguments.key,
        via: arguments.via,
        capf_version: arguments.capf_version,
        tls: arguments.tls,
        question,
        limit: Duration::from_secs(arguments.timeout),
    })
}

fn read_certificate(path: &Path) -> Result<Vec<u8>> {
    let bytes = std::fs::read(path).map_err(|error| PhoneError::Setting(format!("{}: {error}", path.display())))?;
    if bytes.first() == Some(&0x30) {
        return Ok(bytes);
    }
    CertificateDer::from_pem_slice(&bytes)
        .map(|der| der.to_vec())
        .map_err(|_| PhoneError::Setting(format!("{} is no certificate in PEM or DER", path.display())))
}
