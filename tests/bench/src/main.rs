//! `make bench`: the numbers of the README in one run on one machine, each beside its goal, and beside what the token does with
//! nothing around it. The exit code says whether everything worked, never whether it was fast.
#![forbid(unsafe_code)]

mod bare_token;
mod enrolment;
mod error;
mod files;
mod load;
mod machine;
mod operator;
mod processor;
mod report;
mod run;

use std::{env, ffi::OsString, io::Write, path::Path, process::ExitCode, time::Duration};

use clap::Parser;

pub(crate) use error::BenchError;
use run::Extent;

/// Numbers of the lab, held against the bare token.
#[derive(Parser)]
struct Arguments {
    /// JSON in place of the table.
    #[arg(long)]
    json: bool,
    /// Phones to add; their signed files are one measurement, their enrolments the others.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1_000..=1_000_000))]
    phones: u32,
    /// How long the bare token signs, in seconds, before and after each measurement that is held against it.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().collect();
    let outcome = match &arguments[..] {
        [_, first, folder, millis] if first == bare_token::ARGUMENT => {
            let millis = millis.to_str().and_then(|text| text.parse().ok()).unwrap_or_default();
            bare_token::measure(Path::new(folder), Duration::from_millis(millis))
        }
        _ => bench(&Arguments::parse_from(arguments)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench(arguments: &Arguments) -> Result<(), BenchError> {
    let extent = Extent { phones: arguments.phones as usize, bare: Duration::from_secs(arguments.seconds) };
    let report = run::run(&extent)?;
    let mut out = std::io::stdout().lock();
    let written = if arguments.json {
        serde_json::to_writer_pretty(&mut out, &report).map_err(std::io::Error::from).and_then(|()| writeln!(out))
    } else {
        write!(out, "{report}")
    };
    written.map_err(BenchError::Output)
}
