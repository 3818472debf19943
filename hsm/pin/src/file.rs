use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use casemate_hsm_api::{Pin, PinRefused};
use nix::{fcntl::OFlag, unistd::geteuid};

use crate::PinError;

/// A PIN, and when its file was written.
pub struct WrittenPin {
    /// The PIN.
    pub pin: Pin,
    /// The file's time of last change (`st_mtim`), in nanoseconds since 1970.
    pub written: i64,
}

/// Reads a PIN file: one line. It must be a regular file of mode 0400 or 0600 that belongs to the user of this process; what is
/// checked is the opened file, so nothing can be put in its place between check and use.
///
/// # Errors
/// [`PinError::Unreadable`]; [`PinError::FileUnsafe`] for a wrong owner, mode, kind or content; [`PinError::Unlocked`].
pub fn read_pin(path: &Path) -> Result<WrittenPin, PinError> {
    let unreadable = |source| PinError::Unreadable { path: path.to_owned(), source };
    let refused = |detail: String| PinError::FileUnsafe { path: path.to_owned(), detail };
    // Without O_NONBLOCK a pipe in the file's place would stop the daemon here.
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path).map_err(unreadable)?;
    let written = check(&file).map_err(unreadable)?.map_err(refused)?;
    let pin = Pin::read(&file).map_err(|error| match error {
        PinRefused::Unreadable(source) => unreadable(source),
        PinRefused::NotOne => refused(error.to_string()),
        PinRefused::Unlocked(_) => PinError::Unlocked(error),
    })?;
    Ok(WrittenPin { pin, written })
}

fn check(file: &File) -> io::Result<Result<i64, String>> {
    let meta = file.metadata()?;
    let own = geteuid().as_raw();
    Ok(if !meta.is_file() {
        Err("it is no regular file".to_owned())
    } else if meta.uid() != own {
        Err(format!("it belongs to user {}, and must belong to user {own}", meta.uid()))
    } else if !matches!(meta.mode() & 0o7777, 0o400 | 0o600) {
        Err(format!("its mode is {:04o}, and must be 0400 or 0600", meta.mode() & 0o7777))
    } else {
        Ok(meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec()))
    })
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
