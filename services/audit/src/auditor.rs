use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::{fs::OpenOptionsExt, net::UnixDatagram},
    path::{Path, PathBuf},
};

use crate::{Event, Record};

/// Where audit events go.
#[derive(Clone, Debug)]
pub struct AuditSettings {
    /// journald's native socket; used when it is there.
    pub journal_socket: PathBuf,
    /// File for JSON lines where there is no journald.
    pub file: PathBuf,
}

/// An audit trail could not be opened: the daemon must not serve.
#[derive(Debug, thiserror::Error)]
#[error("no audit trail: neither journald at {socket} nor the file {file}")]
pub struct AuditError {
    socket: PathBuf,
    file: PathBuf,
    #[source]
    source: io::Error,
}

enum Trail {
    Journal(UnixDatagram),
    File(File),
}

/// Records events under one daemon's name. Cheap; may be used from any thread.
pub struct Auditor {
    service: String,
    trail: Trail,
}

impl Auditor {
    /// Opens the trail for the daemon `service`.
    ///
    /// # Errors
    /// Neither journald nor the file can be written.
    pub fn open(service: &str, settings: &AuditSettings) -> Result<Self, AuditError> {
        let trail = open_trail(settings).map_err(|source| AuditError {
            socket: settings.journal_socket.clone(),
            file: settings.file.clone(),
            source,
        })?;
        Ok(Self { service: service.to_owned(), trail })
    }

    /// Records `event`. A trail that fails later is reported on the log with the whole event: a service that is up and whose
    /// events are on the console is better for the operator than one that is down, and the key broker, which must not sign
    /// unrecorded, has a trail of its own.
    pub fn record(&self, event: &Event) {
        let record = Record::new(&self.service, event);
        let written = match &self.trail {
            Trail::Journal(socket) => socket.send(&record.journal_datagram()).map(drop),
            // One write of one line to a file opened for appending: lines of several daemons do not mix.
            Trail::File(file) => { file }.write_all(&record.json_line()),
        };
        if let Err(error) = written {
            tracing::error!(%error, event = event.name(), message_id = event.message_id(), "audit event not written: {}", event.message());
        }
    }
}

fn open_trail(settings: &AuditSettings) -> io::Result<Trail> {
    if settings.journal_socket.exists() {
        return connect(&settings.journal_socket).map(Trail::Journal);
    }
    OpenOptions::new().append(true).create(true).mode(0o660).open(&settings.file).map(Trail::File)
}

fn connect(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stop() -> Event {
        Event::ServiceStopped { reason: "test".into() }
    }

    #[test]
    fn events_reach_the_journal_socket_when_it_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let settings =
            AuditSettings { journal_socket: dir.path().join("socket"), file: dir.path().join("journal.jsonl") };
        let journal = UnixDatagram::bind(&settings.journal_socket).unwrap();
        Auditor::open("casemate-test", &settings).unwrap().record(&stop());
        let mut buffer = [0; 4096];
        let n = journal.recv(&mut buffer).unwrap();
        let text = std::str::from_utf8(&buffer[..n]).unwrap();
        assert!(text.contains(&format!("\nMESSAGE_ID={}\n", stop().message_id())));
        assert!(!settings.file.exists());
    }

    #[test]
    fn events_reach_the_file_where_there_is_no_journald() {
        let dir = tempfile::tempdir().unwrap();
        let settings =
            AuditSettings { journal_socket: dir.path().join("absent"), file: dir.path().join("journal.jsonl") };
        let auditor = Auditor::open("casemate-test", &settings).unwrap();
        auditor.record(&stop());
        auditor.record(&stop());
        let text = std::fs::read_to_string(&settings.file).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(text.contains("\"CASEMATE_EVENT\":\"ServiceStopped\""));
    }

    #[test]
    fn no_trail_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let settings =
            AuditSettings { journal_socket: dir.path().join("absent"), file: dir.path().join("no/such/file") };
        assert!(Auditor::open("casemate-test", &settings).is_err());
    }
}
