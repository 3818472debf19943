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
mod tokens;

use std::{
    env,
    ffi::OsString,
    io::Write,
    path::Path,
    process::{Command, ExitCode, Output},
    time::Duration,
};

use casemate_harness::Tokens;
use clap::{Parser, ValueEnum};

pub(crate) use error::BenchError;
use machine::Machine;
use report::Report;
use run::Extent;
use tokens::{direct, requests};

/// Numbers of the lab, held against the bare token.
#[derive(Parser)]
struct Arguments {
    /// What is measured.
    #[arg(value_enum, default_value = "all")]
    part: Part,
    /// The kinds of token, in commas, as `make lab TOKENS=` names them; all that have keys of their own if nothing is said.
    #[arg(long, value_delimiter = ',', value_parser = tokens::kind)]
    tokens: Vec<Tokens>,
    /// JSON in place of the table.
    #[arg(long)]
    json: bool,
    /// Phones to add; their signed files are one measurement, their enrolments the others.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1_000..=1_000_000))]
    phones: u32,
    /// How long the bare token signs, in seconds, before and after each measurement that is held against it; and how long each
    /// measurement of signatures through keyd takes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
}

/// A part of the numbers.
#[derive(Clone, Copy, Eq, PartialEq, ValueEnum)]
enum Part {
    /// Everything.
    All,
    /// Self-tests, signed files, enrolments and the memory of the daemons, on SoftHSM.
    Phones,
    /// Signatures through keyd beside the C interface of each kind of token.
    Tokens,
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().collect();
    let outcome = match &arguments[..] {
        [_, first, folder, millis] if first == bare_token::ARGUMENT => {
            let millis = millis.to_str().and_then(|text| text.parse().ok()).unwrap_or_default();
            bare_token::measure(Path::new(folder), Duration::from_millis(millis))
        }
        [_, first, job] if first == direct::ARGUMENT => direct::run(&job.to_string_lossy()),
        [_, first, job] if first == requests::ARGUMENT => requests::run(&job.to_string_lossy()),
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
    let duration = Duration::from_secs(arguments.seconds);
    let mut report = Report::on(Machine::here());
    if arguments.part != Part::Tokens {
        run::run(&Extent { phones: arguments.phones as usize, bare: duration }, &mut report)?;
    }
    if arguments.part != Part::Phones {
        tokens::run(&run::folder().join("tokens"), &arguments.tokens, duration, &mut report)?;
    }
    let mut out = std::io::stdout().lock();
    let written = if arguments.json {
        serde_json::to_writer_pretty(&mut out, &report).map_err(std::io::Error::from).and_then(|()| writeln!(out))
    } else {
        write!(out, "{report}")
    };
    written.map_err(BenchError::Output)
}

/// Runs `command` to its end and gives what it printed.
fn finish(mut command: Command) -> Result<Output, BenchError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(BenchError::file(&program))?;
    if output.status.success() {
        return Ok(output);
    }
    let text = [output.stdout, output.stderr].concat();
    Err(BenchError::Program {
        program,
        output: format!("{}; {}", output.status, String::from_utf8_lossy(&text).trim()),
    })
}
