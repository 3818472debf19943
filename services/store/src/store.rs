use std::{
    fs::{OpenOptions, Permissions},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sqlx::{
    Connection, SqliteConnection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot,
};

use crate::{
    Migration, StoreError, StoreSettings,
    migrate::migrate,
    writer::{Job, Ran, Work, Writer},
};

/// The records of one daemon. Cheap to clone; the writer ends with the last clone.
#[derive(Clone)]
pub struct Store {
    readers: SqlitePool,
    writes: mpsc::Sender<Job>,
    queue: usize,
    commits: Arc<AtomicU64>,
}

impl Store {
    /// Opens the file at `path` (made with mode 0600 if it is not there), checks it, and brings it to the last of
    /// `migrations`. Must be called on a tokio runtime, which then runs the writer.
    ///
    /// # Errors
    /// The file cannot be used; nothing falls back to an empty one.
    pub async fn open(
        path: &Path,
        migrations: &'static [Migration],
        settings: StoreSettings,
    ) -> Result<Self, StoreError> {
        own(path).map_err(|source| StoreError::Open { path: path.to_owned(), source: Arc::new(source) })?;
        let wait = Duration::from_millis(settings.wait_ms);
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(wait);
        let mut connection = SqliteConnection::connect_with(&options).await?;
        check(&mut connection).await?;
        migrate(&mut connection, path, migrations).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(settings.readers.max(1))
            .acquire_timeout(wait)
            // A file does not go away as a server does, and asking costs as much as the query.
            .test_before_acquire(false)
            .connect_with(options.pragma("query_only", "ON"))
            .await?;
        let (writes, queue) = mpsc::channel(settings.queue.max(1));
        let commits = Arc::default();
        let writer = Writer { connection, queue, batch: settings.batch.max(1), commits: Arc::clone(&commits) };
        tokio::spawn(writer.run());
        Ok(Self { readers, writes, queue: settings.queue.max(1), commits })
    }

    /// Connections that read and cannot write. They see every acknowledged write.
    #[must_use]
    pub const fn readers(&self) -> &SqlitePool {
        &self.readers
    }

    /// Runs `work` on the writing connection and returns its value once that is committed and on disk. An error of `work`
    /// undoes what `work` did and nothing else. `work` must be short and must not begin or end a transaction. It runs even if
    /// the caller stops waiting.
    ///
    /// # Errors
    /// What `work` returned, or the store's own: then nothing that `work` did was kept, except after [`StoreError::Disk`],
    /// where the file must be read to know.
    pub async fn write<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> Work<'c, T, E> + Send + 'static,
    {
        let (tell, told) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            Box::pin(async move {
                let outcome = work(connection).await;
                let keep = outcome.is_ok();
                let answer = move |committed: Result<(), StoreError>| {
                    // The caller may have stopped waiting.
                    let _ = tell.send(outcome.and_then(|value| committed.map(|()| value).map_err(E::from)));
                };
                Ran { keep, answer: Box::new(answer) }
            })
        });
        self.writes.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => StoreError::Full { queue: self.queue },
            TrySendError::Closed(_) => StoreError::Closed,
        })?;
        told.await.map_err(|_| StoreError::Closed)?
    }

    /// Commits since the store was opened: each is one synchronisation of the disk.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }
}

/// Makes the file if need be, and makes it the owner's alone; SQLite gives its log and index the same mode.
fn own(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))
}

async fn check(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let finding: String = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(connection).await?;
    if finding == "ok" { Ok(()) } else { Err(StoreError::Corrupt(finding)) }
}
