use aws_lc_rs::rand;
use casemate_hsm_api::{Backup, HsmError, KeyAlgorithm, KeyId, KeySpec, KeyStore};
use casemate_hsm_pkcs11::{Pkcs11Files, Pkcs11Settings, Pkcs11Store};

use crate::{error::CheckError, view::View};

/// The token, opened as casemate-keyd opens it.
pub(crate) struct Opened {
    settings: Pkcs11Settings,
    files: Pkcs11Files,
    /// Nothing only while it is opened anew: a process has one store a token.
    store: Option<Pkcs11Store>,
}

/// Why there is no key, and whether that is a wrong answer.
pub(crate) struct Refused {
    pub(crate) why: String,
    pub(crate) is_wrong: bool,
}

impl Opened {
    pub(crate) fn new(settings: Pkcs11Settings, files: Pkcs11Files) -> Result<Self, CheckError> {
        let store = Some(Pkcs11Store::open(settings.clone(), files.clone())?);
        Ok(Self { settings, files, store })
    }

    pub(crate) fn store(&self) -> Result<&Pkcs11Store, CheckError> {
        self.store.as_ref().ok_or_else(|| CheckError::NoToken("the token could not be opened again".to_owned()))
    }

    /// After a wrong answer, which ends a store, or with other settings.
    fn open_again(&mut self) -> Result<(), CheckError> {
        self.store = None;
        self.store = Some(Pkcs11Store::open(self.settings.clone(), self.files.clone())?);
        Ok(())
    }

    /// Opens the token again in a module that was just started.
    pub(crate) fn restart_module(&mut self, view: &View) -> Result<(), CheckError> {
        self.store = None;
        view.restart()?;
        self.open_again()
    }

    /// Makes a key. What ends the token's use ends the check.
    pub(crate) fn make(&mut self, label: &str, spec: KeySpec) -> Result<Result<KeyId, Refused>, CheckError> {
        let mut id = [0; 16];
        rand::fill(&mut id).map_err(|_| CheckError::Random)?;
        match self.store()?.generate(KeyId(id), label, spec) {
            Ok(_) => Ok(Ok(KeyId(id))),
            Err(error) if error.is_absence() => Err(error.into()),
            Err(error) => {
                if error.is_error_state() {
                    self.open_again()?;
                }
                let is_wrong = error.is_error_state() || matches!(error, HsmError::KeyNotAsSpecified { .. });
                Ok(Err(Refused { why: error.to_string(), is_wrong }))
            }
        }
    }

    /// Finds out whether the module makes keys that sign and do nothing else, and takes others if it makes only such. Whether it
    /// does that.
    pub(crate) fn takes_keys_that_decrypt(&mut self, label: &str, algorithm: KeyAlgorithm) -> Result<bool, CheckError> {
        let spec = KeySpec { algorithm, backup: Backup::None };
        if self.make(label, spec)?.is_ok() {
            return Ok(false);
        }
        self.settings.sign_only = false;
        self.open_again()?;
        let made = self.make(label, spec)?.is_ok();
        if !made {
            // Neither way: the strict one it is, and each algorithm says for itself what is wrong.
            self.settings.sign_only = true;
            self.open_again()?;
        }
        Ok(made)
    }
}
