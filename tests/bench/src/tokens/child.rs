//! This program again, as a process of another user: it is told what to do by one argument, and tells what came of it by one line,
//! both in JSON.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use casemate_harness::Lab;
use serde::{Serialize, de::DeserializeOwned};

use crate::{BenchError, finish};

/// This program's name.
const PROGRAM: &str = "casemate-bench";

/// A command of this program under the user of `daemon`, with a job.
pub(crate) fn command(lab: &Lab, daemon: &str, argument: &str, job: &impl Serialize) -> Result<Command, BenchError> {
    let mut command = lab.beside(daemon, &lab.reachable_copy(PROGRAM)?);
    command.arg(argument).arg(serde_json::to_string(job).map_err(BenchError::Job)?).stdin(Stdio::null());
    Ok(command)
}

/// Runs such a command to its end, and gives what it told.
pub(crate) fn run<T: DeserializeOwned>(
    lab: &Lab,
    daemon: &str,
    argument: &str,
    job: &impl Serialize,
) -> Result<T, BenchError> {
    let output = finish(command(lab, daemon, argument, job)?)?;
    serde_json::from_slice(&output.stdout).map_err(BenchError::Job)
}

/// What this process was told to do.
pub(crate) fn told<T: DeserializeOwned>(job: &str) -> Result<T, BenchError> {
    serde_json::from_str(job).map_err(BenchError::Job)
}

/// Tells what came of it.
pub(crate) fn tell(outcome: &impl Serialize) -> Result<(), BenchError> {
    let line = serde_json::to_string(outcome).map_err(BenchError::Job)?;
    writeln!(std::io::stdout(), "{line}").map_err(BenchError::Output)
}
