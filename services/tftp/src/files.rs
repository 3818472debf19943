//! The published folder, read through a bounded cache.

use std::{
    collections::{BTreeMap, HashMap},
    fs::OpenOptions,
    io::{self, Read},
    num::NonZeroU64,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use aws_lc_rs::digest::{SHA256, digest};
use casemate_runtime::publish::Stamp;
use hyper::body::Bytes;
use nix::libc;

use crate::name::Published;

/// A published file cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is there and cannot be read: permissions, disk, a link.
    #[error("published file {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is over the limit, which no file of ctlprovider is.
    #[error("published file {path} is over {limit} bytes")]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// It is no plain file.
    #[error("published file {path} is not a plain file")]
    NotPlain {
        /// Which file.
        path: PathBuf,
    },
}

/// A file as it was when it was read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct File {
    /// The bytes.
    pub content: Bytes,
    /// SHA-256 of the bytes, in hexadecimal.
    pub digest: String,
}

/// Limits of the cache.
#[derive(Clone, Copy, Debug)]
pub struct CacheLimits {
    /// Bytes of all files that are kept.
    pub bytes: u64,
    /// Bytes of one file.
    pub file_bytes: u64,
    /// How long a file is served without looking whether it changed.
    pub poll: Duration,
}

/// The published files. What is served is never older than the poll interval.
#[derive(Debug)]
pub struct Files {
    folder: PathBuf,
    limits: CacheLimits,
    cache: Mutex<Cache>,
}

#[derive(Debug)]
struct Kept {
    file: Arc<File>,
    stamp: Stamp,
    looked: Instant,
    used: u64,
}

/// Files by name, and names by when they were last used.
#[derive(Debug, Default)]
struct Cache {
    kept: HashMap<Published, Kept>,
    order: BTreeMap<u64, Published>,
    bytes: u64,
    uses: u64,
}

impl Files {
    /// The files of `folder`.
    #[must_use]
    pub fn new(folder: &Path, limits: CacheLimits) -> Self {
        Self { folder: folder.to_owned(), limits, cache: Mutex::default() }
    }

    /// The file, or nothing if it is not published. Reads the disk, on the blocking pool, only if it was not looked at within
    /// the poll interval.
    ///
    /// # Errors
    /// The file is there and cannot be served.
    pub async fn fetch(self: &Arc<Self>, name: Published) -> Result<Option<Arc<File>>, FileError> {
        if let Some(file) = self.cache().fresh(name, self.limits.poll) {
            return Ok(Some(file));
        }
        let files = Arc::clone(self);
        tokio::task::spawn_blocking(move || files.look(name)).await.map_err(|error| FileError::Read {
            path: self.folder.join(name.file_name()),
            source: io::Error::other(error),
        })?
    }

