use std::{
    fs, io,
    path::{Path, PathBuf},
};

use casemate_runtime::config::Paths;

use crate::SetupError;

/// The files of the token.
#[derive(Clone, Debug)]
pub struct Places {
    /// SoftHSM's folder (`directories.tokendir`): one folder a token.
    pub tokens: PathBuf,
    /// The sealed PIN, which systemd loads for the key broker. Where it is, the token is whole.
    pub credential: PathBuf,
    /// The sealed PIN of a token that is being made: as long as it is here, nobody ever used the token.
    pub unfinished: PathBuf,
    /// What the token's own file was when it was made.
    pub copy: PathBuf,
}

impl Places {
    /// Those of an installation.
    #[must_use]
    pub fn of(paths: &Paths) -> Self {
        let own = paths.state_of("setup");
        Self {
            tokens: paths.state_of("keyd").join("softhsm"),
            credential: own.join("pin.cred"),
            unfinished: own.join("pin.cred.new"),
            copy: own.join("token.object"),
        }
    }

    /// The file in which SoftHSM keeps the token's label, flags and wrapped key; none before there is a token.
    pub(crate) fn object(&self) -> Result<Option<PathBuf>, SetupError> {
        let folders = self.in_tokens()?;
        Ok(folders.into_iter().map(|folder| folder.join("token.object")).find(|object| object.exists()))
    }

    /// What lies in the tokens' folder.
    pub(crate) fn in_tokens(&self) -> Result<Vec<PathBuf>, SetupError> {
        let entries = match fs::read_dir(&self.tokens) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            read => read.map_err(SetupError::file(&self.tokens))?,
        };
        let path = |entry: io::Result<fs::DirEntry>| entry.map(|entry| entry.path());
        entries.map(path).collect::<io::Result<_>>().map_err(SetupError::file(&self.tokens))
    }
}

/// Whether there is something in the file at `path`.
pub(crate) fn holds_something(path: &Path) -> Result<bool, SetupError> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(found.len() > 0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(SetupError::file(path)(error)),
    }
}
