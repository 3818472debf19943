use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    iter,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{Sink, Spent, number, spent::spent};
use crate::{KeydError, RecordSettings};

/// Lines in a file. A file that is full is put aside as `<name>.1`, and what was there moves up to `<name>.2` and so on.
pub struct RecordFile {
    path: PathBuf,
    settings: RecordSettings,
    file: File,
    /// What is known to be on disk; what follows it is a batch that failed.
    length: u64,
    /// A batch failed, and its remains are to be cut off before anything is written.
    torn: bool,
}

impl RecordFile {
    /// Opens the file at `path`, or makes it. A last line that a power cut left incomplete was never acknowledged, and is cut
    /// off.
    ///
    /// # Errors
    /// [`KeydError::SignatureRecord`].
    pub fn open(path: &Path, settings: RecordSettings) -> Result<Self, KeydError> {
        let failed = |source| KeydError::SignatureRecord { path: path.to_owned(), source };
        let mut file = open(path).map_err(failed)?;
        let length = whole_lines(&mut file).map_err(failed)?;
        let mut record = Self { path: path.to_owned(), settings, file, length, torn: true };
        record.mend().map_err(failed)?;
        Ok(record)
    }

    /// Cuts off what follows the last whole batch.
    fn mend(&mut self) -> io::Result<()> {
        if self.torn {
            self.file.set_len(self.length)?;
            self.file.sync_all()?;
            self.torn = false;
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        for number in (1..self.settings.keep).rev() {
            rename_if_there(&aside(&self.path, number), &aside(&self.path, number + 1))?;
        }
        match self.settings.keep {
            0 => fs::remove_file(&self.path)?,
            _ => rename_if_there(&self.path, &aside(&self.path, 1))?,
        }
        self.file = open(&self.path)?;
        self.length = 0;
        Ok(())
    }
}

impl Sink for RecordFile {
    fn write_durably(&mut self, lines: &[u8]) -> io::Result<()> {
        self.mend()?;
        if self.length >= self.settings.file_bytes {
            self.rotate()?;
        }
        self.torn = true;
        self.file.write_all(lines)?;
        self.file.sync_data()?;
        self.torn = false;
        self.length += lines.len() as u64;
        Ok(())
    }

    fn spent(&self, now: SystemTime) -> io::Result<Spent> {
        let aside = (1..=self.settings.keep).map(|number| aside(&self.path, number));
        spent(iter::once(self.path.clone()).chain(aside), now)
    }

    fn last(&self) -> io::Result<u64> {
        // A crash may have left nothing yet in the place of a file that was put aside.
        number::last([self.path.clone(), aside(&self.path, 1)])
    }
}

/// Opens for appending, for the owner alone, with the folder synchronised so that a new file survives too.
fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    File::open(folder)?.sync_all()?;
    Ok(file)
}

/// How much of the file is whole lines.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    const STEP: u64 = 4096;
    let mut end = file.seek(SeekFrom::End(0))?;
    while end > 0 {
        let start = end.saturating_sub(STEP);
        file.seek(SeekFrom::Start(start))?;
        let mut part = Vec::new();
        file.take(end - start).read_to_end(&mut part)?;
        if let Some(at) = part.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

fn aside(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(file_bytes: u64, keep: u32) -> RecordSettings {
        RecordSettings { file_bytes, keep, ..RecordSettings::default() }
    }

    #[test]
    fn an_incomplete_last_line_is_cut_off_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record.jsonl");
        let torn = [b"{\"a\":1}\n".as_slice(), &[b'x'; 9000]].concat();
        fs::write(&path, torn).unwrap();
        let mut file = RecordFile::open(&path, settings(1 << 20, 2)).unwrap();
        file.write_durably(b"{\"b\":2}\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"a\":1}\n{\"b\":2}\n");
        fs::write(&path, "no line at all").unwrap();
        RecordFile::open(&path, settings(1 << 20, 2)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");
    }

    #[test]
    fn full_files_are_put_aside_and_only_so_many_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record.jsonl");
        let mut file = RecordFile::open(&path, settings(4, 2)).unwrap();
        for line in [b"one\n", b"two\n", b"thr\n", b"fou\n"] {
            file.write_durably(line).unwrap();
        }
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(
            (read("record.jsonl"), read("record.jsonl.1"), read("record.jsonl.2")),
            ("fou\n".into(), "thr\n".into(), "two\n".into())
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }

    #[test]
    fn a_full_disk_fails_the_batch_and_leaves_whole_lines() {
        // /dev/full takes no byte: the kernel's own full disk.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record.jsonl");
        let mut file = RecordFile::open(&path, settings(1 << 20, 2)).unwrap();
        file.write_durably(b"one\n").unwrap();
        let good = std::mem::replace(&mut file.file, OpenOptions::new().write(true).open("/dev/full").unwrap());
        assert_eq!(file.write_durably(b"two\n").unwrap_err().kind(), io::ErrorKind::StorageFull);
        file.file = good;
        file.file.write_all(b"thr").unwrap();
        file.write_durably(b"fou\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\nfou\n");
    }
}
