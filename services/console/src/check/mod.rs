//! `casemate hsm check`: a PKCS#11 module that nobody knows yet is tried in a process of its own (`casemate-hsm-check`), which it
//! may crash, stop or end, and nothing else.

mod child;

use std::{process::Command, time::Duration};

use casemate_hsm_api::Pin;
use casemate_runtime::publish::ensure_folder;

use self::child::{Heard, Limits};
use crate::{ConsoleError, Out, arguments::CheckModule, node::Node, pin};

/// The child's program.
const PROGRAM: &str = "casemate-hsm-check";

/// One check, and the PIN for its children.
struct Check<'a> {
    node: &'a Node,
    asked: &'a CheckModule,
    as_json: bool,
    /// Nothing where the children read it from a file.
    pin: Option<Pin>,
}

/// Runs the check, and says what of it is left on the token if it ends too soon.
pub(crate) fn run(node: &Node, asked: &CheckModule, as_json: bool, out: Out<'_>) -> Result<(), ConsoleError> {
    let pin = if asked.pin_file.is_none() { Some(pin::from_stdin("user PIN of the token: ")?) } else { None };
    let check = Check { node, asked, as_json, pin };
    eprintln!(
        "casemate: keys with a label that begins with \"casemate hsm check\" are made on the token, and removed at the end; a PIN \
         that the token refuses is tried once"
    );
    let settings = &node.settings;
    let limits = Limits {
        step: Duration::from_millis(settings.check_step_timeout_ms),
        all: Duration::from_millis(settings.check_timeout_ms),
    };
    let heard = check.child(&[], limits)?;
    if let Some(report) = &heard.report {
        out.write_all(report)?;
    }
    let module = asked.module.clone();
    match (&heard.report, heard.end.code(), heard.error.clone()) {
        (Some(_), Some(0), _) => Ok(()),
        (Some(_), Some(3), _) => Err(ConsoleError::ModuleLacking(module)),
        (Some(_), Some(4), _) => Err(ConsoleError::ModuleWrong(module)),
        (None, _, Some(reason)) => Err(ConsoleError::ModuleUnchecked { module, reason, left: check.left(&heard) }),
        _ => Err(ConsoleError::ModuleBroke {
            module,
            how: heard.end.explain(),
            step: heard.step.clone(),
            printed: if heard.printed.is_empty() {
                String::new()
            } else {
                format!("; last it printed: {}", heard.printed)
            },
            left: check.left(&heard),
        }),
    }
}

impl Check<'_> {
    fn child(&self, more: &[&str], limits: Limits) -> Result<Heard, ConsoleError> {
        let paths = &self.node.config.paths;
        let (program, state) = (paths.bin.join(PROGRAM), paths.state_of("hsm-check"));
        // A PIN that was refused once must not be tried by the next check either.
        let hint = "the folder for refused PINs; run this as root";
        ensure_folder(&state, 0o700).map_err(|source| ConsoleError::File { path: state.clone(), source, hint })?;
        let mut command = Command::new(&program);
        command.arg("--state").arg(&state).arg("--etc").arg(&paths.etc);
        command.arg(format!("--rate-ms={}", self.node.settings.check_rate_ms));
        command.arg(format!("--limit-s={}", limits.all.as_secs().saturating_add(1)));
        if let Some(token) = &self.asked.token {
            command.arg(format!("--token={token}"));
        }
        if let Some(file) = &self.asked.pin_file {
            command.arg("--pin-file").arg(file);
        }
        let flags = [("--all", self.asked.all), ("--json", self.as_json)];
        command.args(flags.iter().filter_map(|(flag, is)| is.then_some(flag))).args(more);
        command.arg("--").arg(&self.asked.module);
        let show = |step: &str| eprintln!("  {step}");
        let pin = self.pin.as_ref().map(Pin::expose).unwrap_or_default();
        child::run(command, pin.as_bytes(), limits, show).map_err(|source| ConsoleError::Program { program, source })
    }

    /// What is left of a check that ended too soon, after another child has tried to remove it.
    fn left(&self, heard: &Heard) -> String {
        let Some(label) = &heard.keys else { return "no key was made".to_owned() };
        let by_hand = format!("remove what has the label {label:?} by hand, or check the token again on this machine");
        let told = |left: usize| match left {
            0 => "its keys are removed from the token".to_owned(),
            left => format!("{left} objects of it could not be removed from the token: {by_hand}"),
        };
        if let Some(left) = heard.left {
            return told(left);
        }
        let step = Duration::from_millis(self.node.settings.check_step_timeout_ms);
        let reason = match self.child(&["--remove"], Limits { step, all: step }) {
            Ok(Heard { left: Some(left), .. }) => return told(left),
            Ok(Heard { error: Some(error), .. }) => error,
            Ok(Heard { end, .. }) => end.explain(),
            Err(error) => error.to_string(),
        };
        format!("its keys may be left on the token, for their removal failed ({reason}): {by_hand}")
    }
}
