//! Which binaries are installed, with their digests.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, OpenOptions},
    io::ErrorKind,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use nix::libc::O_NOFOLLOW;
use serde::{Deserialize, Serialize};

use crate::{PostError, file};

/// The manifest's name, within the folder of the binaries.
pub const MANIFEST_FILE: &str = "manifest.json";

/// One installed binary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Binary {
    /// SHA-256 of the file, lower-case hexadecimal.
    pub sha256: String,
    /// Whether it is a daemon: it is run once with `--self-test`.
    pub self_test: bool,
}

/// The digests of the installed binaries, made by whoever installs them.
///
/// A binary is an executable regular file of the folder, not of those below, named `casemate` (the console) or
/// `casemate-*` (a daemon). Anything else in the folder is nobody's program. The manifest itself is not signed: what keeps
/// it is that only root may write it, and dm-verity in the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Manifest {
    /// By file name.
    pub binaries: BTreeMap<String, Binary>,
}

impl Manifest {
    /// Looks at the folder `bin` and writes down what lies there now.
    ///
    /// # Errors
    /// [`PostError::File`], and [`PostError::NothingInstalled`] if there is no binary.
    pub fn of(bin: &Path) -> Result<Self, PostError> {
        let binaries: BTreeMap<_, _> = installed(bin)?
            .into_iter()
            .map(|name| {
                let sha256 = digest(bin, &name)?;
                let self_test = name.starts_with("casemate-");
                Ok((name, Binary { sha256, self_test }))
            })
            .collect::<Result<_, PostError>>()?;
        if binaries.is_empty() {
            return Err(PostError::NothingInstalled { path: bin.to_owned() });
        }
        Ok(Self { binaries })
    }

    /// Writes the manifest into `bin`, as a whole or not at all.
    ///
    /// # Errors
    /// [`PostError::File`].
    pub fn write(&self, bin: &Path) -> Result<(), PostError> {
        let path = bin.join(MANIFEST_FILE);
        let mut json =
            serde_json::to_vec_pretty(self).map_err(|source| PostError::Damaged { path: path.clone(), source })?;
        json.push(b'\n');
        file::write_atomic(&path, &json)
    }

    /// Reads the manifest of `bin`, if nobody but root and this process's user could have written it.
    ///
    /// # Errors
    /// [`PostError::File`], [`PostError::NotTrusted`], [`PostError::NotAFile`], [`PostError::Damaged`],
    /// [`PostError::NothingInstalled`], [`PostError::NotABinaryName`].
    pub fn read(bin: &Path) -> Result<Self, PostError> {
        let path = bin.join(MANIFEST_FILE);
        let manifest: Self = serde_json::from_slice(&file::read_trusted(&path)?)
            .map_err(|source| PostError::Damaged { path, source })?;
        if manifest.binaries.is_empty() {
            return Err(PostError::NothingInstalled { path: bin.to_owned() });
        }
        if let Some(name) = manifest.binaries.keys().find(|name| !is_binary_name(name)) {
            return Err(PostError::NotABinaryName { name: name.clone() });
        }
        Ok(manifest)
    }

    /// Every name that the manifest has or the folder holds.
    ///
    /// # Errors
    /// [`PostError::File`] when the folder cannot be read.
    pub(crate) fn names(&self, bin: &Path) -> Result<BTreeSet<String>, PostError> {
        let mut names = installed(bin)?;
        names.extend(self.binaries.keys().cloned());
        Ok(names)
    }

    /// Whether the binary `name` of `bin` is the one that was installed.
    pub(crate) fn check(&self, bin: &Path, name: &str) -> Result<(), PostError> {
        let Some(binary) = self.binaries.get(name) else {
            return Err(PostError::BinaryExtra { name: name.to_owned() });
        };
        let found = digest(bin, name)?;
        if found == binary.sha256 {
            Ok(())
        } else {
            Err(PostError::BinaryChanged { name: name.to_owned(), found, expected: binary.sha256.clone() })
        }
    }
}

/// Whether `name` can be that of a binary: the console's or a daemon's, and within its folder.
fn is_binary_name(name: &str) -> bool {
    (name == "casemate" || name.starts_with("casemate-")) && !name.contains('/')
}

