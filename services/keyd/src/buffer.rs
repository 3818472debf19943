use std::io::{self, Read};

use zeroize::{Zeroize, Zeroizing};

/// Reads ahead, as `BufReader`, and wipes what was taken out: it may have been a PIN.
pub(crate) struct Buffer<R> {
    source: R,
    bytes: Zeroizing<Vec<u8>>,
    /// What of them is not taken yet.
    begin: usize,
    end: usize,
}

impl<R: Read> Buffer<R> {
    /// One that reads as many bytes ahead.
    pub(crate) fn new(size: usize, source: R) -> Self {
        Self { source, bytes: Zeroizing::new(vec![0; size]), begin: 0, end: 0 }
    }

    /// Whether nothing was read ahead.
    pub(crate) const fn is_empty(&self) -> bool {
        self.begin == self.end
    }

    /// Where it reads.
    pub(crate) const fn source(&mut self) -> &mut R {
        &mut self.source
    }
}

impl<R: Read> Read for Buffer<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.is_empty() {
            // A large frame's body goes where it belongs at once.
            if to.len() >= self.bytes.len() {
                return self.source.read(to);
            }
            (self.begin, self.end) = (0, 0);
            self.end = self.source.read(&mut self.bytes)?;
        }
        let held = self.bytes.get_mut(self.begin..self.end).unwrap_or_default();
        let count = held.len().min(to.len());
        for (to, held) in to.iter_mut().zip(held.iter_mut()) {
            *to = *held;
        }
        held.get_mut(..count).unwrap_or_default().zeroize();
        self.begin += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_is_wiped_and_what_was_not_is_there() {
        let mut buffer = Buffer::new(8, &b"864209 and more than is read ahead"[..]);
        let mut taken = [0; 6];
        buffer.read_exact(&mut taken).unwrap();
        assert_eq!((&taken, buffer.bytes.as_slice()), (b"864209", &b"\0\0\0\0\0\0 a"[..]));
        assert!(!buffer.is_empty());
        let mut rest = String::new();
        buffer.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, " and more than is read ahead");
        assert!(buffer.is_empty() && buffer.bytes.iter().all(|byte| *byte == 0));
    }
}
