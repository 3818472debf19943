use std::{
    fmt,
    io::{self, Read},
    sync::Arc,
};

use memmap2::{Advice, MmapMut};
use zeroize::Zeroize;

/// Longest PIN in bytes. No token takes a longer one (`CK_TOKEN_INFO.ulMaxPinLen` is 255 for SoftHSM).
pub const PIN_LIMIT: usize = 1024;

/// Why a PIN could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum PinRefused {
    /// Linux did not give memory that stays out of the swap and of core dumps. Then no PIN is read at all.
    #[error(
        "the memory for a PIN cannot be locked, so none is read: the process may lock too little memory (RLIMIT_MEMLOCK); give \
         its unit LimitMEMLOCK=1M"
    )]
    Unlocked(#[source] io::Error),
    /// Nothing could be read.
    #[error("the PIN cannot be read")]
    Unreadable(#[source] io::Error),
    /// What was read is none.
    #[error("a PIN is one line of 1 to {PIN_LIMIT} bytes of UTF-8")]
    NotOne,
}

/// A user PIN: never printed, in pages of its own that are in no swap (mlock(2)) and in no core dump (madvise(2), `MADV_DONTDUMP`),
/// and wiped before they are given back. Clones share them.
#[derive(Clone)]
pub struct Pin(Arc<Pages>);

struct Pages {
    memory: MmapMut,
    length: usize,
}

impl Pin {
    /// Takes a PIN that is in memory already, without a line's end.
    ///
    /// # Errors
    /// As [`Pin::read`].
    pub fn new(text: &str) -> Result<Self, PinRefused> {
        // A line's end would be taken off below, and the PIN be another one.
        if text.ends_with(['\n', '\r']) { Err(PinRefused::NotOne) } else { Self::read(text.as_bytes()) }
    }

    /// Reads all of `from`, straight into locked memory: one line with or without its end.
    ///
    /// # Errors
    /// As [`PinRefused`] says.
    pub fn read(mut from: impl Read) -> Result<Self, PinRefused> {
        let mut pages = Pages::locked().map_err(PinRefused::Unlocked)?;
        loop {
            let free = pages.memory.get_mut(pages.length..).unwrap_or_default();
            if free.is_empty() {
                return Err(PinRefused::NotOne);
            }
            match from.read(free) {
                Ok(0) => break,
                Ok(length) => pages.length += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(PinRefused::Unreadable(error)),
            }
        }
        pages.length = checked(pages.text()).map(str::len).ok_or(PinRefused::NotOne)?;
        Ok(Self(Arc::new(pages)))
    }

    /// The text, for the one call that logs in.
    #[must_use]
    pub fn expose(&self) -> &str {
        std::str::from_utf8(self.0.text()).expect("it was UTF-8 when it was read, and is not written to")
    }
}

/// The PIN in what was read, if there is one.
fn checked(read: &[u8]) -> Option<&str> {
    let pin = std::str::from_utf8(read).ok()?.trim_end_matches(['\n', '\r']);
    let is_one = !pin.is_empty() && read.len() <= PIN_LIMIT && !pin.contains(['\n', '\r', '\0']);
    is_one.then_some(pin)
}

impl Pages {
    /// Room for one byte more than a PIN may have, so that a longer one is told from one.
    fn locked() -> io::Result<Self> {
        let memory = MmapMut::map_anon(PIN_LIMIT + 1)?;
        memory.lock()?;
        memory.advise(Advice::DontDump)?;
        Ok(Self { memory, length: 0 })
    }

    fn text(&self) -> &[u8] {
        self.memory.get(..self.length).unwrap_or_default()
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.memory.zeroize();
    }
}

impl PartialEq for Pin {
    /// For who compares two that were typed: the time it takes tells how much is the same.
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for Pin {}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin(..)")
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The lines of `/proc/self/smaps` (proc(5)) about the mapping in which `address` lies.
    fn mapping(address: usize) -> Vec<String> {
        let text = fs::read_to_string("/proc/self/smaps").unwrap();
        let range = |line: &str| {
            let (from, to) = line.split(' ').next()?.split_once('-')?;
            let number = |digits| usize::from_str_radix(digits, 16).ok();
            Some(number(from)?..number(to)?)
        };
        let mut lines = text.lines().skip_while(|line| range(line).is_none_or(|range| !range.contains(&address)));
        let head = lines.next().unwrap();
        let rest = lines.take_while(|line| range(line).is_none());
        [head].into_iter().chain(rest).map(str::to_owned).collect()
    }

    fn flags(address: usize) -> Vec<String> {
        let lines = mapping(address);
        let flags = lines.iter().find_map(|line| line.strip_prefix("VmFlags:")).unwrap();
        flags.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_pin_is_in_no_swap_and_in_no_core_dump() {
        let pin = Pin::read(&b"12 34\n"[..]).unwrap();
        let flags = flags(pin.expose().as_ptr().addr());
        for flag in ["lo", "dd"] {
            assert!(flags.iter().any(|has| has == flag), "{flag} is not in {flags:?}");
        }
        let other = String::from("12 34");
        let flags = self::flags(other.as_ptr().addr());
        assert!(!flags.iter().any(|has| has == "lo" || has == "dd"), "and other memory is: {flags:?}");
    }

    #[test]
    fn a_pin_is_one_line_of_at_most_1024_bytes() {
        for (text, pin) in [("12 34\n", "12 34"), ("1234\r\n", "1234"), ("1", "1")] {
            assert_eq!(Pin::read(text.as_bytes()).unwrap().expose(), pin);
        }
        let (longest, longer) = ("1".repeat(PIN_LIMIT), "1".repeat(PIN_LIMIT + 1));
        assert_eq!(Pin::new(&longest).unwrap().expose(), longest);
        for bad in ["", "\n", "1\n2\n", "1\0", &longer, &(longest + "\n")] {
            assert!(matches!(Pin::read(bad.as_bytes()), Err(PinRefused::NotOne)), "{bad:?}");
        }
        assert!(matches!(Pin::read(&b"\xff"[..]), Err(PinRefused::NotOne)));
        assert!(matches!(Pin::new("12\n"), Err(PinRefused::NotOne)), "the PIN would be another one");
    }

    #[test]
    fn no_pin_is_printed() {
        assert_eq!(format!("{:?}", Pin::new("1234").unwrap()), "Pin(..)");
    }
}
