//! The number of the record's last line, read back when the broker starts.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use serde::Deserialize;

use super::spent::LONGEST;

/// What is read of a line.
#[derive(Deserialize)]
struct Line<'a> {
    // casemate_audit::NUMBER
    #[serde(rename = "CASEMATE_RECORD")]
    number: &'a str,
}

/// The number of the last line of the first of `files` that has a line; 0 if there is none, or if that line was written before lines
/// had numbers.
///
/// # Errors
/// A file is there and cannot be read.
pub(super) fn last(files: impl IntoIterator<Item = impl AsRef<Path>>) -> io::Result<u64> {
    for path in files {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        if let Some(line) = last_line(file)? {
            let number = serde_json::from_slice(&line).ok().and_then(|line: Line<'_>| line.number.parse().ok());
            return Ok(number.unwrap_or_default());
        }
    }
    Ok(0)
}

/// The last line of a file of whole lines, if it has one.
fn last_line(mut file: File) -> io::Result<Option<Vec<u8>>> {
    let end = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(end.saturating_sub(LONGEST)))?;
    let mut tail = Vec::new();
    file.take(LONGEST).read_to_end(&mut tail)?;
    let Some(b'\n') = tail.pop() else { return Ok(None) };
    let start = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    Ok(Some(tail.split_off(start)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use casemate_audit::{Event, Record};

    use super::*;

    fn line(number: u64) -> Vec<u8> {
        let event = Event::ServiceStopped { reason: "test".into() };
        Record::new("casemate-keyd", &event).numbered(number).json_line()
    }

    #[test]
    fn the_last_number_is_found_in_the_newest_file_that_has_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let [new, old, never] = ["new", "old", "never"].map(|name| folder.path().join(name));
        let found = || last([&never, &new, &old]).unwrap();
        assert_eq!(found(), 0);
        fs::write(&old, [line(4), line(5)].concat()).unwrap();
        fs::write(&new, "").unwrap();
        assert_eq!(found(), 5);
        fs::write(&new, line(6)).unwrap();
        assert_eq!(found(), 6);
        fs::write(&new, "{\"CASEMATE_EVENT\":\"KeyUsed\"}\n").unwrap();
        assert_eq!(found(), 0, "before lines had numbers");
        assert!(last([folder.path()]).is_err(), "what cannot be read is told");
    }
}
