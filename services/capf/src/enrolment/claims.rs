use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::DeviceName;

/// The devices that have a session now: one each, so that wrong strings are counted one after the other and no two sessions
/// certify two keys at once.
#[derive(Clone, Default)]
pub(super) struct Claims(Arc<Mutex<HashSet<DeviceName>>>);

/// A device that is held by one session, until this is dropped.
pub(super) struct Claim {
    claims: Claims,
    device: DeviceName,
}

impl Claims {
    /// Holds `device`, if no other session does.
    pub(super) fn claim(&self, device: &DeviceName) -> Option<Claim> {
        self.held().insert(device.clone()).then(|| Claim { claims: self.clone(), device: device.clone() })
    }

    fn held(&self) -> MutexGuard<'_, HashSet<DeviceName>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claims.held().remove(&self.device);
    }
}
