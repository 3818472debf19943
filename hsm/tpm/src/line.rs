use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use casemate_hsm_api::HsmError;

use crate::connection::Desk;

/// The one thread that talks to the TPM, and the queue before it. A TPM does one thing at a time, and so does a context of the
/// library; a second thread would wait in the kernel instead of here. A call that takes too long is given up by its caller; the
/// thread goes on with the next one when the TPM answers.
pub(crate) struct Line {
    shared: Arc<Shared>,
    limit: Duration,
}

struct Shared {
    state: Mutex<State>,
    /// There is a job, or the end.
    work: Condvar,
    /// The thread has ended.
    over: Condvar,
    /// Serial of the token, for errors.
    token: String,
    queue: usize,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    closing: bool,
    ended: bool,
}

type Job = Box<dyn FnOnce(&mut Desk) + Send>;

/// What a caller and the thread share about one job.
struct Cell<T> {
    phase: Mutex<Phase<T>>,
    changed: Condvar,
}

enum Phase<T> {
    Queued,
    Running,
    Done(Result<T, HsmError>),
    GivenUp,
}

impl Line {
    pub(crate) fn start(token: &str, queue: usize, limit: Duration) -> Result<Self, io::Error> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            work: Condvar::new(),
            over: Condvar::new(),
            token: token.to_owned(),
            queue: queue.max(1),
        });
        let theirs = Arc::clone(&shared);
        thread::Builder::new().name("tpm".to_owned()).spawn(move || theirs.serve())?;
        Ok(Self { shared, limit })
    }

    pub(crate) fn token(&self) -> &str {
        &self.shared.token
    }

    /// Runs `work` on the thread, for at most `limit` once it began, and after at most the call limit in the queue.
    pub(crate) fn call<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce(&mut Desk) -> Result<T, HsmError> + Send + 'static,
    ) -> Result<T, HsmError> {
        let cell = Arc::new(Cell { phase: Mutex::new(Phase::Queued), changed: Condvar::new() });
        let theirs = Arc::clone(&cell);
        self.push(Box::new(move |desk| {
            if theirs.begin() {
                theirs.end(work(desk));
            }
        }))?;
        let mut phase = cell.wait(self.limit, |phase| matches!(phase, Phase::Queued));
        if matches!(*phase, Phase::Queued) {
            *phase = Phase::GivenUp;
            return Err(self.busy(self.shared.state().jobs.len()));
        }
        drop(phase);
        let mut phase = cell.wait(limit, |phase| matches!(phase, Phase::Running));
        match std::mem::replace(&mut *phase, Phase::GivenUp) {
            Phase::Done(result) => result,
            _ => Err(HsmError::Timeout { token: self.shared.token.clone(), limit }),
        }
    }

    fn push(&self, job: Job) -> Result<(), HsmError> {
        let mut state = self.shared.state();
        if state.jobs.len() >= self.shared.queue {
            return Err(self.busy(state.jobs.len()));
        }
        state.jobs.push_back(job);
        self.shared.work.notify_one();
        Ok(())
    }

    fn busy(&self, waiting: usize) -> HsmError {
        HsmError::Busy { token: self.shared.token.clone(), waiting }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.closing = true;
        state.jobs.clear();
        self.shared.work.notify_all();
        // The connection is closed when this returns, unless the TPM hangs.
        drop(self.shared.over.wait_timeout_while(state, self.limit, |state| !state.ended));
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self) {
        let mut desk = Desk::new(&self.token);
        while let Some(job) = self.next() {
            job(&mut desk);
        }
        drop(desk);
        self.state().ended = true;
        self.over.notify_all();
    }

    fn next(&self) -> Option<Job> {
        let waiting = self
            .work
            .wait_while(self.state(), |state| state.jobs.is_empty() && !state.closing)
            .unwrap_or_else(PoisonError::into_inner);
        let mut state = waiting;
        state.jobs.pop_front()
    }
}

impl<T> Cell<T> {
    fn phase(&self) -> MutexGuard<'_, Phase<T>> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) -> bool {
        let mut phase = self.phase();
        let wanted = matches!(*phase, Phase::Queued);
        if wanted {
            *phase = Phase::Running;
            self.changed.notify_one();
        }
        wanted
    }

    fn end(&self, result: Result<T, HsmError>) {
        let mut phase = self.phase();
        if matches!(*phase, Phase::Running) {
            *phase = Phase::Done(result);
            self.changed.notify_one();
        }
    }

    /// Waits while `so` holds, for at most `limit`.
    fn wait(&self, limit: Duration, so: fn(&Phase<T>) -> bool) -> MutexGuard<'_, Phase<T>> {
        self.changed
            .wait_timeout_while(self.phase(), limit, |phase| so(phase))
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Instant};

    use super::*;

    const SHORT: Duration = Duration::from_millis(100);

    #[test]
    fn a_call_that_hangs_is_given_up_and_the_next_is_served_after_it() {
        let line = Line::start("t", 4, SHORT).unwrap();
        let (release, hang) = mpsc::channel::<()>();
        let slow = line.call(SHORT, move |_| {
            let _ = hang.recv();
            Ok(())
        });
        assert!(matches!(slow, Err(HsmError::Timeout { .. })), "{slow:?}");
        let queued = line.call(SHORT, |_| Ok(()));
        assert!(matches!(queued, Err(HsmError::Busy { .. })), "{queued:?}");
        drop(release);
        line.call(SHORT, |_| Ok(())).unwrap();
    }

    #[test]
    fn a_full_queue_is_refused_at_once_and_a_hanging_call_does_not_stop_the_end() {
        let line = Line::start("t", 1, Duration::from_secs(1)).unwrap();
        let (release, hang) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let line = &line;
            let (began, begun) = mpsc::channel();
            scope.spawn(move || {
                line.call(SHORT, move |_| {
                    let _ = began.send(());
                    let _ = hang.recv();
                    Ok(())
                })
            });
            begun.recv().unwrap();
            scope.spawn(|| line.call(SHORT, |_| Ok(())));
            while line.shared.state().jobs.is_empty() {
                thread::yield_now();
            }
            let begin = Instant::now();
            let refused = line.call(SHORT, |_| Ok(()));
            assert!(matches!(refused, Err(HsmError::Busy { waiting: 1, .. })), "{refused:?}");
            assert!(begin.elapsed() < Duration::from_millis(500));
        });
        let begin = Instant::now();
        drop(line);
        assert!(begin.elapsed() < Duration::from_secs(5));
        drop(release);
    }
}
