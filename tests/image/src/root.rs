use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::{overlay, units};

/// Where this machine's systemd has its units, which stand for the guest's.
const SYSTEM: &str = "usr/lib/systemd/system";

/// A root file system with systemd's units, the overlay's, and an empty program wherever a unit starts one.
pub struct Root(tempfile::TempDir);

impl Root {
    /// Made anew.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn new() -> io::Result<Self> {
        let root = Self(tempfile::tempdir()?);
        copy(&Path::new("/").join(SYSTEM), &root.path().join(SYSTEM))?;
        copy(&overlay(), root.path())?;
        for unit in units()? {
            for command in unit.commands() {
                let program = command.split_whitespace().next().unwrap_or_default();
                root.program(program)?;
            }
        }
        Ok(root)
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The file of one of our units, to be changed.
    #[must_use]
    pub fn unit(&self, name: &str) -> PathBuf {
        self.path().join(SYSTEM).join(name)
    }

    /// `systemd-analyze` looking at this root.
    ///
    /// # Errors
    /// It cannot be started: it is in Debian's package systemd.
    pub fn analyze(&self, arguments: &[&str]) -> io::Result<Output> {
        let mut command = Command::new("systemd-analyze");
        let command = command.arg("--no-pager").args(arguments).arg(format!("--root={}", self.path().display()));
        command.output().map_err(|error| {
            io::Error::new(error.kind(), format!("systemd-analyze of package systemd (.ci/install): {error}"))
        })
    }

    fn program(&self, path: &str) -> io::Result<()> {
        let to = self.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap_or(Path::new("/")))?;
        fs::write(&to, b"")?;
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755))
    }
}

/// Copies a folder into another; links stay links, and what is there already is replaced.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy(&from, &to)?;
            continue;
        }
        if fs::symlink_metadata(&to).is_ok() {
            fs::remove_file(&to)?;
        }
        if kind.is_symlink() {
            symlink(fs::read_link(&from)?, &to)?;
        } else {
            fs::copy(&from, &to)?;
        }
    }
    Ok(())
}
