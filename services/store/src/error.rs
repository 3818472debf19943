use std::{io, path::PathBuf, sync::Arc};

/// A record could not be read or written. Cloned to every caller whose write shared the failed commit.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The file or its folder cannot be opened or made.
    #[error("records {path}: {source}")]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Arc<io::Error>,
    },
    /// The file was written by a newer release.
    #[error(
        "records {path} have schema {found}, this release knows {known}: install the newer release again, or restore a backup"
    )]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Schema of the file.
        found: i64,
        /// Schema of this program.
        known: i64,
    },
    /// A migration that the file has applied is not the one that this program has under its number.
    #[error("records {path}: migration {number} is not the one of this release; the file belongs to another build")]
    Diverged {
        /// Which file.
        path: PathBuf,
        /// The migration's number.
        number: i64,
    },
    /// The program's migrations are not numbered 1, 2, 3...: a defect of this build.
    #[error("migration {name} has number {number}, {expected} was expected: a defect of this build")]
    Misnumbered {
        /// Its name.
        name: &'static str,
        /// Its number.
        number: i64,
        /// What it should be.
        expected: i64,
    },
    /// More writes wait than the setting `queue` allows. Nothing was written.
    #[error("{queue} writes wait already; try again")]
    Full {
        /// The limit.
        queue: usize,
    },
    /// Another process holds the file, or every reading connection was busy for too long.
    #[error("records are busy: {0}; does another process have the file open?")]
    Busy(#[source] Arc<sqlx::Error>),
    /// The file is not what SQLite wrote.
    #[error("records are damaged: {0}; restore a backup")]
    Corrupt(String),
    /// The disk has no room: nothing was written.
    #[error("no room on the disk for records: {0}")]
    DiskFull(#[source] Arc<sqlx::Error>),
    /// The disk failed, or the file became read-only: nothing of the commit may be relied on.
    #[error("the disk failed under the records: {0}")]
    Disk(#[source] Arc<sqlx::Error>),
    /// The writer is gone: the process is stopping.
    #[error("the records are closed")]
    Closed,
    /// A statement was refused: a constraint, or a defect of this build.
    #[error("records: {0}")]
    Statement(#[source] Arc<sqlx::Error>),
}

/// Primary result codes (<https://www.sqlite.org/rescode.html>); the low eight bits of an extended one.
mod code {
    pub(super) const BUSY: i32 = 5;
    pub(super) const LOCKED: i32 = 6;
    pub(super) const READONLY: i32 = 8;
    pub(super) const IOERR: i32 = 10;
    pub(super) const CORRUPT: i32 = 11;
    pub(super) const FULL: i32 = 13;
    pub(super) const NOTADB: i32 = 26;
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let primary = error
            .as_database_error()
            .and_then(sqlx::error::DatabaseError::code)
            .and_then(|code| code.parse::<i32>().ok());
        let error = Arc::new(error);
        match (primary.map(|code| code & 0xff), error.as_ref()) {
            (Some(code::BUSY | code::LOCKED), _) | (None, sqlx::Error::PoolTimedOut) => Self::Busy(error),
            (Some(code::CORRUPT | code::NOTADB), _) => Self::Corrupt(error.to_string()),
            (Some(code::FULL), _) => Self::DiskFull(error),
            (Some(code::IOERR | code::READONLY), _) => Self::Disk(error),
            (None, sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed) => Self::Closed,
            _ => Self::Statement(error),
        }
    }
}
