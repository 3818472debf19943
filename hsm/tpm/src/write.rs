use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Writes a file of mode 0600 in one step, over what stands there.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = prepare(path, content)?;
    fs::rename(new, path)?;
    sync_parent(path)
}

/// Writes a file of mode 0600 in one step, unless something stands there: then it fails, and that is left as it is.
pub(crate) fn create(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = prepare(path, content)?;
    // Unlike a rename, a link never replaces.
    let linked = fs::hard_link(&new, path);
    fs::remove_file(new)?;
    linked?;
    sync_parent(path)
}

/// Syncs the folder, so that what was made in it or removed from it survives a power failure.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

fn prepare(path: &Path, content: &[u8]) -> io::Result<PathBuf> {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    let new = path.with_file_name(name);
    // What an interrupted write left may be linked to the finished file: it is removed, and never written to.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    Ok(new)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_finished_file_is_whole_private_and_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        create(&path, b"one").unwrap();
        assert_eq!(create(&path, b"two").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        // As a crash between link and removal leaves it.
        fs::hard_link(&path, folder.path().join(".key.new")).unwrap();
        assert!(create(&path, b"three").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"one");
        replace(&path, b"four").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"four");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
