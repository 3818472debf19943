//! `casemate-probe SOCKET REQUEST`: sends one request, written as JSON, to the key broker and prints its answer as JSON. The
//! tests run it under the uid of each daemon to see what that daemon, taken over by an attacker, could have signed. It has no
//! rights of its own: the broker knows it by `SO_PEERCRED` like anybody.
//!
//! `casemate-probe --listen SOCKET`: takes a daemon's socket name, as an impostor would, and answers nobody.
#![forbid(unsafe_code)]

use std::{
    env,
    error::Error,
    fs::{self, Permissions},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    process::ExitCode,
};

use casemate_keyring::{FRAMING, Request, Response};

fn main() -> ExitCode {
    match ask() {
        Ok(answer) => {
            println!("{answer}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("casemate-probe: {error}");
            ExitCode::FAILURE
        }
    }
}

fn ask() -> Result<String, Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let (Some(socket), Some(request)) = (arguments.next(), arguments.next()) else {
        return Err("usage: casemate-probe SOCKET REQUEST | casemate-probe --listen SOCKET".into());
    };
    if socket == "--listen" {
        let listener = UnixListener::bind(&request)?;
        fs::set_permissions(&request, Permissions::from_mode(0o666))?;
        let callers: Vec<UnixStream> = listener.incoming().collect::<Result<_, _>>()?;
        return Ok(format!("{} callers", callers.len()));
    }
    let request: Request = serde_json::from_str(&request)?;
    let mut socket = UnixStream::connect(socket)?;
    FRAMING.write(&mut socket, &request)?;
    let answer: Option<Response> = FRAMING.read(&mut socket)?;
    Ok(serde_json::to_string(&answer.ok_or("closed without an answer")?)?)
}
