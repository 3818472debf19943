//! The broker's own record of signatures: a line is on disk before the signature that it tells of exists.
//!
//! One thread writes. While one batch waits for the disk the next gathers, so that a hundred signatures pay for one
//! synchronisation.

mod file;
mod number;
mod spent;

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::SystemTime,
};

pub use file::RecordFile;
pub use spent::Spent;

use crate::KeydError;

/// Where batches of lines go.
pub trait Sink: Send {
    /// Has `lines`, whole lines, on disk when it returns; nothing of them counts if it fails.
    ///
    /// # Errors
    /// The disk refused.
    fn write_durably(&mut self, lines: &[u8]) -> io::Result<()>;

    /// What each user has put there in the day before `now`.
    ///
    /// # Errors
    /// It cannot be read back.
    fn spent(&self, now: SystemTime) -> io::Result<Spent>;

    /// The number of the last line that is there; 0 where none has one.
    ///
    /// # Errors
    /// It cannot be read back.
    fn last(&self) -> io::Result<u64>;
}

/// The record, for any number of threads.
pub struct SignatureRecord {
    shared: Arc<Shared>,
    path: PathBuf,
    queue: usize,
    spent: Spent,
    writer: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    /// There is something to write, or it is the end.
    work: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<u8>,
    count: usize,
    /// The number of the last line, whether it is on disk or among these.
    last: u64,
    /// The number of the last line that is on disk.
    on_disk: u64,
    fate: Arc<Fate>,
    closing: bool,
}

impl State {
    /// Gives the numbers of the last `count` lines, which are not on disk, to the next ones; if none has a later number yet.
    fn take_back(&mut self, count: usize) {
        if self.count == 0 {
            self.last = self.last.saturating_sub(count as u64);
        }
    }
}

/// How a batch ended, for all whose lines are in it.
#[derive(Default)]
struct Fate {
    outcome: Mutex<Option<Result<(), Failure>>>,
    known: Condvar,
}

/// An error that can be told to several.
#[derive(Clone)]
struct Failure {
    kind: io::ErrorKind,
    text: String,
}

impl SignatureRecord {
    /// Starts the thread that writes to `sink`. `path` is for error texts; `queue` is how many lines may wait.
    ///
    /// # Errors
    /// [`KeydError::Thread`]; [`KeydError::SignatureRecord`] if what is on record cannot be read.
    pub fn start(sink: impl Sink + 'static, path: PathBuf, queue: usize) -> Result<Self, KeydError> {
        let spent = sink.spent(SystemTime::now());
        let failed = |source| KeydError::SignatureRecord { path: path.clone(), source };
        let spent = spent.map_err(failed)?;
        let last = sink.last().map_err(failed)?;
        let state = State { last, on_disk: last, ..State::default() };
        let shared = Arc::new(Shared { state: Mutex::new(state), work: Condvar::new() });
        let theirs = Arc::clone(&shared);
        let writer = thread::Builder::new()
            .name("record".to_owned())
            .spawn(move || theirs.write(sink))
            .map_err(KeydError::Thread)?;
        Ok(Self { shared, path, queue: queue.max(1), spent, writer: Some(writer) })
    }

    /// What each user had put on record in the day before it was started.
    #[must_use]
    pub const fn spent_before(&self) -> &Spent {
        &self.spent
    }

    /// Appends the line that `line` makes of its number (with its line's end), and returns when it is on disk. Numbers follow each
    /// other without a gap, but where a batch failed while others waited.
    ///
    /// # Errors
    /// [`KeydError::SignatureRecord`]: it is not, and what it tells of must not happen.
    pub fn append(&self, line: impl FnOnce(u64) -> Vec<u8>) -> Result<(), KeydError> {
        let fate = {
            let mut state = self.shared.state();
            if state.count >= self.queue {
                return Err(self.failed(io::Error::new(io::ErrorKind::WouldBlock, "the disk is too slow")));
            }
            state.last += 1;
            let line = line(state.last);
            state.lines.extend_from_slice(&line);
            state.count += 1;
            if state.count == 1 {
                self.shared.work.notify_one();
            }
            Arc::clone(&state.fate)
        };
        fate.wait().map_err(|failure| self.failed(io::Error::new(failure.kind, failure.text)))
    }

    /// The number of the last line that is on disk; 0 while there is none.
    #[must_use]
    pub fn recorded(&self) -> u64 {
        self.shared.state().on_disk
    }

    fn failed(&self, source: io::Error) -> KeydError {
        KeydError::SignatureRecord { path: self.path.clone(), source }
    }
}

