//! A locked PIN. That a wrong one is tried once is in `token.rs` beside this program, and for a TPM in the end to end tests.

use casemate_faults::{Faulty, Token};
use casemate_harness::{Lab, Tokens};

use crate::stage::{SOON, Stage, count, prepared};

/// What the security officer needs, and the lab throws away.
const OFFICER: &str = "97531000";

fn tool(lab: &Lab, arguments: &[&str]) -> Result<String, String> {
    let module = lab.module().display().to_string();
    let all = [&["--module", &module, "--token-label", "casemate-lab"], arguments].concat();
    lab.beside_keyd("pkcs11-tool", &all).map_err(|error| error.to_string())
}

