use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::{fs::OpenOptionsExt, net::UnixDatagram},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
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

/// How long a full journal may hold up whoever records: longer than a busy journald needs, shorter than a phone waits.
const PATIENCE: Duration = Duration::from_secs(1);

enum Trail {
    Journal { path: PathBuf, socket: Mutex<UnixDatagram> },
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

    /// Records `event`, or says that it could not: for those who must not act unrecorded.
    ///
    /// # Errors
    /// The journal or the file took nothing within a second.
    pub fn try_record(&self, event: &Event) -> io::Result<()> {
        self.trail.write(&Record::new(&self.service, event))
    }

    /// Writes a record that was made before, as [`Auditor::record`] does with one that it makes: for the key broker, whose own record
    /// has the same one.
    pub fn copy(&self, record: &Record) {
        if let Err(error) = self.trail.write(record) {
            tracing::error!(%error, "audit event not written: {}", record.summary());
        }
    }

    /// Records `event`. A trail that fails later is reported on the log with the whole event: a service that is up and whose
    /// events are on the console is better for the operator than one that is down, and the key broker, which must not sign
    /// unrecorded, has a trail of its own.
    pub fn record(&self, event: &Event) {
        if let Err(error) = self.try_record(event) {
            tracing::error!(%error, event = event.name(), message_id = event.message_id(), "audit event not written: {}", event.message());
        }
    }
}

impl Trail {
    fn write(&self, record: &Record) -> io::Result<()> {
        match self {
            // One write of one line to a file opened for appending: lines of several daemons do not mix.
            Self::File(file) => { file }.write_all(&record.json_line()),
            Self::Journal { path, socket } => {
                let mut socket = socket.lock().unwrap_or_else(PoisonError::into_inner);
                let datagram = record.journal_datagram();
                match socket.send(&datagram) {
                    // journald was restarted and has a new socket.
                    Err(error)
                        if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotConnected) =>
                    {
                        *socket = connect(path)?;
                        socket.send(&datagram).map(drop)
                    }
                    sent => sent.map(drop),
                }
            }
        }
    }
}

fn open_trail(settings: &AuditSettings) -> io::Result<Trail> {
    if settings.journal_socket.exists() {
        let path = settings.journal_socket.clone();
        return connect(&path).map(|socket| Trail::Journal { path, socket: Mutex::new(socket) });
    }
    OpenOptions::new().append(true).create(true).mode(0o660).open(&settings.file).map(Trail::File)
}

fn connect(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    socket.set_write_timeout(Some(PATIENCE))?;
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
    fn a_restarted_journald_is_found_again_and_a_full_one_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let settings =
            AuditSettings { journal_socket: dir.path().join("socket"), file: dir.path().join("journal.jsonl") };
        let first = UnixDatagram::bind(&settings.journal_socket).unwrap();
        let auditor = Auditor::open("casemate-test", &settings).unwrap();
        drop(first);
        std::fs::remove_file(&settings.journal_socket).unwrap();
        let second = UnixDatagram::bind(&settings.journal_socket).unwrap();
        auditor.try_record(&stop()).unwrap();
        assert!(second.recv(&mut [0; 4096]).unwrap() > 0);
        // Nobody reads: the queue of the socket fills, and the one that finds it full says so in time.
        let full = (0..10_000).find_map(|_| auditor.try_record(&stop()).err());
        assert_eq!(full.unwrap().kind(), io::ErrorKind::WouldBlock);
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
