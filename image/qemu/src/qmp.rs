//! QEMU's own control socket (QMP, docs/interop/qmp-spec): a JSON object a line, both ways.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::GuestError;

/// The balloon's place among QEMU's objects.
const BALLOON: &str = "/machine/peripheral/balloon";

/// What the guest's kernel says of its memory, in bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Memory {
    /// All that the kernel manages (`MemTotal` of proc(5)).
    pub total: u64,
    /// What a new program could have without swapping (`MemAvailable`).
    pub available: u64,
}

impl Memory {
    /// What is not available: programs, the kernel, and caches that it cannot give up.
    #[must_use]
    pub const fn used(self) -> u64 {
        self.total.saturating_sub(self.available)
    }

    /// Nothing as long as the guest's driver has not answered: QEMU then gives no time, or all ones.
    fn of(stats: &Value) -> Option<Self> {
        stats["last-update"].as_u64().filter(|at| *at > 0)?;
        let bytes = |name: &str| stats["stats"][name].as_u64().filter(|bytes| *bytes > 0 && *bytes < u64::MAX);
        Some(Self { total: bytes("stat-total-memory")?, available: bytes("stat-available-memory")? })
    }
}

/// A conversation with QEMU.
pub(crate) struct Qmp {
    stream: BufReader<UnixStream>,
    path: PathBuf,
}

impl Qmp {
    pub(crate) fn connect(path: &Path) -> Result<Self, GuestError> {
        let stream = UnixStream::connect(path).map_err(GuestError::file(path))?;
        stream.set_read_timeout(Some(Duration::from_secs(20))).map_err(GuestError::file(path))?;
        let mut qmp = Self { stream: BufReader::new(stream), path: path.to_owned() };
        qmp.execute("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Has QEMU do `command`, and gives its answer; the greeting and events between are passed over.
    fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value, GuestError> {
        let line = format!("{}\n", json!({ "execute": command, "arguments": arguments }));
        self.stream.get_mut().write_all(line.as_bytes()).map_err(GuestError::file(&self.path))?;
        loop {
            let mut line = String::new();
            let read = self.stream.read_line(&mut line).map_err(GuestError::file(&self.path))?;
            let failed = |output: String| GuestError::Failed { program: format!("QEMU's {command}"), output };
            if read == 0 {
                return Err(failed("it ended".into()));
            }
            let answer: Value = serde_json::from_str(&line).map_err(|error| failed(format!("{error}: {line:?}")))?;
            if let Some(error) = answer.get("error") {
                return Err(failed(error.to_string()));
            }
            if let Some(answer) = answer.get("return") {
                return Ok(answer.clone());
            }
        }
    }

    pub(crate) fn memory(&mut self, limit: Duration) -> Result<Memory, GuestError> {
        let poll = json!({ "path": BALLOON, "property": "guest-stats-polling-interval", "value": 1 });
        self.execute("qom-set", &poll)?;
        let end = Instant::now() + limit;
        loop {
            let stats = self.execute("qom-get", &json!({ "path": BALLOON, "property": "guest-stats" }))?;
            if let Some(memory) = Memory::of(&stats) {
                return Ok(memory);
            }
            if Instant::now() > end {
                let what = "that the guest's kernel tells of its memory".into();
                return Err(GuestError::Waited { what, limit, log: self.path.clone() });
            }
            thread::sleep(Duration::from_millis(200));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_known_when_the_guest_told_it_and_not_before() {
        let told = |at: u64, available: u64| {
            Memory::of(&json!({ "last-update": at,
                "stats": { "stat-total-memory": 1000, "stat-available-memory": available, "stat-free-memory": 1 } }))
        };
        assert_eq!(told(7, 600).map(Memory::used), Some(400));
        assert_eq!(told(0, 600), None);
        assert_eq!(told(7, u64::MAX), None);
    }
}
