//! `casemate-keyd`, the key broker: the only process that opens the tokens and knows their PINs.
//!
//! The other daemons ask it over `keyd.sock` to sign whole messages for a purpose; who may ask what stands in
//! `key-policy.toml`, which key lives in which token in `role-tokens.toml`, and callers are known by `SO_PEERCRED`. It may touch
//! its own folder, the PIN files, the tokens' libraries and devices, and the audit trail; it has no network unless a token is one.
//! Operators, root or the user `admin`, ask it for the status and for what an auditor needs to believe where the keys are, and have
//! it change a token's PIN.
//! It listens once every token was looked for and one passed its test. While a token is away it answers for its roles that it is,
//! and looks for it again; with a token that gave one wrong answer it signs nothing any more. What happens to one token is nothing
//! to the roles of the others. What cannot be recorded is not signed: certificates, lists and files stand in keyd's own record on
//! disk before their signatures exist, handshakes in the audit trail.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    casemate_runtime::daemon::main("keyd", casemate_keyd::serve)
}
