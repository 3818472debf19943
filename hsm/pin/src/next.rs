use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use casemate_hsm_api::Pin;

use crate::{PinError, WrittenPin, is_credential, read_pin, refusal::sync_folder};

/// The PIN that a token is about to be given: the file `<pin-file>.new`, which is there from before the token sees the new PIN
/// until the PIN file holds it. While it is there, either of the two may be the token's.
#[derive(Clone, Debug)]
pub struct NextPin {
    pin_file: PathBuf,
}

impl NextPin {
    /// That of the PIN file at this path.
    #[must_use]
    pub fn of(pin_file: &Path) -> Self {
        Self { pin_file: pin_file.to_owned() }
    }

    fn path(&self, ending: &str) -> PathBuf {
        let mut name = self.pin_file.as_os_str().to_owned();
        name.push(ending);
        name.into()
    }

    /// The PIN, if a change was begun and its end is unknown.
    ///
    /// # Errors
    /// As [`read_pin`].
    pub fn read(&self) -> Result<Option<WrittenPin>, PinError> {
        match read_pin(&self.path(".new")) {
            Err(PinError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        }
    }

    /// Whether there is one.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.path(".new").exists()
    }

    /// Refuses a change where the PIN file is not ours to replace, and a second one before the first is decided: the PIN of that may
    /// be the token's.
    ///
    /// # Errors
    /// [`PinError::Credential`], [`PinError::Undecided`], and as [`read_pin`].
    pub fn ready(&self) -> Result<(), PinError> {
        if is_credential(&self.pin_file) {
            return Err(PinError::Credential { path: self.pin_file.clone() });
        }
        match self.read()? {
            Some(_) => Err(PinError::Undecided { path: self.pin_file.clone() }),
            None => Ok(()),
        }
    }

    /// Has `pin` on disk, whole or not at all, in a file of mode 0400 of this user.
    ///
    /// # Errors
    /// [`PinError::NotWritten`], where this user may not write.
    pub fn stage(&self, pin: &Pin) -> Result<(), PinError> {
        let (part, new) = (self.path(".new.part"), self.path(".new"));
        let write = || {
            remove_if_there(&part)?;
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(&part)?;
            file.write_all(pin.expose().as_bytes())?;
            file.sync_all()?;
            fs::rename(&part, &new)?;
            self.sync()
        };
        write().map_err(|source| {
            // Nobody needs what was not finished.
            let _ = fs::remove_file(&part);
            self.not_written(source)
        })
    }

    /// The token has it: it takes the PIN file's place.
    ///
    /// # Errors
    /// [`PinError::NotWritten`].
    pub fn adopt(&self) -> Result<(), PinError> {
        fs::rename(self.path(".new"), &self.pin_file)
            .and_then(|()| self.sync())
            .map_err(|source| self.not_written(source))
    }

    /// The token has it not: it is removed.
    ///
    /// # Errors
    /// [`PinError::NotWritten`].
    pub fn discard(&self) -> Result<(), PinError> {
        let discard = || if remove_if_there(&self.path(".new"))? { self.sync() } else { Ok(()) };
        discard().map_err(|source| self.not_written(source))
    }

    fn sync(&self) -> io::Result<()> {
        sync_folder(self.pin_file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")))
    }

    fn not_written(&self, source: io::Error) -> PinError {
        PinError::NotWritten { path: self.pin_file.clone(), source }
    }
}

/// Removes a file; whether there was one. Looks first: where nothing can be removed, Linux says so whether something is there or
/// not.
fn remove_if_there(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        _ => fs::remove_file(path).map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_next_pin_is_whole_and_private_and_takes_the_place_of_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pin");
        fs::write(&path, "1234\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        // What a killed change left.
        fs::write(folder.path().join("pin.new.part"), "8").unwrap();
        let next = NextPin::of(&path);
        assert!(next.read().unwrap().is_none());
        next.discard().unwrap();
        next.stage(&Pin::new("8642").unwrap()).unwrap();
        assert_eq!(next.read().unwrap().unwrap().pin.expose(), "8642");
        assert_eq!(read_pin(&path).unwrap().pin.expose(), "1234");
        next.adopt().unwrap();
        assert_eq!(read_pin(&path).unwrap().pin.expose(), "8642");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o400);
        next.stage(&Pin::new("1111").unwrap()).unwrap();
        next.discard().unwrap();
        assert_eq!(read_pin(&path).unwrap().pin.expose(), "8642");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_written_is_told_with_the_cure() {
        let next = NextPin::of(Path::new("/proc/pin"));
        let error = next.stage(&Pin::new("1").unwrap()).unwrap_err();
        assert!(error.to_string().contains("casemate-keyd may write"), "{error}");
        next.discard().unwrap();
    }
}
