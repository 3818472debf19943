use std::{io, path::PathBuf, time::Duration};

/// The lab could not do something. The text says what to look at.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A file or folder of the lab.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another lab runs in this folder.
    #[error("a lab is running in {folder} already; end it first")]
    Occupied {
        /// Which.
        folder: PathBuf,
    },
    /// A program could not be started.
    #[error("cannot run {program}: {source}; `make run` builds and installs what it needs")]
    Run {
        /// Which.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A program ended with an error.
    #[error("{program} failed: {output}")]
    Failed {
        /// Which.
        program: String,
        /// The end of what it printed.
        output: String,
    },
    /// A daemon did not say that it serves.
    #[error("casemate-{daemon} is not ready after {limit:?}; its log is {log}")]
    NotReady {
        /// Which.
        daemon: String,
        /// How long it had.
        limit: Duration,
        /// Where it says why.
        log: PathBuf,
    },
    /// Something did not come to hold in time.
    #[error("{what} does not hold after {limit:?}")]
    Waited {
        /// What.
        what: String,
        /// How long it had.
        limit: Duration,
    },
    /// Linux was asked and said no.
    #[error(transparent)]
    System(#[from] nix::Error),
}

impl LabError {
    /// For `map_err`: an error of the file at `path`.
    pub fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}
