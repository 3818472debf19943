//! `casemate-hsm-check`: the child of `casemate hsm check`. It loads a PKCS#11 module that nobody knows yet, so whatever the
//! module does ends this process and no other.
//!
//! The console starts it, gives it the PIN on standard input unless that is in a file, hears on its standard output what it is
//! doing (`voice`), and ends it when it is silent for too long. It may use the module and a folder for refused PINs, and opens no
//! socket. When the console is gone, it removes its keys and ends. Several may be at one token at once: each removes its own keys, and
//! those of checks that died (`run`). With `--self-test` it tests the FIPS module in this process, as the
//! power-on self-test has every program do.
//!
//! Exit codes: 0 the token can carry every role, 1 it could not be checked, 2 wrong usage, 3 it cannot carry every role, 4 it gave
//! a wrong answer. A code without a report says nothing: a module may end the process with any.
#![forbid(unsafe_code)]

mod error;
mod opened;
mod options;
mod pin;
mod render;
mod report;
mod roles;
mod run;
mod text;
mod trial;
mod vectors;
mod view;
mod voice;

use std::{env, error::Error, process::ExitCode};

use clap::Parser;
use nix::{
    sys::{
        prctl::set_dumpable,
        resource::{Resource, setrlimit},
    },
    unistd::alarm,
};

use crate::{error::CheckError, options::Options, pin::PinFile, report::Verdict, voice::Voice};

fn main() -> ExitCode {
    if env::args_os().nth(1).is_some_and(|first| first == "--self-test") {
        return casemate_post::self_test();
    }
    let options = Options::parse();
    let Ok(voice) = Voice::take() else { return ExitCode::FAILURE };
    match check(&options, &voice) {
        Ok(verdict) => ExitCode::from(verdict.exit_code()),
        Err(error) => {
            // Nobody is left to hear that nobody listens.
            let _ = voice.error(&chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn check(options: &Options, voice: &Voice) -> Result<Verdict, CheckError> {
    protect(options)?;
    let pin = PinFile::of(options).map_err(CheckError::Pin)?;
    if options.remove {
        return trial::remove(options, &pin, voice).map(|()| Verdict::CarriesAll);
    }
    let report = trial::run(options, &pin, voice)?;
    let text = if options.json { serde_json::to_string_pretty(&report)? } else { render::text(&report) };
    voice.report(&text)?;
    Ok(report.verdict)
}

/// The PIN is going to be in this process's memory; and if the module hangs when the console is gone, the kernel ends it.
fn protect(options: &Options) -> Result<(), CheckError> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(CheckError::Unprotected)?;
    set_dumpable(false).map_err(CheckError::Unprotected)?;
    alarm::set(options.limit_s.get());
    Ok(())
}

fn chain(error: &CheckError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        // Most of ours name their cause themselves.
        let cause = error.to_string();
        if !text.contains(&cause) {
            text += &format!(": {cause}");
        }
        source = error.source();
    }
    text
}
