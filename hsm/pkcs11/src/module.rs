use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error, RvError},
};

use crate::Pkcs11Error;

/// What this process has loaded. A module stays initialised until the process ends: other code, and threads that hang in it,
/// may still be using it.
static LOADED: Mutex<BTreeMap<PathBuf, Loaded>> = Mutex::new(BTreeMap::new());

struct Loaded {
    context: Pkcs11,
    leased: bool,
}

/// The right to use a module in this process: there is one.
pub(crate) struct Lease {
    path: PathBuf,
    context: Pkcs11,
}

impl Lease {
    pub(crate) const fn context(&self) -> &Pkcs11 {
        &self.context
    }

    /// Gives the module to the next who asks. Left out when a call still hangs in it.
    pub(crate) fn release(&self) {
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = loaded.get_mut(&self.path) {
            module.leased = false;
        }
    }
}

/// Loads and initialises the module at `path`, or takes the one of an earlier, released lease.
pub(crate) fn lease(path: &Path) -> Result<Lease, Pkcs11Error> {
    let broken = |detail: String| Pkcs11Error::Module { path: path.to_owned(), detail };
    // Two names of one file are one module.
    let path = fs::canonicalize(path).map_err(|error| broken(error.to_string()))?;
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(module) = loaded.get_mut(&path) {
        if module.leased {
            return Err(Pkcs11Error::AlreadyOpen { path });
        }
        module.leased = true;
        return Ok(Lease { path, context: module.context.clone() });
    }
    let context = Pkcs11::new(&path).map_err(|error| broken(error.to_string()))?;
    initialize(&context).map_err(|error| match error {
        Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _) => Pkcs11Error::AlreadyInitialized { path: path.clone() },
        other => broken(other.to_string()),
    })?;
    loaded.insert(path.clone(), Loaded { context: context.clone(), leased: true });
    Ok(Lease { path, context })
}

/// `C_Initialize`, with locking by the operating system: sessions are used from several threads.
pub(crate) fn initialize(context: &Pkcs11) -> cryptoki::error::Result<()> {
    context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_module_is_refused() {
        let error = lease(Path::new("/nonexistent/module.so")).map(|_| ()).unwrap_err();
        assert!(matches!(error, Pkcs11Error::Module { .. }));
        let error = lease(Path::new("/dev/null")).map(|_| ()).unwrap_err();
        assert!(matches!(error, Pkcs11Error::Module { .. }));
    }
}
