use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use casemate_hsm_api::KeyId;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{TpmError, frame, write};

/// No file of ours is longer: the largest blob is that of an RSA-4096 key, below 4 KiB in hexadecimal.
const LONGEST: u64 = 16 * 1024;

/// The file `token`: what the PIN opens.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct TokenRecord {
    pub(crate) label: String,
    /// Serial of the TPM.
    pub(crate) serial: String,
    /// Goes into the PIN's authorization value.
    #[serde(with = "hex::serde")]
    pub(crate) salt: Vec<u8>,
    /// `TPMT_PUBLIC` of the sealed object.
    #[serde(with = "hex::serde")]
    pub(crate) public: Vec<u8>,
    /// Content of its `TPM2B_PRIVATE`.
    #[serde(with = "hex::serde")]
    pub(crate) private: Vec<u8>,
}

/// The file `ID.public`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct PublicRecord {
    pub(crate) id: String,
    pub(crate) label: String,
    /// Serial of the TPM that made the key.
    pub(crate) serial: String,
    /// `TPMT_PUBLIC`.
    #[serde(with = "hex::serde")]
    pub(crate) public: Vec<u8>,
}

/// The file `ID.private`, written before the public one.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct PrivateRecord {
    pub(crate) id: String,
    /// Serial of the TPM that made the key.
    pub(crate) serial: String,
    /// Content of its `TPM2B_PRIVATE`.
    #[serde(with = "hex::serde")]
    pub(crate) private: Vec<u8>,
}

/// What stands under an identifier.
#[derive(Debug)]
pub(crate) enum Blobs {
    Nothing,
    Half(PathBuf),
    Pair(PublicRecord, PrivateRecord),
}

/// Tells whether a key's files are still the ones that were read: device, inode, size and time of change of both.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Stamp([(u64, u64, u64, i64, i64); 2]);

/// The folder of a token, locked for one store.
pub(crate) struct Folder {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Folder {
    /// Takes the folder, and makes it (mode 0700) if `make` says so and it is not there.
    pub(crate) fn take(path: &Path, make: bool) -> Result<Self, TpmError> {
        let failed = |source| TpmError::File { path: path.to_owned(), source };
        if make {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        }
        if !path.is_dir() {
            return Err(TpmError::NotInitialized { folder: path.to_owned() });
        }
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path.join(".lock"));
        let lock = Flock::lock(lock.map_err(failed)?, FlockArg::LockExclusiveNonblock)
            .map_err(|_| TpmError::InUse { folder: path.to_owned() })?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The token's record, if there is one.
    pub(crate) fn token(&self) -> Result<Option<TokenRecord>, TpmError> {
        read(&self.path.join("token"))
    }

    pub(crate) fn create_token(&self, record: &TokenRecord) -> Result<(), TpmError> {
        let path = self.path.join("token");
        write::create(&path, &frame::seal(record)).map_err(|source| TpmError::File { path, source })
    }

    /// Has `record` on disk, to take the token's place.
    pub(crate) fn stage_token(&self, record: &TokenRecord) -> Result<(), TpmError> {
        let path = self.staged();
        write::replace(&path, &frame::seal(record)).map_err(|source| TpmError::File { path, source })
    }

    /// Whether a record was staged that took no token's place.
    pub(crate) fn has_staged(&self) -> bool {
        self.staged().exists()
    }

    /// Puts the staged record into the token's place, in one step.
    pub(crate) fn commit_token(&self) -> Result<(), TpmError> {
        let path = self.path.join("token");
        fs::rename(self.staged(), &path)
            .and_then(|()| write::sync_parent(&path))
            .map_err(|source| TpmError::File { path, source })
    }

    /// Removes the staged record.
    pub(crate) fn drop_staged(&self) -> Result<(), TpmError> {
        self.remove(&self.staged())
    }

    fn staged(&self) -> PathBuf {
        self.path.join("token.next")
    }

    /// What stands under `id`. Both files are read, and have to name it.
    pub(crate) fn key(&self, id: KeyId) -> Result<Blobs, TpmError> {
        let (public_path, private_path) = self.paths(id);
        let public: Option<PublicRecord> = read(&public_path)?;
        let private: Option<PrivateRecord> = read(&private_path)?;
        let named = |path: &Path, name: &str| {
            if name == id.to_string() { Ok(()) } else { Err(damaged(path, "it is the file of another key")) }
        };
        public.as_ref().map_or(Ok(()), |record| named(&public_path, &record.id))?;
        private.as_ref().map_or(Ok(()), |record| named(&private_path, &record.id))?;
        Ok(match (public, private) {
            (None, None) => Blobs::Nothing,
            (Some(_), None) => Blobs::Half(public_path),
            (None, Some(_)) => Blobs::Half(private_path),
            (Some(public), Some(private)) => Blobs::Pair(public, private),
        })
    }

