use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use casemate_hsm_api::HsmError;
use cryptoki::{context::Pkcs11, slot::Slot};

use crate::{Pkcs11Settings, module::Lease, worker::Worker};

/// Where the sessions are to be opened.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) slot: Slot,
    pub(crate) serial: Arc<str>,
}

/// The threads that call the module, and the queue before them. Each thread has one session at most; a thread whose call
/// hangs is given up and replaced, up to a bound, and comes back to work when its call returns.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    limit: Duration,
}

pub(crate) struct Shared {
    state: Mutex<State>,
    /// There is a job, or sessions to close, or the end.
    work: Condvar,
    /// A session was closed or a thread ended.
    quiet: Condvar,
    lease: Lease,
    /// Label or serial as set, for errors before the token is known.
    name: String,
    sessions: usize,
    queue: usize,
    hung: usize,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Threads that take jobs.
    live: usize,
    /// Threads whose caller has given up.
    hung: usize,
    /// Sessions that threads hold.
    open: usize,
    /// Sessions of another generation are to be closed.
    generation: u64,
    target: Option<Target>,
    closing: bool,
    /// The lease was given back.
    released: bool,
}

type Job = Box<dyn FnOnce(&mut Worker) -> Ended + Send>;

/// How a job ended for its thread.
enum Ended {
    /// The caller took the result, or nobody waited any more before it began.
    Served,
    /// The caller gave up while it ran; the thread was replaced.
    GivenUp,
}

/// What a caller and a thread share about one job.
struct Cell<T> {
    phase: Mutex<Phase<T>>,
    changed: Condvar,
}

enum Phase<T> {
    Queued,
    /// Since then.
    Running(Instant),
    Done(Result<T, HsmError>),
    GivenUp,
}

impl Pool {
    /// Starts the threads. They open no session before a target is set.
    pub(crate) fn start(lease: Lease, settings: &Pkcs11Settings) -> Result<Self, io::Error> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            work: Condvar::new(),
            quiet: Condvar::new(),
            lease,
            name: settings.token.to_string(),
            sessions: settings.sessions.max(1),
            queue: settings.queue.max(1),
            hung: settings.hung_calls,
        });
        let pool = Self { shared, limit: settings.call_timeout() };
        let mut state = pool.shared.state();
        for _ in 0..pool.shared.sessions {
            spawn(&pool.shared, &mut state)?;
        }
        drop(state);
        Ok(pool)
    }

    /// Runs `work` on a thread of the pool, for at most `limit` once it began, and after at most the call limit in the queue.
    pub(crate) fn call<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce(&mut Worker) -> Result<T, HsmError> + Send + 'static,
    ) -> Result<T, HsmError> {
        let cell = Arc::new(Cell { phase: Mutex::new(Phase::Queued), changed: Condvar::new() });
        let theirs = Arc::clone(&cell);
        self.push(Box::new(move |worker| if theirs.begin() { theirs.end(work(worker)) } else { Ended::Served }))?;
        let mut phase = cell.wait(self.limit, limit);
        match std::mem::replace(&mut *phase, Phase::GivenUp) {
            Phase::Done(result) => result,
            Phase::Queued | Phase::GivenUp => Err(self.shared.busy(self.shared.state().jobs.len())),
            Phase::Running(_) => {
                // Still under the cell's lock: the thread cannot see that it was given up before it is counted so.
                self.shared.give_up();
                Err(HsmError::Timeout { token: self.shared.token(), limit })
            }
        }
    }

    fn push(&self, job: Job) -> Result<(), HsmError> {
        let mut state = self.shared.state();
        if state.jobs.len() >= self.shared.queue {
            return Err(self.shared.busy(state.jobs.len()));
        }
        state.jobs.push_back(job);
        self.shared.work.notify_one();
        Ok(())
    }

    /// Has every thread close its session and forgets the token. False if a session is still open after the call limit: its
    /// thread hangs, and the module must not be finalised under it.
    pub(crate) fn retire(&self) -> bool {
        let mut state = self.shared.state();
        state.generation += 1;
        state.target = None;
        self.shared.work.notify_all();
        let state = self.shared.wait_quiet(state, self.limit, |state| state.open > 0);
        state.open == 0 && state.hung == 0
    }

    /// From now on threads open their sessions there.
    pub(crate) fn aim(&self, target: Target) {
        let mut state = self.shared.state();
        state.generation += 1;
        state.target = Some(target);
        self.shared.work.notify_all();
    }

    /// Sessions that the threads hold.
    pub(crate) fn open_sessions(&self) -> usize {
        self.shared.state().open
    }

    /// Serial of the token if it is known, or its name in the settings.
    pub(crate) fn token(&self) -> String {
        self.shared.token()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.closing = true;
        state.jobs.clear();
        self.shared.work.notify_all();
        self.shared.release_if_over(&mut state);
        // A thread whose call hangs gives the lease back when it returns.
        drop(self.shared.wait_quiet(state, self.limit, |state| state.live > 0));
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
            // Nobody is woken for that: the caller looks when its time in the queue is over.
            *phase = Phase::Running(Instant::now());
        }
        wanted
    }

    fn end(&self, result: Result<T, HsmError>) -> Ended {
        let mut phase = self.phase();
        if matches!(*phase, Phase::GivenUp) {
            return Ended::GivenUp;
        }
        *phase = Phase::Done(result);
        self.changed.notify_one();
        Ended::Served
    }

    /// Waits until the job is done, or was in the queue for `queued`, or has run for `running`.
    fn wait(&self, queued: Duration, running: Duration) -> MutexGuard<'_, Phase<T>> {
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

