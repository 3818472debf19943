use std::{
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

/// As many callers as the token has sessions, and a bounded queue before them.
pub(crate) struct Gate {
    sessions: usize,
    queue: usize,
    counts: Mutex<Counts>,
    left: Condvar,
}

#[derive(Default)]
struct Counts {
    inside: usize,
    waiting: usize,
}

/// A session in use; given back when dropped.
pub(crate) struct Pass<'a>(&'a Gate);

impl Gate {
    pub(crate) fn new(sessions: usize, queue: usize) -> Self {
        Self { sessions, queue, counts: Mutex::default(), left: Condvar::new() }
    }

    /// Waits for a session; the number of those who wait already when the queue is full or the time ran out.
    pub(crate) fn enter(&self, limit: Duration) -> Result<Pass<'_>, usize> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.inside >= self.sessions && counts.waiting >= self.queue {
            return Err(counts.waiting);
        }
        counts.waiting += 1;
        let (mut counts, _) = self
            .left
            .wait_timeout_while(counts, limit, |counts| counts.inside >= self.sessions)
            .unwrap_or_else(PoisonError::into_inner);
        counts.waiting -= 1;
        if counts.inside >= self.sessions {
            return Err(counts.waiting);
        }
        counts.inside += 1;
        Ok(Pass(self))
    }

    pub(crate) fn inside(&self) -> usize {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).inside
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner).inside -= 1;
        self.0.left.notify_one();
    }
}