    /// Writes both files of a new key. Interrupted in between, it leaves a half.
    pub(crate) fn create_key(&self, id: KeyId, public: &PublicRecord, private: &PrivateRecord) -> Result<(), TpmError> {
        let (public_path, private_path) = self.paths(id);
        write::create(&private_path, &frame::seal(private))
            .map_err(|source| TpmError::File { path: private_path, source })?;
        write::create(&public_path, &frame::seal(public)).map_err(|source| TpmError::File { path: public_path, source })
    }

    pub(crate) fn remove(&self, path: &Path) -> Result<(), TpmError> {
        fs::remove_file(path)
            .and_then(|()| write::sync_parent(path))
            .map_err(|source| TpmError::File { path: path.to_owned(), source })
    }

    /// Identifiers of which a file is there, in order.
    pub(crate) fn ids(&self) -> Result<Vec<KeyId>, TpmError> {
        let failed = |source| TpmError::File { path: self.path.clone(), source };
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let id = name
                .to_str()
                .and_then(|name| name.split_once('.'))
                .and_then(|(id, kind)| if matches!(kind, "public" | "private") { KeyId::from_hex(id) } else { None });
            ids.extend(id);
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    /// The present stamp of a key's files; nothing unless both are there.
    pub(crate) fn stamp(&self, id: KeyId) -> Option<Stamp> {
        let (public, private) = self.paths(id);
        let of = |path: &Path| {
            fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino(), meta.size(), meta.ctime(), meta.ctime_nsec()))
        };
        Some(Stamp([of(&public)?, of(&private)?]))
    }

    fn paths(&self, id: KeyId) -> (PathBuf, PathBuf) {
        (self.path.join(format!("{id}.public")), self.path.join(format!("{id}.private")))
    }

    /// The public file, for errors.
    pub(crate) fn public_path(&self, id: KeyId) -> PathBuf {
        self.paths(id).0
    }

    /// The private file, for errors.
    pub(crate) fn private_path(&self, id: KeyId) -> PathBuf {
        self.paths(id).1
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, TpmError> {
    let mut content = Vec::new();
    match File::open(path).and_then(|file| file.take(LONGEST).read_to_end(&mut content)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(TpmError::File { path: path.to_owned(), source }),
        Ok(_) => {}
    }
    frame::open(&content).map(Some).map_err(|detail| damaged(path, &detail))
}

/// The error for a file that is not what it should be.
pub(crate) fn damaged(path: &Path, detail: &str) -> TpmError {
    TpmError::Damaged { path: path.to_owned(), detail: detail.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: KeyId = KeyId([0xab; 16]);

    fn records(id: KeyId) -> (PublicRecord, PrivateRecord) {
        let (id, serial) = (id.to_string(), "00".to_owned());
        let public = PublicRecord { id: id.clone(), label: "k".into(), serial: serial.clone(), public: vec![1; 90] };
        (public, PrivateRecord { id, serial, private: vec![2; 200] })
    }

    #[test]
    fn a_key_is_nothing_a_half_or_a_pair_and_never_overwritten() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::take(temporary.path(), false).unwrap();
        let (public, private) = records(ID);
        assert!(matches!(folder.key(ID).unwrap(), Blobs::Nothing));
        assert!(folder.stamp(ID).is_none());
        folder.create_key(ID, &public, &private).unwrap();
        assert!(matches!(folder.key(ID).unwrap(), Blobs::Pair(found, _) if found == public));
        let stamp = folder.stamp(ID).unwrap();
        assert!(folder.create_key(ID, &public, &private).is_err());
        assert_eq!(folder.stamp(ID).unwrap(), stamp);
        assert_eq!(folder.ids().unwrap(), [ID]);
        folder.remove(&folder.public_path(ID)).unwrap();
        assert!(matches!(folder.key(ID).unwrap(), Blobs::Half(path) if path == folder.private_path(ID)));
        assert_eq!(folder.ids().unwrap(), [ID]);
    }

    #[test]
    fn a_damaged_or_exchanged_file_is_told_and_stays() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::take(temporary.path(), false).unwrap();
        let other = KeyId([1; 16]);
        for id in [ID, other] {
            let (public, private) = records(id);
            folder.create_key(id, &public, &private).unwrap();
        }
        fs::copy(folder.private_path(other), folder.private_path(ID)).unwrap();
        assert!(matches!(folder.key(ID), Err(TpmError::Damaged { .. })), "the file of another key");
        let path = folder.public_path(other);
        let content = fs::read(&path).unwrap();
        fs::write(&path, &content[..content.len() / 2]).unwrap();
        assert!(matches!(folder.key(other), Err(TpmError::Damaged { .. })));
        assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 5, "four files and the lock");
    }

    #[test]
    fn a_folder_has_one_store() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("tpm");
        assert!(matches!(Folder::take(&path, false), Err(TpmError::NotInitialized { .. })));
        let first = Folder::take(&path, true).unwrap();
        assert!(matches!(Folder::take(&path, false), Err(TpmError::InUse { .. })));
        drop(first);
        Folder::take(&path, false).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
    }
}
