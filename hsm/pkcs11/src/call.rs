//! One call of a token: what it needs, and where its caller waits for it.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use casemate_hsm_api::HsmError;

use crate::worker::Worker;

/// No job is looked at more often than so.
const SHORTEST_LOOK: Duration = Duration::from_millis(10);

/// What a call works with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Needs {
    /// A session. Where the token opens fewer than there are workers, the call waits for one in the queue.
    Session,
    /// The module alone.
    Module,
}

/// A call in the queue.
pub(crate) trait Job: Send {
    fn needs(&self) -> Needs;

    fn run(self: Box<Self>, worker: &mut Worker) -> Ended;
}

/// What a caller asks for, and where he waits for it.
pub(crate) struct Call<T, F> {
    pub(crate) cell: Arc<Cell<T>>,
    pub(crate) needs: Needs,
    pub(crate) work: F,
}

/// How a job ended for its worker.
pub(crate) enum Ended {
    /// The caller took the result, or nobody waited any more before it began.
    Served,
    /// The caller gave up while it ran; the worker was replaced, and its thread.
    GivenUp,
    /// The token opened no session for it, although it has others of ours. It waits for one of those.
    WithoutRoom(Box<dyn Job>),
}

/// What a caller and a thread share about one job.
pub(crate) struct Cell<T> {
    phase: Mutex<Phase<T>>,
    changed: Condvar,
}

pub(crate) enum Phase<T> {
    Queued,
    /// Since then.
    Running(Instant),
    Done(Result<T, HsmError>),
    GivenUp,
}

impl<T, F> Job for Call<T, F>
where
    T: Send + 'static,
    F: FnOnce(&mut Worker) -> Result<T, HsmError> + Send + 'static,
{
    fn needs(&self) -> Needs {
        self.needs
    }

    fn run(self: Box<Self>, worker: &mut Worker) -> Ended {
        if !self.cell.begin() {
            return Ended::Served;
        }
        if self.needs == Needs::Session && worker.finds_no_room() {
            return if self.cell.put_back() { Ended::WithoutRoom(self) } else { Ended::GivenUp };
        }
        self.cell.end((self.work)(worker))
    }
}

impl<T> Cell<T> {
    pub(crate) const fn queued() -> Self {
        Self { phase: Mutex::new(Phase::Queued), changed: Condvar::new() }
    }

    fn phase(&self) -> MutexGuard<'_, Phase<T>> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) -> bool {
        let mut phase = self.phase();
        let wanted = matches!(*phase, Phase::Queued);
        if wanted {
            // Nobody is woken for that: the caller looks when its time in the queue is over.
            *phase = Phase::Running(Instant::now());
        }
        wanted
    }

    /// Back to where it was before it began; false if the caller has given it up meanwhile.
    fn put_back(&self) -> bool {
        let mut phase = self.phase();
        let wanted = matches!(*phase, Phase::Running(_));
        if wanted {
            *phase = Phase::Queued;
        }
        wanted
    }

    fn end(&self, result: Result<T, HsmError>) -> Ended {
        let mut phase = self.phase();
        if matches!(*phase, Phase::GivenUp) {
            return Ended::GivenUp;
        }
        *phase = Phase::Done(result);
        // The caller is woken by this and needs the lock.
        drop(phase);
        self.changed.notify_one();
        Ended::Served
    }

    /// Waits until the job is done, or was in the queue for `queued`, or has run for `running`.
    pub(crate) fn wait(&self, queued: Duration, running: Duration) -> MutexGuard<'_, Phase<T>> {
        let pushed = Instant::now();
        let mut phase = self.phase();
        loop {
            let left = match &*phase {
                Phase::Queued => queued.saturating_sub(pushed.elapsed()),
                Phase::Running(since) => running.saturating_sub(since.elapsed()),
                Phase::Done(_) | Phase::GivenUp => return phase,
            };
            if left.is_zero() {
                return phase;
            }
            // Nobody is woken when the job merely begins: who waits looks again when it could have run out of time since.
            let look = left.min(running.max(SHORTEST_LOOK));
            phase = self.changed.wait_timeout(phase, look).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
