use std::{fs, path::PathBuf};

use casemate_harness::{Lab, LabError, TOKEN_LABEL, TOKEN_MODULE};

/// A hand at the slot: it pulls the token, puts another in its place, or destroys a key. SoftHSM's slot is a folder, and everything
/// is done with SoftHSM's and OpenSC's own tools.
pub struct Token<'a> {
    lab: &'a Lab,
    /// The right user PIN, whatever the PIN file says later.
    pin: String,
}

impl<'a> Token<'a> {
    /// The token of `lab`, whose PIN file holds the right PIN now.
    ///
    /// # Errors
    /// The PIN file cannot be read.
    pub fn of(lab: &'a Lab) -> Result<Self, LabError> {
        let path = lab.layout.pin();
        let pin = fs::read_to_string(&path).map_err(LabError::file(&path))?.trim().to_owned();
        Ok(Self { lab, pin })
    }

    fn drawer(&self) -> PathBuf {
        self.lab.layout.root.join("drawer")
    }

    /// Pulls the token: its slot is empty from now on.
    ///
    /// # Errors
    /// It is not there.
    pub fn pull(&self) -> Result<(), LabError> {
        let (layout, slot) = (&self.lab.layout, self.lab.layout.token());
        fs::rename(&slot, self.drawer()).map_err(LabError::file(&slot))?;
        fs::create_dir(&slot).map_err(LabError::file(&slot))?;
        layout.own(&slot, 0o700, Some(layout.owner.uid("keyd")))
    }

    /// Puts the pulled token back, in place of whatever is there now.
    ///
    /// # Errors
    /// None was pulled.
    pub fn put_back(&self) -> Result<(), LabError> {
        let slot = self.lab.layout.token();
        fs::remove_dir_all(&slot).map_err(LabError::file(&slot))?;
        fs::rename(self.drawer(), &slot).map_err(LabError::file(&slot))
    }

    /// Makes another token in the empty slot: same label, same PIN, no key.
    ///
    /// # Errors
    /// As `softhsm2-util` says.
    pub fn put_another(&self) -> Result<(), LabError> {
        let init = ["--init-token", "--free", "--label", TOKEN_LABEL, "--pin", &self.pin, "--so-pin", "97531000"];
        self.lab.beside_keyd("softhsm2-util", &init).map(drop)
    }

    /// Destroys both halves of the key with this identifier, in hexadecimal.
    ///
    /// # Errors
    /// There is no such key.
    pub fn destroy(&self, key_id: &str) -> Result<(), LabError> {
        for half in ["privkey", "pubkey"] {
            self.tool(&["--login", "--pin", &self.pin, "--delete-object", "--type", half, "--id", key_id])?;
        }
        Ok(())
    }

    /// A login with the right PIN by somebody else, which takes the token's warnings away.
    ///
    /// # Errors
    /// The token refuses it.
    pub fn log_in(&self) -> Result<(), LabError> {
        self.tool(&["--login", "--pin", &self.pin, "--list-objects"]).map(drop)
    }

    /// The token's flags in words, such as `user PIN count low`.
    ///
    /// # Errors
    /// The token is not there.
    pub fn flags(&self) -> Result<String, LabError> {
        let slots = self.tool(&["--list-token-slots"])?;
        Ok(slots.lines().find(|line| line.contains("token flags")).unwrap_or_default().to_owned())
    }

    /// Writes `pin` into keyd's PIN file, as a new file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_pin_file(&self, pin: &str) -> Result<(), LabError> {
        let (layout, path) = (&self.lab.layout, self.lab.layout.pin());
        fs::remove_file(&path).and_then(|()| fs::write(&path, pin)).map_err(LabError::file(&path))?;
        layout.own(&path, 0o400, Some(layout.owner.uid("keyd")))
    }

    /// Writes the right PIN into keyd's PIN file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn correct_pin_file(&self) -> Result<(), LabError> {
        self.write_pin_file(&self.pin)
    }

    fn tool(&self, arguments: &[&str]) -> Result<String, LabError> {
        let common = ["--module", TOKEN_MODULE, "--token-label", TOKEN_LABEL];
        self.lab.beside_keyd("pkcs11-tool", &[&common, arguments].concat())
    }
}
