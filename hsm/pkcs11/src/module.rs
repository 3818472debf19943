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

use crate::{Pkcs11Error, TokenName};

/// What this process has loaded. A module stays initialised until the process ends: other code, and threads that hang in it,
/// may still be using it.
static LOADED: Mutex<BTreeMap<PathBuf, Loaded>> = Mutex::new(BTreeMap::new());

struct Loaded {
    context: Pkcs11,
    /// The tokens for which there is a lease.
    tokens: Vec<TokenName>,
}

/// The right to use one token of a module in this process: there is one a token. All leases of a module have one context, for
/// `C_Initialize` and `C_Finalize` concern the whole process (PKCS#11 v2.40, 5.4).
pub(crate) struct Lease {
    path: PathBuf,
    context: Pkcs11,
    token: TokenName,
}

impl Lease {
    pub(crate) const fn context(&self) -> &Pkcs11 {
        &self.context
    }

    /// Finalises and initialises the module, unless another token of it is leased; whether it did. Whoever calls has no session
    /// and no call in it. No lease is given meanwhile.
    pub(crate) fn restart(&self) -> cryptoki::error::Result<bool> {
        let loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.get(&self.path).is_none_or(|module| module.tokens.len() > 1) {
            return Ok(false);
        }
        match self.context.clone().finalize() {
            // An earlier restart came no further than this.
            Err(Error::Pkcs11(RvError::CryptokiNotInitialized, _)) => {}
            finalized => finalized?,
        }
        initialize(&self.context)?;
        Ok(true)
    }

    /// Gives the token to the next who asks. Left out when a call still hangs in the module.
    pub(crate) fn release(&self) {
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = loaded.get_mut(&self.path) {
            module.tokens.retain(|token| *token != self.token);
        }
    }
}

/// Loads and initialises the module at `path`, or takes it as an earlier lease left it or another token's has it.
pub(crate) fn lease(path: &Path, token: &TokenName) -> Result<Lease, Pkcs11Error> {
    let broken = |detail: String| Pkcs11Error::Module { path: path.to_owned(), detail };
    // Two names of one file are one module.
    let path = fs::canonicalize(path).map_err(|error| broken(error.to_string()))?;
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(module) = loaded.get_mut(&path) {
        if module.tokens.contains(token) {
            return Err(Pkcs11Error::AlreadyOpen { path, token: token.to_string() });
        }
        module.tokens.push(token.clone());
        return Ok(Lease { path, context: module.context.clone(), token: token.clone() });
    }
    let context = Pkcs11::new(&path).map_err(|error| broken(error.to_string()))?;
    initialize(&context).map_err(|error| match error {
        Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _) => Pkcs11Error::AlreadyInitialized { path: path.clone() },
        other => broken(other.to_string()),
    })?;
    loaded.insert(path.clone(), Loaded { context: context.clone(), tokens: vec![token.clone()] });
    Ok(Lease { path, context, token: token.clone() })
}

/// `C_Initialize`, with locking by the operating system: sessions are used from several threads.
fn initialize(context: &Pkcs11) -> cryptoki::error::Result<()> {
    context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_module_is_refused() {
        let token = TokenName::Label("t".into());
        let error = lease(Path::new("/nonexistent/module.so"), &token).map(|_| ()).unwrap_err();
        assert!(matches!(error, Pkcs11Error::Module { .. }));
        let error = lease(Path::new("/dev/null"), &token).map(|_| ()).unwrap_err();
        assert!(matches!(error, Pkcs11Error::Module { .. }));
    }
}
