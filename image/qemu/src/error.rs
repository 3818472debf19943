use std::{io, path::PathBuf, time::Duration};

/// The guest could not do something. The text says what to look at.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// A file of the guest.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A part of the image is not there.
    #[error("{path} is not there; `make image` makes it")]
    NotBuilt {
        /// Which.
        path: PathBuf,
    },
    /// Another guest runs in this folder.
    #[error("a guest is running in {folder} already; end it first")]
    Occupied {
        /// Which.
        folder: PathBuf,
    },
    /// A program could not be started.
    #[error("cannot run {program}: {source}")]
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
        /// What it printed.
        output: String,
    },
    /// QEMU or swtpm ended by itself.
    #[error("{program} ended; {log} says why")]
    Ended {
        /// Which.
        program: &'static str,
        /// Where it says why.
        log: PathBuf,
    },
    /// Something did not come to hold in time.
    #[error("{what} does not hold after {limit:?}; look at {log}")]
    Waited {
        /// What.
        what: String,
        /// How long it had.
        limit: Duration,
        /// Where to look.
        log: PathBuf,
    },
    /// The operator's command line refused.
    #[error("casemate {command}: {answer}")]
    Refused {
        /// What was asked, without an authentication string.
        command: String,
        /// What it said.
        answer: String,
    },
}

impl GuestError {
    /// For `map_err`: an error of the file at `path`.
    pub fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}
