use std::{fs, path::PathBuf};

use casemate_runtime::publish::write_atomically;

use crate::{Places, SetupError};

/// Puts the token's own file back where a power cut emptied it, while nobody uses the token. Gives the file that was put back.
///
/// SoftHSM 2.6 writes that file in place at each login: a machine that goes off in that moment leaves it empty, and the token with
/// all its keys would be gone (seen once in some 300 kills of the lab). A token in hardware has no such file.
///
/// # Errors
/// A file cannot be read or written.
pub fn mend(places: &Places) -> Result<Option<PathBuf>, SetupError> {
    let Some(object) = places.object()? else { return Ok(None) };
    let length = object.metadata().map_err(SetupError::file(&object))?.len();
    if length > 0 {
        return Ok(None);
    }
    let copy = fs::read(&places.copy).map_err(SetupError::file(&places.copy))?;
    write_atomically(&object, &copy, 0o600).map_err(SetupError::file(&object))?;
    Ok(Some(object))
}
