//! Who looks after calls that may hang with the thread of their caller.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// What follows a call: done once, by whoever takes it first.
pub(crate) struct Baton<F>(Mutex<Option<F>>);

impl<F> Baton<F> {
    pub(crate) fn new(then: F) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Some(then))))
    }

    pub(crate) fn take(&self) -> Option<F> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A thread that does what is due of calls that take too long. While calls come and go in time it is woken once a limit at most.
pub(crate) struct Watch(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// There is something to watch again, or the end.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    calls: Vec<Call>,
    /// Number of the next call.
    next: u64,
    /// The thread sleeps until something is due at this time, or, without one, until it is woken.
    due: Option<Instant>,
    closing: bool,
}

struct Call {
    number: u64,
    due: Instant,
    overdue: Box<dyn FnOnce() + Send>,
}

/// A call that is watched until this is dropped.
pub(crate) struct Watched<'a> {
    shared: &'a Shared,
    number: u64,
}

impl Watch {
    pub(crate) fn start() -> Result<Self, io::Error> {
        let shared = Arc::<Shared>::default();
        let theirs = Arc::clone(&shared);
        thread::Builder::new().name("pkcs11-watch".to_owned()).spawn(move || theirs.serve())?;
        Ok(Self(shared))
    }

    /// Has `overdue` run by a thread of its own if `limit` passes before the result is dropped.
    pub(crate) fn over(&self, limit: Duration, overdue: impl FnOnce() + Send + 'static) -> Watched<'_> {
        let due = Instant::now() + limit;
        let mut state = self.0.state();
        let number = state.next;
        state.next += 1;
        state.calls.push(Call { number, due, overdue: Box::new(overdue) });
        let sleeps_longer = state.due.is_none_or(|wakes| due < wakes);
        drop(state);
        if sleeps_longer {
            self.0.changed.notify_one();
        }
        Watched { shared: &self.0, number }
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        if let Some(place) = state.calls.iter().position(|call| call.number == self.number) {
            let call = state.calls.swap_remove(place);
            drop(state);
            drop(call);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.state().closing = true;
        self.0.changed.notify_one();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self) {
        let mut state = self.state();
        while !state.closing {
            let now = Instant::now();
            if let Some(place) = state.calls.iter().position(|call| call.due <= now) {
                let call = state.calls.swap_remove(place);
                drop(state);
                run(call.overdue);
                state = self.state();
                continue;
            }
            state.due = state.calls.iter().map(|call| call.due).min();
            state = match state.due {
                Some(due) => self.changed.wait_timeout(state, due - now).unwrap_or_else(PoisonError::into_inner).0,
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

/// On a thread of its own, for it may take long; without one, here.
fn run(overdue: Box<dyn FnOnce() + Send>) {
    let baton = Baton::new(overdue);
    let theirs = Arc::clone(&baton);
    let work = move || theirs.take().into_iter().for_each(|overdue| overdue());
    if thread::Builder::new().name("overdue".to_owned()).spawn(work).is_err() {
        baton.take().into_iter().for_each(|overdue| overdue());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, RecvTimeoutError};

    use super::*;

    const LIMIT: Duration = Duration::from_millis(100);

    #[test]
    fn a_call_that_takes_too_long_is_overdue_once_and_one_that_ends_in_time_never() {
        let watch = Watch::start().unwrap();
        let (tell, told) = mpsc::channel();
        let overdue = |name: &'static str| {
            let tell = tell.clone();
            move || tell.send(name).unwrap()
        };
        let slow = watch.over(LIMIT, overdue("slow"));
        (0..1000).for_each(|_| drop(watch.over(LIMIT, overdue("quick"))));
        let begun = Instant::now();
        assert_eq!(told.recv_timeout(LIMIT * 50), Ok("slow"));
        assert!(begun.elapsed() >= LIMIT * 9 / 10, "{:?}", begun.elapsed());
        drop(slow);
        assert_eq!(told.recv_timeout(LIMIT * 2), Err(RecvTimeoutError::Timeout));
    }

    #[test]
    fn a_shorter_limit_is_not_slept_through_and_what_takes_long_holds_up_nobody() {
        let watch = Watch::start().unwrap();
        let (tell, told) = mpsc::channel();
        let _long = watch.over(LIMIT * 1000, || {});
        // The thread sleeps for that one now.
        thread::sleep(LIMIT);
        let (release, hang) = mpsc::channel::<()>();
        let first = tell.clone();
        let _first = watch.over(LIMIT, move || {
            first.send("first").unwrap();
            let _ = hang.recv();
        });
        let _second = watch.over(LIMIT * 2, move || tell.send("second").unwrap());
        assert_eq!(told.recv_timeout(LIMIT * 50), Ok("first"));
        assert_eq!(told.recv_timeout(LIMIT * 50), Ok("second"));
        drop(release);
    }
}
