//! The operator's prompt in the guest, over its virtio console.

use std::{
    io::{ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use crate::GuestError;

/// What `casemate` prints when it waits for a command.
const PROMPT: &str = "admin: ";

/// A conversation with the guest's prompt.
#[derive(Debug)]
pub struct Console {
    stream: UnixStream,
    log: std::path::PathBuf,
}

impl Console {
    /// Connects to QEMU's socket, and waits until the prompt answers an empty line.
    pub(crate) fn connect(socket: &Path, limit: Duration) -> Result<Self, GuestError> {
        let stream = UnixStream::connect(socket).map_err(GuestError::file(socket))?;
        stream.set_read_timeout(Some(Duration::from_millis(200))).map_err(GuestError::file(socket))?;
        let mut console = Self { stream, log: socket.to_owned() };
        console.send("\r")?;
        console.read_to_prompt(limit)?;
        // What was printed before we listened may end in a prompt of its own.
        while console.read_to_prompt(Duration::from_millis(500)).is_ok() {}
        Ok(console)
    }

    fn send(&mut self, text: &str) -> Result<(), GuestError> {
        self.stream.write_all(text.as_bytes()).map_err(GuestError::file(&self.log))
    }

    fn read_to_prompt(&mut self, limit: Duration) -> Result<String, GuestError> {
        let (end, mut text, mut buffer) = (Instant::now() + limit, Vec::new(), [0; 4096]);
        while Instant::now() < end {
            match self.stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => text.extend_from_slice(buffer.get(..count).unwrap_or_default()),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(GuestError::file(&self.log)(error)),
            }
            if text.ends_with(PROMPT.as_bytes()) {
                let text = String::from_utf8_lossy(&text).replace('\r', "");
                return Ok(text.strip_suffix(PROMPT).unwrap_or(&text).to_owned());
            }
        }
        let what = format!("the operator's prompt (it said {:?})", String::from_utf8_lossy(&text));
        Err(GuestError::Waited { what, limit, log: self.log.clone() })
    }

    /// Runs `casemate` with `arguments`, which are words without white space, and gives what it printed.
    ///
    /// # Errors
    /// It refused, or did not answer within `limit`.
    pub fn casemate(&mut self, arguments: &[&str], limit: Duration) -> Result<String, GuestError> {
        let line = arguments.join(" ");
        self.send(&format!("{line}\r"))?;
        let answer = self.read_to_prompt(limit)?;
        // The terminal echoes the line.
        let answer = answer.split_once('\n').map_or("", |(_, rest)| rest).to_owned();
        let refused = answer.lines().any(|line| line.starts_with("casemate: ") || line.starts_with("error: "));
        if refused {
            let command = arguments.iter().take(2).copied().collect::<Vec<_>>().join(" ");
            return Err(GuestError::Refused { command, answer: answer.trim().to_owned() });
        }
        Ok(answer)
    }
}