/// The names of the binaries in `bin`. A link with a binary's name counts: it is then found to be no file.
fn installed(bin: &Path) -> Result<BTreeSet<String>, PostError> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(bin).map_err(PostError::file(bin))? {
        let entry = entry.map_err(PostError::file(bin))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if !is_binary_name(&name) {
            continue;
        }
        let metadata = entry.metadata().map_err(PostError::file(entry.path()))?;
        if metadata.is_symlink() || (metadata.is_file() && metadata.permissions().mode() & 0o111 != 0) {
            names.insert(name);
        }
    }
    Ok(names)
}

fn digest(bin: &Path, name: &str) -> Result<String, PostError> {
    let path = bin.join(name);
    let file = match OpenOptions::new().read(true).custom_flags(O_NOFOLLOW).open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(PostError::BinaryMissing { name: name.to_owned() });
        }
        opened => opened.map_err(PostError::file(&path))?,
    };
    if !file.metadata().map_err(PostError::file(&path))?.is_file() {
        return Err(PostError::NotAFile { path });
    }
    file::sha256(&file).map_err(PostError::file(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn install(bin: &Path, name: &str, bytes: &[u8]) {
        fs::write(bin.join(name), bytes).unwrap();
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn installation() -> (tempfile::TempDir, Manifest) {
        let folder = tempfile::tempdir().unwrap();
        install(folder.path(), "casemate", b"console");
        install(folder.path(), "casemate-keyd", b"broker");
        install(folder.path(), "README", b"not a program of ours");
        fs::write(folder.path().join("casemate-keyd.d"), b"not executable").unwrap();
        Manifest::of(folder.path()).unwrap().write(folder.path()).unwrap();
        let manifest = Manifest::read(folder.path()).unwrap();
        (folder, manifest)
    }

    #[test]
    fn what_was_installed_is_found_and_daemons_are_told_from_the_console() {
        let (folder, manifest) = installation();
        let names: Vec<_> = manifest.binaries.iter().map(|(name, b)| (name.as_str(), b.self_test)).collect();
        assert_eq!(names, [("casemate", false), ("casemate-keyd", true)]);
        for name in manifest.names(folder.path()).unwrap() {
            manifest.check(folder.path(), &name).unwrap();
        }
    }

    #[test]
    fn a_flipped_bit_a_missing_and_an_extra_binary_are_named() {
        let (folder, manifest) = installation();
        let bin = folder.path();
        install(bin, "casemate-keyd", b"brokes");
        assert!(matches!(manifest.check(bin, "casemate-keyd"), Err(PostError::BinaryChanged { .. })));
        fs::remove_file(bin.join("casemate-keyd")).unwrap();
        assert!(matches!(manifest.check(bin, "casemate-keyd"), Err(PostError::BinaryMissing { .. })));
        install(bin, "casemate-intruder", b"x");
        assert!(manifest.names(bin).unwrap().contains("casemate-intruder"));
        assert!(matches!(manifest.check(bin, "casemate-intruder"), Err(PostError::BinaryExtra { .. })));
    }

    #[test]
    fn a_manifest_that_points_elsewhere_is_refused() {
        let (folder, mut manifest) = installation();
        for name in ["../casemate-x", "casemate-x/../../bin/sh", "sh", "/bin/sh"] {
            let binary = manifest.binaries["casemate"].clone();
            manifest.binaries.insert(name.to_owned(), binary);
            manifest.write(folder.path()).unwrap();
            assert!(matches!(Manifest::read(folder.path()), Err(PostError::NotABinaryName { .. })), "{name}");
            manifest.binaries.remove(name);
        }
    }

    #[test]
    fn a_link_is_not_a_binary_even_to_the_same_bytes() {
        let (folder, manifest) = installation();
        let bin = folder.path();
        fs::rename(bin.join("casemate"), bin.join("elsewhere")).unwrap();
        std::os::unix::fs::symlink(bin.join("elsewhere"), bin.join("casemate")).unwrap();
        assert!(manifest.check(bin, "casemate").is_err());
    }

    #[test]
    fn an_empty_folder_and_an_empty_manifest_prove_nothing() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Manifest::of(folder.path()), Err(PostError::NothingInstalled { .. })));
        Manifest { binaries: BTreeMap::new() }.write(folder.path()).unwrap();
        assert!(matches!(Manifest::read(folder.path()), Err(PostError::NothingInstalled { .. })));
        fs::write(folder.path().join(MANIFEST_FILE), b"{\"binaries\": 1}").unwrap();
        assert!(matches!(Manifest::read(folder.path()), Err(PostError::Damaged { .. })));
    }
}
