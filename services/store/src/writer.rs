use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use sqlx::{SqliteConnection, query, raw_sql};
use tokio::sync::mpsc;

use crate::StoreError;

/// What a write does with the connection; boxed because it borrows it.
pub type Work<'c, T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'c>>;

/// Tells the caller how its write ended, once the fate of the commit is known.
pub(crate) type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// A write that ran and is not yet committed.
pub(crate) struct Ran {
    /// Whether it is to be kept.
    pub(crate) keep: bool,
    /// To be called after the commit.
    pub(crate) answer: Answer,
}

/// A queued write.
pub(crate) type Job =
    Box<dyn for<'c> FnOnce(&'c mut SqliteConnection) -> Pin<Box<dyn Future<Output = Ran> + Send + 'c>> + Send>;

/// The task that owns the writing connection.
pub(crate) struct Writer {
    pub(crate) connection: SqliteConnection,
    pub(crate) queue: mpsc::Receiver<Job>,
    pub(crate) batch: usize,
    pub(crate) commits: Arc<AtomicU64>,
}

impl Writer {
    /// Serves until every sender is gone. While one commit waits for the disk the next batch gathers in the queue.
    pub(crate) async fn run(mut self) {
        let mut jobs = Vec::with_capacity(self.batch);
        while self.queue.recv_many(&mut jobs, self.batch).await > 0 {
            let mut answers = Vec::with_capacity(jobs.len());
            let outcome = self.commit(&mut jobs, &mut answers).await;
            if outcome.is_err() {
                // Whatever is left of the transaction must not leak into the next one. This fails where SQLite has rolled
                // back by itself, which is as good.
                let _ = raw_sql("ROLLBACK").execute(&mut self.connection).await;
            }
            for answer in answers {
                answer(outcome.clone());
            }
            // Jobs that an error kept from running: their callers see their answer channel close.
            jobs.clear();
        }
    }

    async fn commit(&mut self, jobs: &mut Vec<Job>, answers: &mut Vec<Answer>) -> Result<(), StoreError> {
        // Each command is a round trip to the connection's thread, so what needs no answer in between goes together; and
        // `query` keeps what it prepared, as `raw_sql` does not.
        let mut begin = "BEGIN IMMEDIATE; SAVEPOINT one";
        let mut end = "COMMIT";
        for job in jobs.drain(..) {
            query(begin).execute(&mut self.connection).await?;
            let Ran { keep, answer } = job(&mut self.connection).await;
            answers.push(answer);
            // On a full disk or a read error SQLite may roll back the whole transaction; then this finds no savepoint, and
            // the batch fails as a whole instead of half of it being committed unnoticed.
            (begin, end) = if keep {
                ("RELEASE one; SAVEPOINT one", "RELEASE one; COMMIT")
            } else {
                ("ROLLBACK TO one; RELEASE one; SAVEPOINT one", "ROLLBACK TO one; RELEASE one; COMMIT")
            };
        }
        query(end).execute(&mut self.connection).await?;
        self.commits.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
