//! The guest's journal, as it comes out of it.

use std::{fs, path::PathBuf, time::Duration};

use serde_json::Value;

use crate::GuestError;

/// One entry of the journal: `journalctl -o json`.
#[derive(Clone, Debug)]
pub struct Entry(pub Value);

impl Entry {
    /// A field that is text.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// When it was written, since the guest's kernel started (`__MONOTONIC_TIMESTAMP`).
    #[must_use]
    pub fn since_boot(&self) -> Option<Duration> {
        self.field("__MONOTONIC_TIMESTAMP")?.parse().ok().map(Duration::from_micros)
    }

    /// Whether systemd says that `unit` came up (`JOB_RESULT=done` of a start job; a target's is the same).
    #[must_use]
    pub fn says_started(&self, unit: &str) -> bool {
        let is = |name, value| self.field(name) == Some(value);
        is("UNIT", unit) && is("JOB_TYPE", "start") && is("JOB_RESULT", "done") && is("_PID", "1")
    }
}

/// The file with what came out so far.
#[derive(Clone, Debug)]
pub struct Journal {
    pub(crate) path: PathBuf,
}

impl Journal {
    /// Every whole entry, oldest first. A line that is no JSON is a broken journal.
    ///
    /// # Errors
    /// The file cannot be read, or holds something else.
    pub fn entries(&self) -> Result<Vec<Entry>, GuestError> {
        let text = match fs::read(&self.path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(GuestError::file(&self.path)(error)),
        };
        // The last line may be in the middle of being written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let parse = |line: &str| {
            serde_json::from_str(line).map(Entry).map_err(|error| GuestError::Failed {
                program: "the guest's journal".into(),
                output: format!("{error}: {line:?}"),
            })
        };
        whole.lines().map(parse).collect()
    }

    /// Audit events named `event`.
    ///
    /// # Errors
    /// As [`Journal::entries`].
    pub fn audited(&self, event: &str) -> Result<Vec<Entry>, GuestError> {
        let all = self.entries()?;
        Ok(all.into_iter().filter(|entry| entry.field("CASEMATE_EVENT") == Some(event)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_what_systemd_says_and_nobody_else() {
        let entry = |json: &str| Entry(serde_json::from_str(json).unwrap());
        let done = r#"{"UNIT":"casemate.target","JOB_TYPE":"start","JOB_RESULT":"done","_PID":"1"}"#;
        assert!(entry(done).says_started("casemate.target"));
        assert!(!entry(done).says_started("casemate-error.target"));
        assert!(!entry(&done.replace("\"1\"", "\"77\"")).says_started("casemate.target"));
        assert!(!entry(&done.replace("done", "failed")).says_started("casemate.target"));
    }
}
