//! What goes wrong.

use std::{io, path::PathBuf};

use casemate_entropy::EntropyError;
use casemate_kat::KatError;

/// Why a self-test failed, or why its report is not believed. The text tells the operator which file or program it was.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// A file or folder could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file that only root (or this process's own user) may write can be written or was written by others.
    #[error(
        "{path} belongs to uid {owner} with mode {mode:o}: it must belong to root or to this process's user and be writable by nobody else"
    )]
    NotTrusted {
        /// Which.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Its permission bits.
        mode: u32,
    },
    /// Something else than a regular file, or one larger than this crate reads.
    #[error("{path} is not a regular file of reasonable size")]
    NotAFile {
        /// Which.
        path: PathBuf,
    },
    /// A report or manifest is not in the form that this crate writes.
    #[error("{path} is damaged: {source}")]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// The manifest names nothing: there is no installation to prove.
    #[error("the manifest of {path} names no binary")]
    NothingInstalled {
        /// The folder of the binaries.
        path: PathBuf,
    },
    /// The manifest names something that cannot be a binary of ours: another folder's, or another project's.
    #[error("the manifest names {name:?}, which is no name of a binary (casemate or casemate-*)")]
    NotABinaryName {
        /// The name.
        name: String,
    },
    /// A binary that the manifest names is not installed.
    #[error("the installed binary {name} is missing")]
    BinaryMissing {
        /// File name.
        name: String,
    },
    /// A binary is installed that the manifest does not name.
    #[error("{name} is installed and not in the manifest")]
    BinaryExtra {
        /// File name.
        name: String,
    },
    /// An installed binary is not the one that was installed.
    #[error("the installed binary {name} was changed: SHA-256 is {found}, the manifest says {expected}")]
    BinaryChanged {
        /// File name.
        name: String,
        /// Of the file.
        found: String,
        /// Of the manifest.
        expected: String,
    },
    /// A daemon's `--self-test` ended with an exit code other than 0.
    #[error("{name} --self-test exited with code {code}: {said}")]
    DaemonExited {
        /// File name.
        name: String,
        /// The code.
        code: i32,
        /// The start of what it said on standard error.
        said: String,
    },
    /// A daemon's `--self-test` was ended by a signal; SIGABRT (6) is how a broken FIPS module ends its process.
    #[error("{name} --self-test was killed by signal {signal}{}: {said}", if *.signal == 6 { " (SIGABRT: the FIPS module in it is broken)" } else { "" })]
    DaemonKilled {
        /// File name.
        name: String,
        /// The signal's number.
        signal: i32,
        /// The start of what it said on standard error.
        said: String,
    },
    /// A daemon's `--self-test` did not end in time and was killed.
    #[error("{name} --self-test did not end within {millis} ms")]
    DaemonTimedOut {
        /// File name.
        name: String,
        /// The limit, in milliseconds.
        millis: u128,
    },
    /// A daemon's `--self-test` ended with code 0 without saying that this module's tests passed.
    #[error("{name} --self-test did not report this module's tests: it printed {said:?}")]
    DaemonSaidOtherwise {
        /// File name.
        name: String,
        /// The start of what it printed.
        said: String,
    },
    /// The module in this process is not a FIPS build.
    #[error("the AWS-LC module is not a FIPS build")]
    ModuleNotFips,
    /// The module's code or constants are not those that were built.
    #[error("the AWS-LC module failed its integrity test")]
    ModuleIntegrity,
    /// A known-answer test of the module itself failed.
    #[error("the AWS-LC module failed its self-test")]
    ModuleSelfTest,
    /// A published answer was not reached.
    #[error(transparent)]
    KnownAnswer(#[from] KatError),
    /// The noise source failed its start-up test.
    #[error("the noise source failed its start-up test: {0}")]
    Noise(#[from] casemate_entropy::Failure),
    /// The start-up test of the noise source cannot be made as demanded.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// A part of the power-on self-test had nothing to test.
    #[error("there is nothing to test")]
    NothingToTest,
    /// The module gave no random bytes for the run id.
    #[error("the AWS-LC module gave no random bytes")]
    NoRandom,
    /// There is no report of this boot's power-on self-test.
    #[error("{path}: no power-on self-test has passed since this machine started; start casemate-postd")]
    NoReport {
        /// Where it would be.
        path: PathBuf,
    },
    /// The report is of an earlier boot, or of another machine.
    #[error("{path} is not of this boot: it says {found}; start casemate-postd")]
    OtherBoot {
        /// Where it is.
        path: PathBuf,
        /// The boot id in it.
        found: String,
    },
    /// The report says that the power-on self-test failed, or leaves a part of it out.
    #[error("{path}: the power-on self-test did not pass: {reason}")]
    NotPassed {
        /// Where it is.
        path: PathBuf,
        /// The first test that failed, and why.
        reason: String,
    },
    /// The report's digest of this process's program differs from what runs here, or it has none.
    #[error("this process runs {program}, which the power-on self-test did not prove: {reason}")]
    ProgramNotProven {
        /// The program's path.
        program: PathBuf,
        /// What differs.
        reason: &'static str,
    },
    /// The report was made with another version of the module than runs here.
    #[error("the power-on self-test was run with {reported}, this process has {own}")]
    OtherModule {
        /// The report's.
        reported: String,
        /// This process's.
        own: String,
    },
}

impl PostError {
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        |source| Self::File { path, source }
    }
}
