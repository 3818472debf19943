use std::{
    env,
    ffi::OsStr,
    fs::{File, Metadata, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use casemate_hsm_api::{Pin, PinRefused};
use nix::{
    fcntl::{OFlag, openat},
    sys::stat::Mode,
    unistd::geteuid,
};

use crate::{PinError, acl};

/// The variable by which systemd says where the credentials of a service are (systemd.exec(5)).
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// A PIN, and when its file was written.
pub struct WrittenPin {
    /// The PIN.
    pub pin: Pin,
    /// The file's time of last change (`st_mtim`), in nanoseconds since 1970.
    pub written: i64,
}

/// Reads a PIN file: one line. It must be a regular file of mode 0400 or 0600 that belongs to the user of this process, or a
/// credential that systemd gave to this user alone. What is checked is the opened file, so nothing can be put in its place between
/// check and use.
///
/// A credential of a service with `User=` lies in `$CREDENTIALS_DIRECTORY` and belongs to root: mode 0400 and, by a POSIX access
/// list, readable for that user, which `stat` shows as 0440; the folder is 0500 in the same way. Where the file system has no
/// access lists (ramfs), systemd gives both to the user instead. (systemd's `write_credential` and `acquire_credentials`, in its
/// `src/core/exec-credential.c`, before in `credential.c`.)
///
/// # Errors
/// [`PinError::Unreadable`]; [`PinError::FileUnsafe`] for a wrong owner, mode, kind or content; [`PinError::Unlocked`].
pub fn read_pin(path: &Path) -> Result<WrittenPin, PinError> {
    let unreadable = |source| PinError::Unreadable { path: path.to_owned(), source };
    let refused = |detail: String| PinError::FileUnsafe { path: path.to_owned(), detail };
    let (file, folder) = open(path).map_err(unreadable)?;
    let written = check(&file, folder.as_ref()).map_err(unreadable)?.map_err(refused)?;
    let pin = Pin::read(&file).map_err(|error| match error {
        PinRefused::Unreadable(source) => unreadable(source),
        PinRefused::NotOne => refused(error.to_string()),
        PinRefused::Unlocked(_) => PinError::Unlocked(error),
    })?;
    Ok(WrittenPin { pin, written })
}

/// Whether `path` is that of a credential of systemd, which nobody can write while the service runs.
#[must_use]
pub fn is_credential(path: &Path) -> bool {
    credential(path).is_some()
}

/// Folder and name, if the folder is that of the credentials.
fn credential(path: &Path) -> Option<(PathBuf, &OsStr)> {
    let folder = PathBuf::from(env::var_os(CREDENTIALS)?);
    let is_there = !folder.as_os_str().is_empty() && path.parent() == Some(&folder);
    is_there.then_some((folder, path.file_name()?))
}

/// The file, and the folder of the credentials if it lies directly in it.
fn open(path: &Path) -> io::Result<(File, Option<File>)> {
    // Without O_NONBLOCK a pipe in the file's place would stop the daemon here.
    let Some((folder, name)) = credential(path) else {
        let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
        return Ok((file, None));
    };
    let folder = OpenOptions::new().read(true).custom_flags(OFlag::O_DIRECTORY.bits()).open(folder)?;
    // No link leads out of the folder.
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = openat(&folder, name, flags, Mode::empty())?;
    Ok((File::from(file), Some(folder)))
}

fn check(file: &File, folder: Option<&File>) -> io::Result<Result<i64, String>> {
    let meta = file.metadata()?;
    let own = geteuid().as_raw();
    let mode = meta.mode() & 0o7777;
    let is_given = match folder {
        Some(folder) => is_given(file, &meta, &folder.metadata()?, own)?,
        None => false,
    };
    Ok(if !meta.is_file() {
        Err("it is no regular file".to_owned())
    } else if is_given {
        Ok(written(&meta))
    } else if meta.uid() != own {
        Err(format!(
            "it belongs to user {}, and must belong to user {own} or be a credential of systemd for it",
            meta.uid()
        ))
    } else if !matches!(mode, 0o400 | 0o600) {
        Err(format!("its mode is {mode:04o}, and must be 0400 or 0600"))
    } else {
        Ok(written(&meta))
    })
}

/// Whether root owns the file and its folder, nobody may write either, and nobody but root and `own` may read the file.
fn is_given(file: &File, meta: &Metadata, folder: &Metadata, own: u32) -> io::Result<bool> {
    // The group's bits are the mask of the access list.
    let is_roots = meta.uid() == 0 && meta.mode() & 0o7777 == 0o440 && folder.uid() == 0 && folder.mode() & 0o222 == 0;
    Ok(is_roots && acl::lets_read_alone(file, own)?)
}

fn written(meta: &Metadata) -> i64 {
    meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    fn pin_file(mode: u32, content: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pin");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        folder
    }

    fn read(folder: &tempfile::TempDir) -> Result<String, PinError> {
        read_pin(&folder.path().join("pin")).map(|read| read.pin.expose().to_owned())
    }

    #[test]
    fn a_private_file_with_one_line_is_read() {
        assert_eq!(read(&pin_file(0o400, "12 34\n")).unwrap(), "12 34");
        assert_eq!(read(&pin_file(0o600, "1234\r\n")).unwrap(), "1234");
        assert_eq!(read(&pin_file(0o600, "1234")).unwrap(), "1234");
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        for mode in [0o440, 0o604, 0o700, 0o4600] {
            assert!(matches!(read(&pin_file(mode, "1234\n")), Err(PinError::FileUnsafe { .. })), "{mode:o}");
        }
    }

    #[test]
    fn nothing_two_lines_and_a_flood_are_no_pin() {
        for content in ["", "\n", "1\n2\n", "1\0", &"1".repeat(1025)] {
            assert!(matches!(read(&pin_file(0o600, content)), Err(PinError::FileUnsafe { .. })));
        }
        assert!(matches!(read_pin(Path::new("/nonexistent/pin")), Err(PinError::Unreadable { .. })));
        assert!(matches!(read_pin(Path::new("/dev/null")), Err(PinError::FileUnsafe { .. })));
    }
}
