use std::{
    fs::File,
    io::{self, IsTerminal, Read},
    time::Duration,
};

use casemate_hsm_api::{PIN_LIMIT, Pin};
use casemate_keyring::{NewPin, Request, Response};
use nix::{
    sys::termios::{LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr},
    unistd::dup,
};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::{ConsoleError, Out, arguments::ChangePin, hsm, json, node::Node, text::plain};

/// What Ctrl-C is to a program that takes keys as they are.
const INTERRUPT: u8 = 3;

/// `casemate hsm change-pin`. The new PIN is never an argument, which others could see in the list of processes.
pub(crate) fn change(node: &Node, asked: &ChangePin, as_json: bool, out: Out<'_>) -> Result<(), ConsoleError> {
    let pin = from_stdin("new PIN: ")?;
    if io::stdin().is_terminal() && from_stdin("the same again: ")? != pin {
        return Err(ConsoleError::NoPin("the two are not the same".to_owned()));
    }
    let request = Request::ChangePin { token: asked.token.clone(), pin: NewPin(pin) };
    // A token in a network may take its time.
    match hsm::ask(node, &request, Duration::from_millis(node.settings.provision_timeout_ms))? {
        Response::PinChanged { token, serial } if as_json => {
            json::print(&Changed { token: &token, serial: &serial }, out)
        }
        Response::PinChanged { token, serial } => {
            Ok(writeln!(out, "the PIN of token {} (serial {}) is changed", plain(&token), plain(&serial))?)
        }
        _ => Err(ConsoleError::WrongAnswer("casemate-keyd")),
    }
}

#[derive(Serialize)]
struct Changed<'a> {
    token: &'a str,
    serial: &'a str,
}

/// A PIN: asked for at a terminal that does not show it, or one line of standard input.
pub(crate) fn from_stdin(prompt: &str) -> Result<Pin, ConsoleError> {
    // Past the buffer of the standard library, which would keep a copy.
    let stdin = dup(io::stdin()).map(File::from).map_err(|error| ConsoleError::NoPin(error.to_string()))?;
    if stdin.is_terminal() { hidden(&stdin, prompt) } else { line(&stdin) }
}

/// A line of a terminal that does not show it.
fn hidden(terminal: &File, prompt: &str) -> Result<Pin, ConsoleError> {
    let hidden = Hidden::new(terminal).map_err(|error| ConsoleError::NoPin(error.to_string()))?;
    eprint!("{prompt}");
    let pin = line(terminal);
    drop(hidden);
    eprintln!();
    pin
}

/// One line, without its end; what follows it is left.
fn line(mut from: impl Read) -> Result<Pin, ConsoleError> {
    let failed = |error: &dyn ToString| ConsoleError::NoPin(error.to_string());
    // Room for all of it at once: what grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(PIN_LIMIT + 1));
    let mut byte = Zeroizing::new([0]);
    while bytes.len() <= PIN_LIMIT && from.read(&mut *byte).map_err(|error| failed(&error))? == 1 {
        match byte[0] {
            b'\n' => break,
            INTERRUPT => return Err(failed(&"interrupted")),
            other => bytes.push(other),
        }
    }
    if bytes.iter().any(|byte| byte.is_ascii_control() && *byte != b'\r') {
        return Err(failed(&"a PIN has no control characters"));
    }
    Pin::read(bytes.as_slice()).map_err(|error| failed(&error))
}

/// A terminal that shows nothing of what is typed, and ends no program, until this is dropped.
struct Hidden<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Hidden<'a> {
    fn new(terminal: &'a File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut hidden = before.clone();
        hidden.local_flags.remove(LocalFlags::ECHO | LocalFlags::ISIG);
        // It ends the line, so that it is seen at once and not with the next end of a line.
        hidden.control_chars[SpecialCharacterIndices::VEOL as usize] = INTERRUPT;
        tcsetattr(terminal, SetArg::TCSAFLUSH, &hidden)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        // The terminal is gone, then.
        let _ = tcsetattr(self.terminal, SetArg::TCSAFLUSH, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_one_line_and_what_follows_is_left() {
        let mut from: &[u8] = b"12 34\r\nnext\n";
        assert_eq!(line(&mut from).unwrap().expose(), "12 34");
        assert_eq!(line(&mut from).unwrap().expose(), "next");
        assert_eq!(line(&b"no end"[..]).unwrap().expose(), "no end");
        for bad in [&b""[..], b"\n", b"12\x03", b"1\t2", b"1\r2", b"\xff", &[b'1'; PIN_LIMIT + 1]] {
            assert!(matches!(line(bad), Err(ConsoleError::NoPin(_))), "{bad:?}");
        }
    }
}
