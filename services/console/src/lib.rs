//! `casemate`, the operator's command line. It holds no key and decides nothing: it asks the daemons over their sockets, where
//! the kernel says who asks, and reads what they publish.
//!
//! Exit codes: 0 done, 1 refused or failed, 2 wrong usage; of `hsm check` also 3 and 4, which its help explains. Every error is one
//! line that says what to do.
#![forbid(unsafe_code)]

mod arguments;
mod attest;
mod audit;
mod check;
mod error;
mod export;
mod hsm;
mod identity;
mod itl;
mod json;
mod node;
mod phone;
mod pin;
mod prompt;
mod provision;
mod rekey;
mod selftest;
mod table;
mod text;
mod version;

use std::{
    ffi::OsString,
    io::{self, IsTerminal},
    process::ExitCode,
};

use clap::Parser;

use arguments::{
    Arguments, AuditCommand, Command, HsmCommand, IdentityCommand, PhoneCommand, SelftestCommand, ShowCommand,
};
pub use error::ConsoleError;
use node::Node;

/// Where results go: standard output, or a test's buffer.
type Out<'a> = &'a mut dyn io::Write;

/// Runs the command line `arguments`, the program's name first. At a terminal and without arguments, asks for one command after
/// the other.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let given: Vec<OsString> = arguments.into_iter().collect();
    if given.len() > 1 || !io::stdin().is_terminal() {
        return obey(&given);
    }
    let obey = |words: Vec<OsString>| {
        // What went wrong was said; the next line is another command.
        let _ = obey(&words);
    };
    match prompt::converse(&mut io::stdout(), prompt::line_of_input, obey) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("casemate: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one command line.
fn obey(given: &[OsString]) -> ExitCode {
    let outcome = match Arguments::try_parse_from(given) {
        Ok(arguments) => execute(&arguments, &mut io::stdout().lock()),
        Err(error) => return arguments::explain(&error, given),
    };
    match outcome {
        // Whoever reads our output has seen enough.
        Err(ConsoleError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("casemate: {}", casemate_runtime::daemon::chain(&error));
            ExitCode::from(error.exit_code())
        }
        Ok(()) => ExitCode::SUCCESS,
    }
}

fn execute(arguments: &Arguments, out: Out<'_>) -> Result<(), ConsoleError> {
    let (node, json) = (Node::find(arguments)?, arguments.json);
    match &arguments.command {
        Command::Version => version::show(&node, json, out),
        Command::Provision => provision::run(&node, json, out),
        Command::Phone(PhoneCommand::Add(phone)) => phone::add(&node, phone, json, out),
        Command::Phone(PhoneCommand::List) => phone::list(&node, json, out),
        Command::Show(ShowCommand::Itl) => itl::show(&node, json, out),
        Command::Selftest(SelftestCommand::Run) => selftest::run(&node, json, out),
        Command::Selftest(SelftestCommand::Status) => selftest::status(&node, json, out),
        Command::Hsm(HsmCommand::List) => hsm::list(&node, json, out),
        Command::Hsm(HsmCommand::ChangePin(asked)) => pin::change(&node, asked, json, out),
        Command::Hsm(HsmCommand::Check(asked)) => check::run(&node, asked, json, out),
        Command::Hsm(HsmCommand::Attest(asked)) => attest::attest(&node, asked, json, out),
        Command::Hsm(HsmCommand::AttestationKey(asked)) => attest::attestation_key(&node, asked, json, out),
        Command::Hsm(HsmCommand::Answer(asked)) => attest::answer(&node, asked, json, out),
        Command::Audit(AuditCommand::Tail(tail)) => audit::tail(&node, tail, json, out),
        Command::Audit(AuditCommand::Export(asked)) => export::export(&node, asked, out),
        Command::Identity(IdentityCommand::List) => identity::list(&node, json, out),
        Command::Identity(IdentityCommand::ListSigner { role }) => rekey::list_signer(&node, *role, json, out),
        Command::Identity(IdentityCommand::Rekey(asked)) => rekey::run(&node, asked, json, out),
    }
}
