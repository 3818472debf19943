//! One check among others: which keys on a token are its own, which are of checks that died, and which are neither.
//!
//! A check has a label of its own, which the keys that it makes carry, and a file in the state folder with the name of the token, which
//! it keeps locked as long as it lives: the kernel lets go of the lock when the process ends, however it ends. So a file that nobody has
//! locked is of a check that died, and what it left is removed by the next one on that token. Keys of a check without a file here are
//! another machine's, which may be at it now: they are told of and not touched.

use std::{
    fs::{self, DirEntry, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use aws_lc_rs::rand;
use casemate_hsm_pkcs11::TokenName;
use nix::fcntl::{Flock, FlockArg};

use crate::error::CheckError;

/// How the label of every key that a check makes or imports begins.
pub(crate) const LABEL: &str = "casemate hsm check";

/// How the name of a check's file begins.
const FILE: &str = "run-";

/// No token's name is longer.
const LONGEST: u64 = 4096;

/// A check, with its lock.
pub(crate) struct Run {
    path: PathBuf,
    label: String,
    _lock: Flock<File>,
}

impl Run {
    /// Begins a check of `token`, so that others take its keys for those of somebody who lives.
    pub(crate) fn begin(state: &Path, token: &TokenName) -> Result<Self, CheckError> {
        let mut id = [0; 8];
        rand::fill(&mut id).map_err(|_| CheckError::Random)?;
        let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        let path = state.join(format!("{FILE}{id}"));
        let failed = |source| CheckError::Run { path: path.clone(), source };
        // Nobody finds it before it is locked and whole.
        let new = state.join(format!("new-{id}"));
        let lock = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).and_then(locked);
        let mut lock = lock.map_err(failed)?;
        let named = serde_json::to_vec(token).map_err(io::Error::other);
        named.and_then(|named| lock.write_all(&named)).and_then(|()| fs::rename(&new, &path)).map_err(failed)?;
        Ok(Self { label: label(&id), path: path.clone(), _lock: lock })
    }

    /// The checks of `token` that died, locked, so that nobody else removes the same keys at the same time.
    pub(crate) fn dead(state: &Path, token: &TokenName) -> Result<Vec<Self>, CheckError> {
        let mut dead = Vec::new();
        for (id, entry) in files(state)? {
            let path = entry.path();
            // One that is locked lives; one that is gone has ended meanwhile.
            let Ok(mut lock) = File::open(&path).and_then(locked) else { continue };
            let mut text = Vec::new();
            let read = (&mut *lock).take(LONGEST).read_to_end(&mut text);
            read.map_err(|source| CheckError::Run { path: path.clone(), source })?;
            if serde_json::from_slice::<TokenName>(&text).is_ok_and(|named| named == *token) {
                dead.push(Self { label: label(&id), path, _lock: lock });
            }
        }
        Ok(dead)
    }

    /// Labels of all checks of this machine, whether they live or not.
    pub(crate) fn labels(state: &Path) -> Result<Vec<String>, CheckError> {
        Ok(files(state)?.into_iter().map(|(id, _)| label(&id)).collect())
    }

    /// Of its keys.
    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    /// Nothing of it is left on the token.
    pub(crate) fn end(self) -> Result<(), CheckError> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(CheckError::Run { path: self.path, source: error })
            }
            _ => Ok(()),
        }
    }
}

fn label(id: &str) -> String {
    format!("{LABEL} {id}")
}

fn locked(file: File) -> io::Result<Flock<File>> {
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error.into())
}

/// The files of checks, by the identifier of each.
fn files(state: &Path) -> Result<Vec<(String, DirEntry)>, CheckError> {
    let failed = |source| CheckError::Run { path: state.to_owned(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(state).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if let Some(id) = entry.file_name().to_str().and_then(|name| name.strip_prefix(FILE)) {
            files.push((id.to_owned(), entry));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(serial: &str) -> TokenName {
        TokenName::Both { label: "t".to_owned(), serial: serial.to_owned() }
    }

    #[test]
    fn a_check_is_dead_when_nobody_holds_its_lock_and_only_on_its_own_token() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (token("1"), token("2"));
        let dead = |token: &TokenName| Run::dead(folder.path(), token).unwrap();
        let lives = Run::begin(folder.path(), &one).unwrap();
        let dies = Run::begin(folder.path(), &one).unwrap();
        assert_ne!(lives.label(), dies.label());
        assert!(dead(&one).is_empty());
        let label = dies.label().to_owned();
        drop(dies);
        assert!(dead(&other).is_empty(), "another token's");
        let found = dead(&one);
        assert_eq!(found.iter().map(Run::label).collect::<Vec<_>>(), [label]);
        assert!(dead(&one).is_empty(), "somebody is at it");
        assert_eq!(Run::labels(folder.path()).unwrap().len(), 2);
        found.into_iter().for_each(|run| run.end().unwrap());
        assert!(dead(&one).is_empty());
        lives.end().unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
