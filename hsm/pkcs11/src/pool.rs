use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use casemate_hsm_api::{HsmError, RunBy};
use cryptoki::{context::Pkcs11, session::Session, slot::Slot};

use crate::{
    Pkcs11Settings,
    call::{Call, Cell, Ended, Job, Needs, Phase},
    module::Lease,
    watch::{Baton, Watch},
    worker::Worker,
};

/// Where the sessions are to be opened.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) slot: Slot,
    pub(crate) serial: Arc<str>,
}

/// The workers, with one session each at most, that call the module: on the thread of a caller who can leave it in a call that hangs
/// ([`Pool::call_here`]), or on one of the pool's threads, behind a queue. A worker whose call hangs is given up and replaced, up to
/// a bound, and comes back to work when its call returns.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    watch: Watch,
    limit: Duration,
}

pub(crate) struct Shared {
    state: Mutex<State>,
    /// There is a job, or sessions to close, or the end.
    work: Condvar,
    /// A session was closed or a thread ended.
    quiet: Condvar,
    /// How long a token that opens no more sessions is not asked for another.
    retry: Duration,
    lease: Lease,
    /// Label or serial as set, for errors before the token is known.
    name: String,
    sessions: usize,
    queue: usize,
    hung: usize,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Box<dyn Job>>,
    /// Workers that nobody works with; those with a session are taken first, the last one that worked before the others.
    idle: Vec<Worker>,
    /// Workers, those that were given up not counted.
    live: usize,
    /// Workers whose caller has given up.
    hung: usize,
    /// Sessions that workers hold.
    open: usize,
    /// Sessions of another generation are to be closed.
    generation: u64,
    target: Option<Target>,
    /// The token opens no more sessions than so many for the workers, as it said when it was last asked for more.
    room: Option<Room>,
    /// The session that logged in, where the token opens no other. Whoever works first takes it.
    only: Option<Session>,
    closing: bool,
    /// The lease was given back.
    released: bool,
}