impl Drop for SignatureRecord {
    fn drop(&mut self) {
        self.shared.state().closing = true;
        self.shared.work.notify_one();
        if let Some(writer) = self.writer.take() {
            // It panics nowhere; if it did, whoever waited was told nothing and signed nothing.
            let _ = writer.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, mut sink: impl Sink) {
        loop {
            let state = self
                .work
                .wait_while(self.state(), |state| state.count == 0 && !state.closing)
                .unwrap_or_else(PoisonError::into_inner);
            let batch = {
                let mut state = state;
                if state.count == 0 {
                    return;
                }
                let next = State { last: state.last, on_disk: state.on_disk, ..State::default() };
                std::mem::replace(&mut *state, next)
            };
            if batch.closing {
                self.state().closing = true;
            }
            let outcome = sink.write_durably(&batch.lines);
            match outcome {
                Ok(()) => self.state().on_disk = batch.last,
                Err(_) => self.state().take_back(batch.count),
            }
            batch.fate.tell(outcome.map_err(|error| Failure { kind: error.kind(), text: error.to_string() }));
        }
    }
}

impl Fate {
    fn tell(&self, outcome: Result<(), Failure>) {
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        self.known.notify_all();
    }

    fn wait(&self) -> Result<(), Failure> {
        let outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome =
            self.known.wait_while(outcome, |outcome| outcome.is_none()).unwrap_or_else(PoisonError::into_inner);
        outcome.clone().unwrap_or_else(|| Err(Failure { kind: io::ErrorKind::Other, text: "no outcome".to_owned() }))
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use super::*;

    /// A disk that is as slow as the test says, and then fails or not.
    struct Slow {
        go: mpsc::Receiver<io::Result<()>>,
        batches: mpsc::Sender<Vec<u8>>,
    }

    impl Sink for Slow {
        fn write_durably(&mut self, lines: &[u8]) -> io::Result<()> {
            self.batches.send(lines.to_vec()).unwrap();
            self.go.recv().unwrap()
        }

        fn spent(&self, _now: SystemTime) -> io::Result<Spent> {
            Ok(Spent::new())
        }

        fn last(&self) -> io::Result<u64> {
            Ok(7)
        }
    }

    fn slow(queue: usize) -> (Arc<SignatureRecord>, mpsc::Sender<io::Result<()>>, mpsc::Receiver<Vec<u8>>) {
        let (send_go, go) = mpsc::channel();
        let (batches, receive_batches) = mpsc::channel();
        let record = SignatureRecord::start(Slow { go, batches }, "r".into(), queue).unwrap();
        (Arc::new(record), send_go, receive_batches)
    }

    fn append(record: &Arc<SignatureRecord>, line: &'static [u8]) -> thread::JoinHandle<bool> {
        let record = Arc::clone(record);
        thread::spawn(move || record.append(|_| line.to_vec()).is_ok())
    }

    fn wait_for(record: &SignatureRecord, count: usize) {
        while record.shared.state().count < count {
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn nobody_goes_on_before_the_disk_answered_and_those_who_wait_share_a_batch() {
        let (record, go, batches) = slow(10);
        let first = append(&record, b"1\n");
        assert_eq!(batches.recv().unwrap(), b"1\n");
        let more = [append(&record, b"2\n"), append(&record, b"2\n")];
        wait_for(&record, 2);
        assert!(!first.is_finished());
        go.send(Ok(())).unwrap();
        assert!(first.join().unwrap());
        assert_eq!(batches.recv().unwrap(), b"2\n2\n");
        assert!(more.iter().all(|append| !append.is_finished()));
        go.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
        assert!(more.into_iter().all(|append| !append.join().unwrap()), "a batch that failed failed for all in it");
    }

    #[test]
    fn a_full_queue_refuses() {
        let (record, go, batches) = slow(1);
        let first = append(&record, b"1\n");
        batches.recv().unwrap();
        let second = append(&record, b"2\n");
        wait_for(&record, 1);
        assert!(record.append(|_| b"3\n".to_vec()).is_err());
        go.send(Ok(())).unwrap();
        go.send(Ok(())).unwrap();
        assert!(first.join().unwrap() && second.join().unwrap());
    }

    #[test]
    fn numbers_go_on_from_the_last_line_and_a_batch_that_failed_leaves_no_gap_unless_others_wait() {
        let (record, go, batches) = slow(10);
        let numbered = |go: &mpsc::Sender<io::Result<()>>, outcome: io::Result<()>| {
            go.send(outcome).unwrap();
            let told = record.append(|number| format!("{number}\n").into_bytes()).is_ok();
            (String::from_utf8(batches.recv().unwrap()).unwrap(), told)
        };
        assert_eq!(numbered(&go, Ok(())), ("8\n".to_owned(), true));
        assert_eq!(numbered(&go, Err(io::ErrorKind::StorageFull.into())), ("9\n".to_owned(), false));
        assert_eq!(numbered(&go, Ok(())), ("9\n".to_owned(), true));
        // One waits with the number 11 while that of the number 10 fails.
        let first = append(&record, b"10\n");
        batches.recv().unwrap();
        let second = append(&record, b"11\n");
        wait_for(&record, 1);
        go.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
        batches.recv().unwrap();
        go.send(Ok(())).unwrap();
        assert!(!first.join().unwrap() && second.join().unwrap());
        assert_eq!(numbered(&go, Ok(())), ("12\n".to_owned(), true));
        assert_eq!(record.recorded(), 12, "on disk when it was told");
    }
}
