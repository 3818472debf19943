use std::{
    fs::{File, OpenOptions},
    io::Read,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use aws_lc_rs::hmac;
use casemate_hsm_api::Pin;
use nix::{fcntl::OFlag, unistd::geteuid};
use tss_esapi::structures::Auth;
use zeroize::{Zeroize, Zeroizing};

use crate::TpmError;

/// No PIN is longer, so that all tokens take the same.
const LONGEST: u64 = 1024;

/// Reads a PIN file: one line, in a regular file of mode 0400 or 0600 that belongs to the user of this process. What is checked
/// is the opened file, so nothing can be put in its place between check and use.
pub(crate) fn read_pin(path: &Path) -> Result<Pin, TpmError> {
    let unreadable = |source| TpmError::PinUnreadable { path: path.to_owned(), source };
    let refused = |detail: String| TpmError::PinFileUnsafe { path: path.to_owned(), detail };
    // Without O_NONBLOCK a pipe in the file's place would stop the daemon here.
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path).map_err(unreadable)?;
    let meta = file.metadata().map_err(unreadable)?;
    let (mode, own) = (meta.mode() & 0o7777, geteuid().as_raw());
    if !meta.is_file() || meta.uid() != own || !matches!(mode, 0o400 | 0o600) {
        return Err(refused(format!("it must be a regular file of user {own} with mode 0400 or 0600")));
    }
    let text = read_line(&file).map_err(unreadable)?;
    let pin = text.trim_end_matches(['\n', '\r']);
    if pin.is_empty() || text.len() as u64 > LONGEST || pin.contains(['\n', '\r', '\0']) {
        return Err(refused(format!("it must hold one line of 1 to {LONGEST} characters, the PIN")));
    }
    Ok(Pin::new(pin.to_owned()))
}

fn read_line(file: &File) -> std::io::Result<Zeroizing<String>> {
    // Room for all of it at once: a string that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(1025));
    file.take(LONGEST + 1).read_to_string(&mut text)?;
    Ok(text)
}

/// The authorization value that stands for a PIN: as long as a TPM takes one for a name of SHA-256, whatever the PIN's
/// length. Guessing it needs the TPM, which counts.
pub(crate) fn auth_value(pin: &Pin, salt: &[u8]) -> Auth {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, salt), pin.expose().as_bytes());
    let mut value: Zeroizing<Vec<u8>> = Zeroizing::new(tag.as_ref().to_vec());
    without_trailing_zero(&mut value);
    auth(&value)
}

/// A TPM takes trailing zeros off an authorization value (TPM 2.0 part 1, 19.6.4.3), so none of ours ends in one.
pub(crate) fn without_trailing_zero(value: &mut [u8]) {
    if let Some(last) = value.last_mut() {
        *last |= 1;
    }
}

/// The library's type of an authorization value, which it wipes; empty if the value is too long, which no caller's is.
pub(crate) fn auth(value: &[u8]) -> Auth {
    let mut copy = value.to_vec();
    let auth = Auth::try_from(copy.as_slice()).unwrap_or_default();
    copy.zeroize();
    auth
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    fn read(mode: u32, content: &str) -> Result<String, TpmError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pin");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        read_pin(&path).map(|pin| pin.expose().to_owned())
    }

    #[test]
    fn a_private_file_with_one_line_is_read_and_nothing_else() {
        assert_eq!(read(0o400, "12 34\n").unwrap(), "12 34");
        assert_eq!(read(0o600, "1234\r\n").unwrap(), "1234");
        for mode in [0o440, 0o604, 0o700, 0o4600] {
            assert!(matches!(read(mode, "1234\n"), Err(TpmError::PinFileUnsafe { .. })), "{mode:o}");
        }
        for content in ["", "\n", "1\n2\n", "1\0", &"1".repeat(1025)] {
            assert!(matches!(read(0o600, content), Err(TpmError::PinFileUnsafe { .. })));
        }
        assert!(matches!(read_pin(Path::new("/nonexistent/pin")), Err(TpmError::PinUnreadable { .. })));
        assert!(matches!(read_pin(Path::new("/dev/null")), Err(TpmError::PinFileUnsafe { .. })));
    }

    #[test]
    fn authorization_values_are_full_length_and_differ_by_pin_and_salt() {
        let value = |pin: &str, salt: &[u8]| auth_value(&Pin::new(pin.to_owned()), salt).value().to_vec();
        let long = value(&"9".repeat(1000), b"salt");
        assert_eq!(long.len(), 32);
        assert_ne!(long, value("9", b"salt"));
        assert_ne!(value("9", b"salt"), value("9", b"other"));
        for pin in 0..64 {
            assert_eq!(value(&pin.to_string(), b"salt").last().unwrap() & 1, 1);
        }
    }
}
