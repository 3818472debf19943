//! A simulated phone (`casemate-phone`) at the guest's forwarded ports.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::{Console, FORWARDED, Forward, GuestError, GuestSettings};

/// A phone with a state folder of its own beside the guest's files.
#[derive(Clone, Debug)]
pub struct Phone {
    /// The device's name: `SEP001122334455`.
    pub name: String,
    program: PathBuf,
    state: PathBuf,
    host: String,
}

impl Phone {
    /// The phone `name` of the guest with `settings`; `programs` is the folder of `casemate-phone`. What an earlier phone of that
    /// name kept is there.
    #[must_use]
    pub fn new(settings: &GuestSettings, programs: &Path, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            program: programs.join("casemate-phone"),
            state: settings.file(&format!("phone-{name}")),
            host: settings.address.to_string(),
        }
    }

    /// What it keeps: its trust list, key, certificate.
    #[must_use]
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// A phone as it leaves the factory.
    ///
    /// # Errors
    /// Its folder cannot be removed.
    pub fn reset(&self) -> Result<(), GuestError> {
        match fs::remove_dir_all(&self.state) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(GuestError::file(&self.state)(error)),
            _ => Ok(()),
        }
    }

    /// Lets it in at the console: an operation without an authentication string, which would be in logs.
    ///
    /// # Errors
    /// The console refuses.
    pub fn let_in(&self, console: &mut Console, limit: Duration) -> Result<(), GuestError> {
        console.casemate(&["phone", "add", &self.name, "--null-string", "--key", "p-384"], limit).map(drop)
    }

    /// Plays its start once, with `arguments` more, and gives what it printed.
    ///
    /// # Errors
    /// Something that the phone checks does not hold.
    pub fn play(&self, arguments: &[&str]) -> Result<String, GuestError> {
        let mut command = Command::new(&self.program);
        command.args(["--name", &self.name, "--host", &self.host, "--key", "p-384", "--state"]).arg(&self.state);
        for (flag, forward) in
            ["--tftp-port", "--http-port", "--https-port", "--capf-port", "--tvs-port"].iter().zip(FORWARDED)
        {
            command.args([flag, Forward::outside(forward).to_string().as_str()]);
        }
        let program = self.program.display().to_string();
        let output = command.args(arguments).output();
        let output = output.map_err(|source| GuestError::Run { program: program.clone(), source })?;
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        if output.status.success() { Ok(text) } else { Err(GuestError::Failed { program, output: text }) }
    }

    /// Plays its start until all holds: its configuration is signed a moment after it was let in.
    ///
    /// # Errors
    /// It does not hold within `limit`; what the last try said.
    pub fn enrol(&self, limit: Duration) -> Result<String, GuestError> {
        let end = Instant::now() + limit;
        loop {
            match self.play(&[]) {
                Err(GuestError::Failed { .. }) if Instant::now() < end => thread::sleep(Duration::from_secs(1)),
                outcome => return outcome,
            }
        }
    }
}
