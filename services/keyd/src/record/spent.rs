//! What each user had put on record lately, read back when the broker starts, so that a restart refills nobody's share.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Deserialize;

/// Bytes of the record by user id.
pub type Spent = HashMap<u32, u64>;

/// A share is counted over so long.
const SPAN: Duration = Duration::from_secs(86_400);

/// No line is longer: a value of an event has 2048 bytes at most, and JSON makes at most six of one.
pub(super) const LONGEST: u64 = 256 << 10;

/// Events that cost their user of his share.
const COUNTED: [&str; 2] = ["KeyUsed", "KeyUseFailed"];

/// What is read of a line. Whatever has no such fields is nobody's.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "CASEMATE_EVENT")]
    event: &'a str,
    #[serde(rename = "CASEMATE_TIMESTAMP")]
    micros: &'a str,
    #[serde(rename = "CASEMATE_UID")]
    uid: &'a str,
}

/// Adds up the lines of the day before `now` in `files`, of which some may be missing. One that was last written before is not read,
/// so that it takes as long as reading what was written in a day and one file more; and no more than a line is held.
///
/// A line of the future counts too: whoever sets back the clock must not gain by it.
///
/// # Errors
/// A file is there and cannot be read.
pub(super) fn spent(files: impl Iterator<Item = impl AsRef<Path>>, now: SystemTime) -> io::Result<Spent> {
    let since = now.checked_sub(SPAN).unwrap_or(UNIX_EPOCH);
    let mut spent = Spent::new();
    for path in files {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        if file.metadata()?.modified()? >= since {
            add(BufReader::new(file), since, &mut spent)?;
        }
    }
    Ok(spent)
}

fn add(mut lines: impl BufRead, since: SystemTime, spent: &mut Spent) -> io::Result<()> {
    let since = since.duration_since(UNIX_EPOCH).map_or(0, |age| age.as_micros());
    let mut line = Vec::new();
    while lines.by_ref().take(LONGEST).read_until(b'\n', &mut line)? > 0 {
        if let Some(uid) = user_of(&line, since) {
            let bytes = spent.entry(uid).or_default();
            *bytes = bytes.saturating_add(line.len() as u64);
        }
        line.clear();
    }
    Ok(())
}

/// The user whom a line costs something.
fn user_of(line: &[u8], since: u128) -> Option<u32> {
    let line: Line<'_> = serde_json::from_slice(line).ok()?;
    let counts = COUNTED.contains(&line.event) && line.micros.parse::<u128>().ok()? >= since;
    if counts { line.uid.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use casemate_audit::{Event, Record};

    use super::*;

    /// What `uid` had put on record, as keyd writes it.
    fn used(uid: u32) -> Vec<u8> {
        let (role, purpose) = ("CAPF".to_owned(), "device-certificate".to_owned());
        let (scheme, object, digest) = ("s".to_owned(), "\"quoted\" o\u{308}".to_owned(), "d".to_owned());
        Record::new("casemate-keyd", &Event::KeyUsed { role, purpose, scheme, object, digest, uid, pid: 1 }).json_line()
    }

    fn failed(uid: u32) -> Vec<u8> {
        let (role, purpose, object) = ("CAPF".to_owned(), "p".to_owned(), "o".to_owned());
        let event = Event::KeyUseFailed { role, purpose, object, uid, reason: "r".to_owned() };
        Record::new("casemate-keyd", &event).json_line()
    }

    #[test]
    fn the_last_days_lines_are_added_up_by_user_over_all_files_and_what_is_no_line_is_nobodys() {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["a", "b", "never"].map(|name| folder.path().join(name));
        let (one, two, miss) = (used(1), used(2), failed(1));
        let stranger = b"{\"CASEMATE_EVENT\":\"KeyGenerated\",\"CASEMATE_TIMESTAMP\":\"9\",\"CASEMATE_UID\":\"1\"}\n";
        let noise = vec![b'x'; 3 * usize::try_from(LONGEST).unwrap()];
        fs::write(&paths[0], [&one[..], b"no line\n\n", &two, stranger, &noise, b"\n", &miss].concat()).unwrap();
        fs::write(&paths[1], &one).unwrap();
        let found = spent(paths.iter(), SystemTime::now()).unwrap();
        let expected = [(1, 2 * one.len() + miss.len()), (2, two.len())];
        assert_eq!(found, expected.map(|(uid, bytes)| (uid, bytes as u64)).into_iter().collect());
        // The same a day and more later, in files that were written to since.
        let later = SystemTime::now() + SPAN + Duration::from_secs(60);
        File::options().append(true).open(&paths[0]).unwrap().set_modified(later).unwrap();
        assert_eq!(spent(paths.iter(), later).unwrap(), Spent::new());
        // A clock that was set back.
        assert_eq!(spent(paths.iter(), SystemTime::now() - 10 * SPAN).unwrap(), found);
        assert!(spent([folder.path()].into_iter(), SystemTime::now()).is_err(), "what cannot be read is told");
    }
}
