//! Files that are believed: read only when nobody else could have written them, written as a whole or not at all.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

use aws_lc_rs::digest::{Context, SHA256};
use nix::libc::O_NOFOLLOW;

use crate::PostError;

/// The most that a report or manifest may measure, in bytes.
const MOST: u64 = 4 * 1024 * 1024;
const WRITABLE_BY_OTHERS: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// Whether a file with this owner and mode can have been written by nobody but root and `me`.
///
/// A file of this process's own user is believed too, so that a developer without root can run everything under one uid: a
/// daemon that wrote it could lie to nobody but itself.
fn is_trusted(owner: u32, mode: u32, me: u32) -> bool {
    (owner == 0 || owner == me) && mode & WRITABLE_BY_OTHERS == 0
}

/// The same for the folder it lies in. In a sticky folder others may add files, but neither rename nor remove this one.
fn is_trusted_folder(owner: u32, mode: u32, me: u32) -> bool {
    (owner == 0 || owner == me) && (mode & WRITABLE_BY_OTHERS == 0 || mode & STICKY != 0)
}

/// Reads a file after looking, on the open file, at whose it is; symbolic links are not followed.
pub(crate) fn read_trusted(path: &Path) -> Result<Vec<u8>, PostError> {
    let me = nix::unistd::geteuid().as_raw();
    let folder = path.parent().unwrap_or(Path::new("/"));
    let metadata = fs::metadata(folder).map_err(PostError::file(folder))?;
    if !is_trusted_folder(metadata.uid(), metadata.mode(), me) {
        return Err(not_trusted(folder, &metadata));
    }
    let file = OpenOptions::new().read(true).custom_flags(O_NOFOLLOW).open(path).map_err(PostError::file(path))?;
    let metadata = file.metadata().map_err(PostError::file(path))?;
    if !metadata.is_file() || metadata.len() > MOST {
        return Err(PostError::NotAFile { path: path.to_owned() });
    }
    if !is_trusted(metadata.uid(), metadata.mode(), me) {
        return Err(not_trusted(path, &metadata));
    }
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes).map_err(PostError::file(path))?;
    Ok(bytes)
}

fn not_trusted(path: &Path, metadata: &fs::Metadata) -> PostError {
    PostError::NotTrusted { path: path.to_owned(), owner: metadata.uid(), mode: metadata.mode() & 0o7777 }
}

/// Replaces `path` by `bytes` with mode 0644: a new file beside it, written through to the disk, renamed, and the folder
/// written through.
pub(crate) fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), PostError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::DirBuilder::new().recursive(true).mode(0o755).create(folder).map_err(PostError::file(folder))?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = folder.join(name);
    remove(&new)?;
    let write = || -> std::io::Result<()> {
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o644).custom_flags(O_NOFOLLOW).open(&new)?;
        file.write_all(bytes)?;
        // The umask may have taken bits away; daemons of other users must be able to read it.
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(PostError::file(path))
}

/// Removes `path`; that it is not there is what was wanted.
pub(crate) fn remove(path: &Path) -> Result<(), PostError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(PostError::file(path)(error)),
        _ => Ok(()),
    }
}

/// SHA-256 of an open file, in lower-case hexadecimal.
pub(crate) fn sha256(mut file: &File) -> std::io::Result<String> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let read = file.read(&mut buffer)?;
        match buffer.get(..read) {
            Some(chunk) if read > 0 => context.update(chunk),
            _ => return Ok(hex::encode(context.finish())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn only_root_and_oneself_are_trusted_and_only_where_nobody_else_may_write() {
        assert!(is_trusted(0, 0o100_644, 600));
        assert!(is_trusted(600, 0o100_644, 600));
        assert!(!is_trusted(601, 0o100_644, 600));
        assert!(!is_trusted(0, 0o100_664, 600));
        assert!(!is_trusted(0, 0o100_646, 600));
        assert!(is_trusted_folder(0, 0o040_755, 600));
        assert!(is_trusted_folder(0, 0o041_777, 600));
        assert!(!is_trusted_folder(0, 0o040_777, 600));
        assert!(!is_trusted_folder(601, 0o041_777, 600));
    }

    #[test]
    fn a_link_a_folder_and_a_file_that_others_may_write_are_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("post.json");
        write_atomic(&path, b"{}").unwrap();
        assert_eq!(read_trusted(&path).unwrap(), b"{}");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o644);

        let link = folder.path().join("link.json");
        symlink(&path, &link).unwrap();
        assert!(matches!(read_trusted(&link), Err(PostError::File { .. })));

        let below = folder.path().join("folder.json");
        fs::create_dir(&below).unwrap();
        assert!(matches!(read_trusted(&below), Err(PostError::NotAFile { .. })));

        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(matches!(read_trusted(&path), Err(PostError::NotTrusted { mode: 0o666, .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(read_trusted(&path), Err(PostError::NotTrusted { .. })));
    }

    #[test]
    fn the_digest_is_sha_256() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        fs::write(&path, b"abc").unwrap();
        // FIPS 180-4 example "abc".
        assert_eq!(
            sha256(&File::open(&path).unwrap()).unwrap(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
