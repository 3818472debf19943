//! `casemate-capf`: phones speak to it on TCP 3804 over TLS; the console and ctlprovider on `capf.sock`. It may write its own
//! folder, read what certmgr publishes, and ask keyd for signatures of device certificates and of its own handshakes with the
//! CAPF key. While keyd or the token is gone, handshakes fail and phones try again; no operation and no string is lost. While
//! certmgr has published no CAPF certificate, phones wait and operators are served. While its disk is full, nothing is issued.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    casemate_runtime::daemon::main("capf", casemate_capf::serve)
}
