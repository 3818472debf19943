use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    sync::Arc,
    time::{Duration, Instant},
};

/// Linux waits for the peer once for each buffer that it fills, so a long write may take many times its limit: this much is one.
const WRITE: usize = 4096;

/// A socket for one frame: its first byte may take as long as the limit, and from then on the whole of it, however slowly its
/// bytes come or go.
pub(crate) struct Timed {
    socket: Arc<UnixStream>,
    limit: Duration,
    /// When the limit began to run.
    begun: Option<Instant>,
}

impl Timed {
    /// Nothing of the frame is there yet.
    pub(crate) const fn new(socket: Arc<UnixStream>, limit: Duration) -> Self {
        Self { socket, limit, begun: None }
    }

    /// The limit runs.
    pub(crate) fn begun(socket: Arc<UnixStream>, limit: Duration) -> Self {
        Self { begun: Some(Instant::now()), ..Self::new(socket, limit) }
    }

    pub(crate) const fn socket(&self) -> &Arc<UnixStream> {
        &self.socket
    }

    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.begun.map_or(self.limit, |begun| self.limit.saturating_sub(begun.elapsed()));
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(self.left()?)?;
        let n = (&*self.socket).read(buffer)?;
        self.begun.get_or_insert_with(Instant::now);
        Ok(n)
    }
}

impl Write for Timed {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(self.left()?)?;
        (&*self.socket).write(buffer.get(..WRITE).unwrap_or(buffer))
    }

    fn flush(&mut self) -> io::Result<()> {
        (&*self.socket).flush()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(300);

    /// How long it takes until a frame whose bytes come one by one, each just within the limit, is given up.
    #[test]
    fn the_limit_runs_from_the_first_byte_and_no_byte_renews_it() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let trickle = thread::spawn(move || {
            for _ in 0..6 {
                thread::sleep(LIMIT * 2 / 3);
                if theirs.write_all(&[1]).is_err() {
                    return;
                }
            }
        });
        let mut timed = Timed::new(Arc::new(ours), LIMIT);
        assert_eq!(timed.read(&mut [0; 8]).unwrap(), 1, "the first byte has the limit for itself");
        let begun = Instant::now();
        while timed.read(&mut [0; 8]).is_ok_and(|n| n > 0) {}
        let took = begun.elapsed();
        assert!(took < LIMIT * 3 / 2, "{took:?} for a limit of {LIMIT:?}");
        drop(timed);
        trickle.join().unwrap();
    }

    #[test]
    fn an_answer_that_is_not_taken_is_given_up_at_the_limit() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let slow = thread::spawn(move || {
            // Takes something again and again, so that single writes go on.
            while theirs.read(&mut [0; 4096]).is_ok_and(|n| n > 0) {
                thread::sleep(LIMIT / 10);
            }
        });
        let ours = Arc::new(ours);
        let begun = Instant::now();
        assert!(Timed::begun(Arc::clone(&ours), LIMIT).write_all(&vec![0; 16 << 20]).is_err());
        assert!(begun.elapsed() < LIMIT * 2, "{:?}", begun.elapsed());
        ours.shutdown(std::net::Shutdown::Both).unwrap();
        slow.join().unwrap();
    }
}
