use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use casemate_post::Passed;
use zeroize::Zeroizing;

use crate::{Places, SetupError, places::holds_something};

/// 32 characters, so that each is five random bits: no vowels that make words, none that look like another.
const LETTERS: &[u8; 32] = b"23456789bcdfghjkmnpqrstvwxzBCDFG";

/// 120 bits.
const LENGTH: usize = 24;

/// The user's PIN in the folder of PINs.
pub(crate) fn user(folder: &Path) -> PathBuf {
    folder.join("pin")
}

/// The security officer's PIN in the folder of PINs.
pub(crate) fn officer(folder: &Path) -> PathBuf {
    folder.join("officer-pin")
}

/// Writes a new PIN of the user and one of the security officer into `folder`, readable for this user alone.
///
/// # Errors
/// The machine has a token, or one whose PIN is gone; a file; no random bytes.
pub fn make_pins(_passed: &Passed, places: &Places, folder: &Path) -> Result<(), SetupError> {
    if places.credential.exists() {
        return Err(SetupError::HasToken { credential: places.credential.clone() });
    }
    if !places.unfinished.exists() && !places.in_tokens()?.is_empty() {
        return Err(SetupError::TokenWithoutPin {
            tokens: places.tokens.clone(),
            credential: places.credential.clone(),
        });
    }
    // Before the seal is begun, so that an interrupted one is known to be ours.
    if !holds_something(&places.unfinished)? {
        fs::write(&places.unfinished, b"").map_err(SetupError::file(&places.unfinished))?;
    }
    for path in [user(folder), officer(folder)] {
        write_private(&path, new_pin()?.as_slice()).map_err(SetupError::file(path))?;
    }
    Ok(())
}

fn new_pin() -> Result<Zeroizing<[u8; LENGTH]>, SetupError> {
    let mut pin = Zeroizing::new([0; LENGTH]);
    aws_lc_rs::rand::fill(pin.as_mut()).map_err(|_| SetupError::NoRandom)?;
    // A byte's low five bits are as random as the byte.
    for byte in pin.iter_mut() {
        *byte = LETTERS.get(usize::from(*byte & 31)).copied().unwrap_or(b'2');
    }
    Ok(pin)
}

fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o400).open(path)?.write_all(content)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, os::unix::fs::PermissionsExt};

    use super::*;

    fn places(root: &Path) -> Places {
        let places = Places {
            tokens: root.join("softhsm"),
            credential: root.join("pin.cred"),
            unfinished: root.join("pin.cred.new"),
            copy: root.join("token.object"),
        };
        fs::create_dir(&places.tokens).unwrap();
        places
    }

    #[test]
    fn pins_are_long_private_and_never_the_same() {
        let root = tempfile::tempdir().unwrap();
        let places = places(root.path());
        let mut seen = BTreeSet::new();
        for _ in 0..4 {
            // Also over those that an interrupted run left.
            make_pins(&Passed::testing(), &places, root.path()).unwrap();
            for path in [user(root.path()), officer(root.path())] {
                assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o400);
                let pin = fs::read(path).unwrap();
                assert!(pin.len() == LENGTH && pin.iter().all(|byte| LETTERS.contains(byte)));
                seen.insert(pin);
            }
        }
        assert_eq!(seen.len(), 8);
    }

    #[test]
    fn a_letter_stands_once() {
        assert_eq!(LETTERS.iter().collect::<BTreeSet<_>>().len(), 32);
    }

    #[test]
    fn a_machine_with_a_token_gets_no_new_pins() {
        let root = tempfile::tempdir().unwrap();
        let places = places(root.path());
        let refused = || make_pins(&Passed::testing(), &places, root.path()).unwrap_err();
        fs::create_dir(places.tokens.join("0a1b")).unwrap();
        assert!(matches!(refused(), SetupError::TokenWithoutPin { .. }));
        fs::write(&places.credential, b"sealed").unwrap();
        assert!(matches!(refused(), SetupError::HasToken { .. }));
        assert!(!user(root.path()).exists() && places.tokens.join("0a1b").exists());
        assert!(!places.unfinished.exists(), "nothing is begun, and so nothing will be removed");
    }
}
