//! `casemate-keyd`, the key broker: the only process that opens the token and knows its PIN.
//!
//! The other daemons ask it over `keyd.sock` to sign whole messages for a purpose; who may ask what stands in
//! `key-policy.toml`, and callers are known by `SO_PEERCRED`. It may touch its own folder, the PIN file, the token's library
//! and device, and the audit trail; it has no network unless the token is one. It listens only once the token passed its test.
//! While the token is away it answers that it is, and looks for it again; after one wrong answer it signs nothing any more.
//! What cannot be recorded is not signed: certificates, lists and files stand in keyd's own record on disk before their
//! signatures exist, handshakes in the audit trail.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    casemate_runtime::daemon::main("keyd", casemate_keyd::serve)
}