    /// As [`Files::fetch`], but always looks at the disk.
    ///
    /// # Errors
    /// As [`Files::fetch`].
    pub fn look(&self, name: Published) -> Result<Option<Arc<File>>, FileError> {
        let path = self.folder.join(name.file_name());
        let read = |source| FileError::Read { path: path.clone(), source };
        let looked = Instant::now();
        // Taken before the file is opened: if it is replaced in between, the next look sees another stamp and reads again.
        let Some(stamp) = Stamp::of(&path).map_err(read)? else {
            self.cache().remove(name);
            return Ok(None);
        };
        if let Some(file) = self.cache().unchanged(name, &stamp, looked) {
            return Ok(Some(file));
        }
        let content = match self.read(&path) {
            Err(FileError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
            content => Some(content?),
        };
        let Some(content) = content else {
            self.cache().remove(name);
            return Ok(None);
        };
        let digest = hex::encode(digest(&SHA256, &content));
        let file = Arc::new(File { content: content.into(), digest });
        self.cache().keep(name, &file, stamp, looked, self.limits.bytes);
        Ok(Some(file))
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, FileError> {
        let read = |source| FileError::Read { path: path.to_owned(), source };
        let limit = self.limits.file_bytes;
        // No link, and no waiting on a pipe: the folder is another daemon's.
        let file =
            OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).map_err(read)?;
        if !file.metadata().map_err(read)?.is_file() {
            return Err(FileError::NotPlain { path: path.to_owned() });
        }
        let mut content = Vec::new();
        file.take(limit.saturating_add(1)).read_to_end(&mut content).map_err(read)?;
        if content.len() as u64 > limit {
            return Err(FileError::TooLarge { path: path.to_owned(), limit });
        }
        Ok(content)
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cache {
    fn fresh(&mut self, name: Published, poll: Duration) -> Option<Arc<File>> {
        let kept = self.kept.get(&name).filter(|kept| kept.looked.elapsed() < poll)?;
        let file = Arc::clone(&kept.file);
        self.touch(name);
        Some(file)
    }

    fn unchanged(&mut self, name: Published, stamp: &Stamp, looked: Instant) -> Option<Arc<File>> {
        let kept = self.kept.get_mut(&name).filter(|kept| kept.stamp == *stamp)?;
        kept.looked = looked;
        let file = Arc::clone(&kept.file);
        self.touch(name);
        Some(file)
    }

    fn touch(&mut self, name: Published) {
        self.uses += 1;
        if let Some(kept) = self.kept.get_mut(&name) {
            self.order.remove(&kept.used);
            kept.used = self.uses;
            self.order.insert(self.uses, name);
        }
    }

    fn remove(&mut self, name: Published) {
        if let Some(kept) = self.kept.remove(&name) {
            self.order.remove(&kept.used);
            self.bytes -= kept.file.content.len() as u64;
        }
    }

    fn keep(&mut self, name: Published, file: &Arc<File>, stamp: Stamp, looked: Instant, limit: u64) {
        self.remove(name);
        self.uses += 1;
        self.bytes += file.content.len() as u64;
        self.order.insert(self.uses, name);
        self.kept.insert(name, Kept { file: Arc::clone(file), stamp, looked, used: self.uses });
        while self.bytes > limit {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            self.remove(oldest);
        }
    }
}

/// The poll interval of a setting in milliseconds.
#[must_use]
pub const fn interval(milliseconds: NonZeroU64) -> Duration {
    Duration::from_millis(milliseconds.get())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use casemate_runtime::publish::write_atomically;

    use super::*;
    use crate::name::{Transport, locate};

    fn name(text: &str) -> Published {
        locate(text.as_bytes(), Transport::Tftp).unwrap().unwrap()
    }

    fn limits(bytes: u64) -> CacheLimits {
        CacheLimits { bytes, file_bytes: 100, poll: Duration::from_secs(3600) }
    }

    #[test]
    fn a_look_sees_a_change_and_a_withdrawal() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::new(dir.path(), limits(1000));
        let path = dir.path().join("ITLFile.tlv");
        assert_eq!(files.look(Published::TrustList).unwrap(), None);
        write_atomically(&path, b"one", 0o644).unwrap();
        let one = files.look(Published::TrustList).unwrap().unwrap();
        assert_eq!(&one.content[..], b"one");
        // Source: `printf one | sha256sum`.
        assert_eq!(one.digest, "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed");
        assert!(Arc::ptr_eq(&one, &files.look(Published::TrustList).unwrap().unwrap()), "read again without a change");
        write_atomically(&path, b"two", 0o644).unwrap();
        assert_eq!(&files.look(Published::TrustList).unwrap().unwrap().content[..], b"two");
        fs::remove_file(&path).unwrap();
        assert_eq!(files.look(Published::TrustList).unwrap(), None);
        assert_eq!(files.cache().bytes, 0);
    }

    #[tokio::test]
    async fn within_the_poll_interval_the_disk_is_not_looked_at_and_after_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ITLFile.tlv");
        write_atomically(&path, b"one", 0o644).unwrap();
        let patient = Arc::new(Files::new(dir.path(), limits(1000)));
        let hasty = Arc::new(Files::new(dir.path(), CacheLimits { poll: Duration::ZERO, ..limits(1000) }));
        for files in [&patient, &hasty] {
            assert_eq!(&files.fetch(Published::TrustList).await.unwrap().unwrap().content[..], b"one");
        }
        write_atomically(&path, b"two", 0o644).unwrap();
        assert_eq!(&patient.fetch(Published::TrustList).await.unwrap().unwrap().content[..], b"one");
        assert_eq!(&hasty.fetch(Published::TrustList).await.unwrap().unwrap().content[..], b"two");
    }

    #[test]
    fn the_cache_keeps_within_its_limit_and_drops_what_was_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::new(dir.path(), limits(120));
        let names = ["SEP000000000001.cnf.xml.sgn", "SEP000000000002.cnf.xml.sgn", "SEP000000000003.cnf.xml.sgn"];
        for name in names {
            write_atomically(&dir.path().join(name), &[0; 50], 0o644).unwrap();
        }
        let [first, second, third] = names.map(name);
        let before = files.look(first).unwrap().unwrap();
        files.look(second).unwrap();
        files.look(first).unwrap();
        files.look(third).unwrap();
        let cache = files.cache();
        assert_eq!(cache.bytes, 100);
        assert!(cache.kept.contains_key(&first) && !cache.kept.contains_key(&second));
        assert_eq!(cache.order.len(), cache.kept.len());
        drop(cache);
        assert!(Arc::ptr_eq(&before, &files.look(first).unwrap().unwrap()));
        assert!(files.look(second).unwrap().is_some());
    }

    #[test]
    fn a_link_a_folder_and_a_giant_are_not_served() {
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("secret");
        fs::write(&secret, b"key").unwrap();
        let files = Files::new(dir.path(), limits(1000));
        std::os::unix::fs::symlink(&secret, dir.path().join("ITLFile.tlv")).unwrap();
        assert!(matches!(files.look(Published::TrustList), Err(FileError::Read { .. })));
        let folder = name("SEP000000000001.cnf.xml.sgn");
        fs::create_dir(dir.path().join(folder.file_name())).unwrap();
        assert!(matches!(files.look(folder), Err(FileError::NotPlain { .. })));
        let giant = name("SEP000000000002.cnf.xml.sgn");
        fs::write(dir.path().join(giant.file_name()), [0; 101]).unwrap();
        assert!(matches!(files.look(giant), Err(FileError::TooLarge { limit: 100, .. })));
    }
}
