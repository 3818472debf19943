//! What this process tells the console, on its standard output, a line each:
//!
//! - `step TEXT`: what is about to be tried. The console waits a while for the next line, and then ends this process.
//! - `keys LABEL`: from now on keys of the check are on the token, with this label.
//! - `left N`: they were removed, but for N.
//! - `error TEXT`: there will be no report.
//! - `report`: what follows, to the end, is for the person who asked.

use std::{
    fs::File,
    io::{self, Write},
};

use nix::unistd::{dup, dup2_stdout};

use crate::{error::CheckError, text::plain};

/// The only one who writes to the console: what the module prints goes to standard error.
pub(crate) struct Voice(File);

impl Voice {
    /// Takes standard output away from everybody else in this process.
    pub(crate) fn take() -> io::Result<Self> {
        let own = dup(io::stdout())?;
        dup2_stdout(io::stderr())?;
        Ok(Self(File::from(own)))
    }

    pub(crate) fn step(&self, text: &str) -> Result<(), CheckError> {
        self.line(&format!("step {}", plain(text)))
    }

    pub(crate) fn keys(&self, label: &str) -> Result<(), CheckError> {
        self.line(&format!("keys {label}"))
    }

    pub(crate) fn left(&self, count: usize) -> Result<(), CheckError> {
        self.line(&format!("left {count}"))
    }

    pub(crate) fn error(&self, text: &str) -> Result<(), CheckError> {
        self.line(&format!("error {}", plain(text)))
    }

    pub(crate) fn report(&self, text: &str) -> Result<(), CheckError> {
        self.line(&format!("report\n{}", text.trim_end()))
    }

    fn line(&self, text: &str) -> Result<(), CheckError> {
        (&self.0).write_all(format!("{text}\n").as_bytes()).map_err(CheckError::Deserted)
    }
}
