//! `casemate`: the operator's command line.
//!
//! An operator runs it, as root or as the user `admin` of `[users]`; it talks to certmgr, capf and keyd over their sockets, and
//! reads the self-test's report, the published trust list and the audit trail. `hsm check` talks to nobody and starts a child, for it
//! loads a module. It listens nowhere. When a daemon is gone, it says which.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    casemate_console::run(std::env::args_os())
}