/// No job is looked at more often than so.
const SHORTEST_LOOK: Duration = Duration::from_millis(10);

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) const fn context(&self) -> &Pkcs11 {
        self.lease.context()
    }

    pub(crate) fn restart_module(&self) -> cryptoki::error::Result<bool> {
        self.lease.restart()
    }

    pub(crate) fn token(&self) -> String {
        self.state().target.as_ref().map_or_else(|| self.name.clone(), |target| target.serial.as_ref().to_owned())
    }

    /// Where a session is to be opened now.
    pub(crate) fn target(&self) -> Result<(u64, Target), HsmError> {
        let state = self.state();
        state
            .target
            .clone()
            .map(|target| (state.generation, target))
            .ok_or_else(|| HsmError::TokenAbsent { token: self.name.clone(), detail: "not connected".to_owned() })
    }

    pub(crate) fn session_opened(&self) {
        self.state().open += 1;
    }

    pub(crate) fn session_closed(&self) {
        self.state().open -= 1;
        self.quiet.notify_all();
    }

    fn busy(&self, waiting: usize) -> HsmError {
        HsmError::Busy { token: self.name.clone(), waiting }
    }

    fn wait_quiet<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        limit: Duration,
        so: fn(&State) -> bool,
    ) -> MutexGuard<'a, State> {
        self.quiet.wait_timeout_while(state, limit, |state| so(state)).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Counts the thread of a job that its caller gave up, and replaces it within the bound.
    fn give_up(self: &Arc<Self>) {
        let mut state = self.state();
        state.live -= 1;
        state.hung += 1;
        if state.hung <= self.hung && !state.closing {
            // Without a thread there is one session fewer until the call comes back.
            let _ = spawn(self, &mut state);
        }
        self.quiet.notify_all();
    }

    /// Serves jobs until the pool closes.
    fn serve(self: &Arc<Self>) {
        let mut worker = Worker::new(Arc::clone(self));
        while let Some(job) = self.next(&mut worker) {
            if matches!(job(&mut worker), Ended::GivenUp) && !self.come_back(&mut worker) {
                return;
            }
        }
        worker.close();
        let mut state = self.state();
        state.live -= 1;
        self.release_if_over(&mut state);
        self.quiet.notify_all();
    }

    /// Gives the module to the next who opens it, once, when the pool is closed and no thread of it is in the module any more.
    fn release_if_over(&self, state: &mut State) {
        if state.closing && !state.released && state.live == 0 && state.hung == 0 {
            state.released = true;
            self.lease.release();
        }
    }

    /// The next job; closes an outdated session meanwhile. Nothing when the pool closes.
    fn next(&self, worker: &mut Worker) -> Option<Job> {
        let mut state = self.state();
        loop {
            if worker.generation().is_some_and(|generation| generation != state.generation) {
                drop(state);
                worker.close();
                state = self.state();
            } else if state.closing {
                return None;
            } else if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            } else {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// After a call that was given up. Its session is not used again; the thread is, if it is still missed.
    fn come_back(&self, worker: &mut Worker) -> bool {
        worker.close();
        let mut state = self.state();
        state.hung -= 1;
        let missed = state.live < self.sessions && !state.closing;
        if missed {
            state.live += 1;
        }
        self.release_if_over(&mut state);
        self.quiet.notify_all();
        missed
    }
}

fn spawn(shared: &Arc<Shared>, state: &mut State) -> Result<(), io::Error> {
    let theirs = Arc::clone(shared);
    thread::Builder::new().name("pkcs11".to_owned()).spawn(move || theirs.serve())?;
    state.live += 1;
    Ok(())
}
