use std::{collections::HashMap, sync::Arc};

use casemate_hsm_api::{HsmError, KeyAlgorithm, KeyId};
use cryptoki::{context::Pkcs11, object::ObjectHandle, session::Session};

use crate::{
    error::{classify, is_no_room},
    pool::{Shared, Target},
    token,
};

/// What one thread of the pool works with.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    open: Option<Open>,
}

/// A session, and the keys that it has looked up.
pub(crate) struct Open {
    generation: u64,
    pub(crate) session: Session,
    pub(crate) target: Target,
    pub(crate) keys: HashMap<KeyId, CachedKey>,
}

/// A whole key pair's private half.
#[derive(Clone, Copy)]
pub(crate) struct CachedKey {
    pub(crate) private: ObjectHandle,
    pub(crate) algorithm: KeyAlgorithm,
}

impl Open {
    /// The module's error in the words of the trait.
    pub(crate) fn failed(&self, error: &cryptoki::error::Error) -> HsmError {
        classify(&self.target.serial, error)
    }

    pub(crate) fn serial(&self) -> String {
        self.target.serial.as_ref().to_owned()
    }
}

impl Worker {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared, open: None }
    }

    pub(crate) fn context(&self) -> &Pkcs11 {
        self.shared.context()
    }

    /// Starts the module anew, if that is nobody else's loss; whether it did.
    pub(crate) fn restart_module(&self) -> cryptoki::error::Result<bool> {
        self.shared.restart_module()
    }

    pub(crate) fn target(&self) -> Result<Target, HsmError> {
        self.shared.target().map(|(_, target)| target)
    }

    /// Generation of the open session.
    pub(crate) fn generation(&self) -> Option<u64> {
        self.open.as_ref().map(|open| open.generation)
    }

    /// Opens the session that the next job needs, if it is not open yet; whether the token has no room for it and other threads have
    /// sessions to wait for. Any other failure is left to the job, which finds it again.
    pub(crate) fn finds_no_room(&mut self) -> bool {
        matches!(self.open(), Err(error) if is_no_room(&error)) && self.shared.has_sessions()
    }

    pub(crate) fn close(&mut self) {
        if let Some(open) = self.open.take() {
            drop(open);
            self.shared.session_closed();
        }
    }

    /// Runs `work` on this thread's session. After any failure of the token the session is closed, so that no half-done
    /// operation is left in it, and a token that went away is told from one that failed: some modules answer a call to a
    /// vanished token with a general error, or with no objects at all.
    pub(crate) fn with_session<T>(
        &mut self,
        work: impl FnOnce(&mut Open) -> Result<T, HsmError>,
    ) -> Result<T, HsmError> {
        let result = self.open().and_then(work);
        match &result {
            Err(HsmError::Device { .. } | HsmError::KeyMissing { .. } | HsmError::TokenFull { .. }) => {
                self.close();
                let target = self.target()?;
                token::present(self.context(), &target)?;
            }
            Err(HsmError::TokenAbsent { .. } | HsmError::Unsupported { .. }) => self.close(),
            _ => {}
        }
        result
    }

    fn open(&mut self) -> Result<&mut Open, HsmError> {
        let (generation, target) = self.shared.target()?;
        if self.generation() != Some(generation) {
            self.close();
        }
        let open = match self.open.take() {
            Some(open) => open,
            None => {
                let session = match self.shared.only_session() {
                    Some(only) => only,
                    None => {
                        self.context().open_rw_session(target.slot).map_err(|error| classify(&target.serial, &error))?
                    }
                };
                self.shared.session_opened();
                Open { generation, session, target, keys: HashMap::new() }
            }
        };
        Ok(self.open.insert(open))
    }
}
