use nix::sys::{
    prctl::set_dumpable,
    resource::{Resource, setrlimit},
};

use crate::KeydError;

/// Forbids dumps of this process's memory and attaching to it (prctl(2), `PR_SET_DUMPABLE`): the PIN, and with SoftHSM the
/// keys themselves, are in it.
pub(crate) fn forbid_dumps() -> Result<(), KeydError> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(KeydError::Harden)?;
    set_dumpable(false).map_err(KeydError::Harden)
}
