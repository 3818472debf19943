use std::{io, path::PathBuf, process::ExitStatus};

/// The token was not made. The text says what a person has to do.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A file or folder.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Files of a token are there, and no PIN was ever sealed for it: it was lost, and with it the way to the keys.
    #[error(
        "{tokens} holds a token whose sealed PIN {credential} is gone: bring that back, or, if no key in it matters, empty the folder"
    )]
    TokenWithoutPin {
        /// The tokens' folder.
        tokens: PathBuf,
        /// Where the PIN should be.
        credential: PathBuf,
    },
    /// The PIN was not sealed before the token was to be made.
    #[error("{credential} is not there or empty: systemd-creds did not seal the PIN; is there a TPM?")]
    NotSealed {
        /// Where the sealed PIN should be.
        credential: PathBuf,
    },
    /// A token with a sealed PIN is there.
    #[error("{credential} is there: this machine has its token")]
    HasToken {
        /// The sealed PIN.
        credential: PathBuf,
    },
    /// No random bytes.
    #[error("the cryptographic module gave no random bytes")]
    NoRandom,
    /// SoftHSM's tool failed.
    #[error("softhsm2-util ended with {status}: {said}")]
    Tool {
        /// How.
        status: ExitStatus,
        /// The end of what it said; it never prints a PIN.
        said: String,
    },
    /// SoftHSM's tool succeeded, and there is no token.
    #[error("softhsm2-util made no token in {tokens}; is directories.tokendir of its settings another folder?")]
    NoToken {
        /// The tokens' folder.
        tokens: PathBuf,
    },
}

impl SetupError {
    /// For `map_err`: an error of the file at `path`.
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}