/// Sessions that a token was seen to have room for, and when.
#[derive(Clone, Copy)]
struct Room {
    sessions: usize,
    since: Instant,
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
            retry: settings.call_timeout(),
        });
        let pool = Self { shared, watch: Watch::start()?, limit: settings.call_timeout() };
        for _ in 0..pool.shared.sessions {
            spawn(&pool.shared)?;
            pool.shared.hire(&mut pool.shared.state());
        }
        Ok(pool)
    }

    /// Runs `work` on a thread of the pool, for at most `limit` once it began, and after at most the call limit in the queue.
    pub(crate) fn call<T: Send + 'static>(
        &self,
        limit: Duration,
        needs: Needs,
        work: impl FnOnce(&mut Worker) -> Result<T, HsmError> + Send + 'static,
    ) -> Result<T, HsmError> {
        let cell = Arc::new(Cell::queued());
        let theirs = Arc::clone(&cell);
        self.push(Box::new(Call { cell: theirs, needs, work }))?;
        let mut phase = cell.wait(self.limit, limit);
        match std::mem::replace(&mut *phase, Phase::GivenUp) {
            Phase::Done(result) => result,
            Phase::Queued | Phase::GivenUp => Err(self.shared.busy(self.shared.state().jobs.len())),
            Phase::Running(_) => {
                // Still under the cell's lock: the thread cannot see that it was given up before it is counted so.
                if self.shared.give_up() {
                    // Without a thread there is one fewer for the queue until the call comes back.
                    let _ = spawn(&self.shared);
                }
                Err(HsmError::Timeout { token: self.shared.token(), limit })
            }
        }
    }

    /// Runs `work` on this thread with a session that is open, if one is free and nobody waits for it, and `then` after it; otherwise
    /// on a thread of the pool. Nothing has to be woken for the former. If it takes longer than `limit`, `then` is run by another
    /// thread in place of this one, which finds it done whenever it returns.
    pub(crate) fn call_here<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce(&mut Worker) -> Result<T, HsmError> + Send + 'static,
        then: impl FnOnce(Result<T, HsmError>, RunBy) + Send + 'static,
    ) {
        let Some(mut worker) = self.shared.free() else {
            return then(self.call(limit, Needs::Session, work), RunBy::Caller);
        };
        let (shared, baton) = (Arc::clone(&self.shared), Baton::new(then));
        let late = Arc::clone(&baton);
        let watched = self.watch.over(limit, move || {
            let Some(then) = late.take() else { return };
            shared.give_up();
            then(Err(HsmError::Timeout { token: shared.token(), limit }), RunBy::Another);
        });
        let result = work(&mut worker);
        drop(watched);
        match baton.take() {
            Some(then) => {
                self.shared.give_back(worker);
                then(result, RunBy::Caller);
            }
            None => drop(self.shared.come_back(worker)),
        }
    }

    fn push(&self, job: Box<dyn Job>) -> Result<(), HsmError> {
        let mut state = self.shared.state();
        if state.jobs.len() >= self.shared.queue {
            return Err(self.shared.busy(state.jobs.len()));
        }
        state.jobs.push_back(job);
        // Not every thread can take it where the token has not room for all.
        let any = state.room.is_none();
        // Whoever is woken needs the lock, and would wait for it.
        drop(state);
        if any {
            self.shared.work.notify_one();
        } else {
            self.shared.work.notify_all();
        }
        Ok(())
    }

    /// Has every worker's session closed and forgets the token. False if a session is still open after the call limit: its
    /// worker hangs, and the module must not be finalised under it.
    pub(crate) fn retire(&self) -> bool {
        let mut state = self.shared.state();
        state.generation += 1;
        state.target = None;
        self.shared.work.notify_all();
        let state = self.shared.wait_quiet(state, self.limit, |state| state.open > 0);
        state.open == 0 && state.hung == 0
    }

    /// From now on workers open their sessions there: as many as there are workers, or as the token has room for. `only` is the
    /// session that logged in, where there is room for no other.
    pub(crate) fn aim(&self, target: Target, room: Option<usize>, only: Option<Session>) {
        let mut state = self.shared.state();
        state.generation += 1;
        state.target = Some(target);
        state.room = room.map(|sessions| Room { sessions, since: Instant::now() });
        state.only = only;
        self.shared.work.notify_all();
    }

    /// Sessions that the workers would have and the token does not open, as it said last.
    pub(crate) fn refused_sessions(&self) -> usize {
        self.shared.state().room.map_or(0, |room| self.shared.sessions.saturating_sub(room.sessions))
    }

    /// Sessions that the workers hold.
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
        let mut state = self.state();
        state.open -= 1;
        if state.room.is_some() {
            self.work.notify_all();
        }
        drop(state);
        self.quiet.notify_all();
    }

    /// The session that logged in, where it is the only one.
    pub(crate) fn only_session(&self) -> Option<Session> {
        self.state().only.take()
    }

    /// Whether workers hold sessions.
    pub(crate) fn has_sessions(&self) -> bool {
        self.state().open > 0
    }

    /// Puts a job back for a thread that has a session, and asks the token for no more of them for a while.
    fn without_room(&self, job: Box<dyn Job>) {
        let mut state = self.state();
        state.room = Some(Room { sessions: state.open, since: Instant::now() });
        state.jobs.push_front(job);
        self.work.notify_all();
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

    /// Another worker.
    fn hire(self: &Arc<Self>, state: &mut State) {
        state.live += 1;
        state.idle.insert(0, Worker::new(Arc::clone(self)));
        self.work.notify_one();
    }

    /// Counts a worker that its caller gave up, and replaces it within the bound; whether it did.
    fn give_up(self: &Arc<Self>) -> bool {
        let mut state = self.state();
        state.live -= 1;
        state.hung += 1;
        let replaced = state.hung <= self.hung && !state.closing;
        if replaced {
            self.hire(&mut state);
        }
        self.quiet.notify_all();
        replaced
    }

    /// A worker with a session to the token, for a caller before whom nobody waits.
    fn free(&self) -> Option<Worker> {
        let mut state = self.state();
        let current = Some(state.generation);
        if state.closing || state.target.is_none() || !state.jobs.is_empty() {
            return None;
        }
        state.idle.pop_if(|worker| worker.generation() == current)
    }

    /// Takes back a worker from a caller's own thread.
    fn give_back(&self, worker: Worker) {
        let mut state = self.state();
        let wanted = state.closing || is_outdated(&worker, &state) || !state.jobs.is_empty();
        state.rest(worker);
        drop(state);
        if wanted {
            // Not every thread can do with it what is to be done.
            self.work.notify_all();
        }
    }

    /// Serves jobs until the pool closes.
    fn serve(self: &Arc<Self>) {
        while let Some((job, mut worker)) = self.next() {
            match job.run(&mut worker) {
                Ended::Served => self.state().rest(worker),
                Ended::WithoutRoom(job) => {
                    self.state().rest(worker);
                    self.without_room(job);
                }
                Ended::GivenUp if self.come_back(worker) => {}
                Ended::GivenUp => return,
            }
        }
    }

    /// Gives the module to the next who opens it, once, when the pool is closed and no worker of it is in the module any more.
    fn release_if_over(&self, state: &mut State) {
        if state.closing && !state.released && state.live == 0 && state.hung == 0 {
            state.released = true;
            self.lease.release();
        }
    }

    /// The next job, and who does it; closes outdated sessions meanwhile, and all when the pool closes. Nothing after that.
    fn next(&self) -> Option<(Box<dyn Job>, Worker)> {
        let mut state = self.state();
        loop {
            if let Some(mut worker) = state.outdated() {
                drop(state);
                worker.close();
                state = self.state();
                state.rest(worker);
            } else if state.target.is_none() && state.only.is_some() {
                let only = state.only.take();
                drop(state);
                drop(only);
                state = self.state();
            } else if state.closing {
                let mut worker = state.idle.pop()?;
                drop(state);
                worker.close();
                state = self.state();
                state.live -= 1;
                self.release_if_over(&mut state);
                self.quiet.notify_all();
            } else if let Some(taken) = self.take(&mut state) {
                return Some(taken);
            } else {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// The first job that can be done now: without a session, those that need one are left to the workers that have one, where the
    /// token opens no more.
    fn take(&self, state: &mut State) -> Option<(Box<dyn Job>, Worker)> {
        let full = |room: Room| state.open >= room.sessions.max(1) && room.since.elapsed() < self.retry;
        let has_session = state.idle.last()?.generation().is_some();
        let job = if has_session || state.only.is_some() || !state.room.is_some_and(full) {
            state.jobs.pop_front()?
        } else {
            let place = state.jobs.iter().position(|job| job.needs() == Needs::Module)?;
            state.jobs.remove(place)?
        };
        Some((job, state.idle.pop()?))
    }

    /// After a call that was given up. Its session is not used again; the worker is, if it is still missed. Whether it is.
    fn come_back(&self, mut worker: Worker) -> bool {
        worker.close();
        let mut state = self.state();
        state.hung -= 1;
        let missed = state.live < self.sessions && !state.closing;
        if missed {
            state.live += 1;
            state.rest(worker);
            self.work.notify_one();
        }
        self.release_if_over(&mut state);
        self.quiet.notify_all();
        missed
    }
}

impl State {
    /// Puts a worker among those that nobody works with: with a session it is the next to work.
    fn rest(&mut self, worker: Worker) {
        let place = if worker.generation().is_some() { self.idle.len() } else { 0 };
        self.idle.insert(place, worker);
    }

    /// Takes a worker whose session is of an earlier generation.
    fn outdated(&mut self) -> Option<Worker> {
        let place = self.idle.iter().position(|worker| is_outdated(worker, self))?;
        Some(self.idle.remove(place))
    }
}

fn is_outdated(worker: &Worker, state: &State) -> bool {
    worker.generation().is_some_and(|generation| generation != state.generation)
}

fn spawn(shared: &Arc<Shared>) -> Result<(), io::Error> {
    let theirs = Arc::clone(shared);
    thread::Builder::new().name("pkcs11".to_owned()).spawn(move || theirs.serve()).map(drop)
}
