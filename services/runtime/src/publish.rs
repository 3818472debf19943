//! Files that other daemons read: written so that a reader or a power cut never sees half of one, and watched by looking.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

/// Replaces the file at `path` by `content` with permissions `mode`: written beside it, synchronised, renamed, and the folder
/// synchronised. After it returns the new content survives a power cut; before, the old one does.
///
/// # Errors
/// Any step failed; the old file stands.
pub fn write_atomically(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    // One writer a folder (its daemon), so a fixed name is enough, and a kill leaves at most this one to be overwritten.
    let beside = folder.join(format!(".{}.new", name.to_string_lossy()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(content)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(folder)?.sync_all()
}

/// Makes `folder` (and its parents) if it is not there, with permissions `mode`.
///
/// # Errors
/// It cannot be made.
pub fn ensure_folder(folder: &Path, mode: u32) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    if folder.metadata()?.permissions().mode() & 0o7777 != mode {
        fs::set_permissions(folder, Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// What tells one state of a published file from the next: [`write_atomically`] always makes a new inode.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stamp {
    inode: u64,
    length: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    /// The stamp of the file at `path`, or nothing while it is absent.
    ///
    /// # Errors
    /// The file is there and cannot be looked at.
    pub fn of(path: &Path) -> io::Result<Option<Self>> {
        match path.metadata() {
            Ok(data) => Ok(Some(Self { inode: data.ino(), length: data.len(), modified: data.modified().ok() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A published file that is read again only when it changed.
#[derive(Clone, Debug)]
pub struct Watched {
    path: PathBuf,
    limit: u64,
    seen: Option<Stamp>,
}

impl Watched {
    /// Watches `path`, of which no more than `limit` bytes are taken.
    #[must_use]
    pub const fn new(path: PathBuf, limit: u64) -> Self {
        Self { path, limit, seen: None }
    }

    /// The content, if it is another than at the last call; nothing if it is the same or the file is absent (an absent file
    /// withdraws nothing that was read before).
    ///
    /// # Errors
    /// The file cannot be read, or is over the limit.
    pub fn changed(&mut self) -> io::Result<Option<Vec<u8>>> {
        let stamp = Stamp::of(&self.path)?;
        if stamp == self.seen || stamp.is_none() {
            return Ok(None);
        }
        if stamp.is_some_and(|stamp| stamp.length > self.limit) {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("{} is over {} bytes", self.path.display(), self.limit),
            ));
        }
        let content = fs::read(&self.path)?;
        self.seen = stamp;
        Ok(Some(content))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_published_file_has_its_mode_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ITLFile.tlv");
        write_atomically(&path, b"one", 0o644).unwrap();
        write_atomically(&path, b"two", 0o644).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_watched_file_is_read_once_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("CAPF.pem");
        let mut watched = Watched::new(path.clone(), 8);
        assert_eq!(watched.changed().unwrap(), None);
        write_atomically(&path, b"one", 0o644).unwrap();
        assert_eq!(watched.changed().unwrap().as_deref(), Some(&b"one"[..]));
        assert_eq!(watched.changed().unwrap(), None);
        write_atomically(&path, b"two", 0o644).unwrap();
        assert_eq!(watched.changed().unwrap().as_deref(), Some(&b"two"[..]));
        fs::remove_file(&path).unwrap();
        assert_eq!(watched.changed().unwrap(), None);
        write_atomically(&path, b"nine bytes", 0o644).unwrap();
        assert!(watched.changed().is_err());
    }
}
