//! One suite for every backend of [`KeyStore`](casemate_hsm_api::KeyStore): what the rest of the tree relies on, tried on the
//! real thing. What a token signs is verified here by code of this crate's own, not by the backend's.
#![forbid(unsafe_code)]

mod cases;
mod report;
mod verify;

use casemate_hsm_api::{KeyAlgorithm, KeyId, KeyStore, StoredKey};

pub use cases::{run, run_telling};
pub use report::{Case, Report};
pub use verify::{scheme_of, verifies};

/// One half of a key pair.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[allow(missing_docs)] // the names say it
pub enum Half {
    Private,
    Public,
}

/// A backend under test, with the means to do to its token what no [`KeyStore`] does.
pub trait Rig {
    /// The backend.
    fn store(&self) -> &(dyn KeyStore + '_);

    /// The label of every key that the suite makes.
    fn label(&self) -> &str {
        "conformance"
    }

    /// Whether a key is made and removed by somebody else at this very time, so that the suite does not count it.
    fn is_strange(&self, _key: &StoredKey) -> bool {
        false
    }

    /// Takes away the other half of the pair under `id`, as an interrupted generation leaves it.
    ///
    /// # Errors
    /// What went wrong, for the report.
    fn keep_half(&self, id: KeyId, half: Half) -> Result<(), String>;

    /// Whether the token says, by another way than the backend, that the private key under `id` is sensitive and can never leave.
    ///
    /// # Errors
    /// What went wrong, for the report.
    fn never_extractable(&self, id: KeyId) -> Result<bool, String>;
}

/// How much is tried.
#[derive(Clone, Debug)]
pub struct Extent {
    /// Algorithms of which a key is made.
    pub algorithms: Vec<KeyAlgorithm>,
    /// Whether the token makes keys that may be wrapped (`backup: wrapped`). Where not, it must refuse to.
    pub wrapped: bool,
    /// Whether the rig can take one half of a pair away. Not where a module reads its store once a process.
    pub halves: bool,
    /// Threads that sign at once.
    pub threads: usize,
    /// Signatures of each thread.
    pub signatures: usize,
}

impl Default for Extent {
    fn default() -> Self {
        Self { algorithms: KeyAlgorithm::ALL.to_vec(), wrapped: true, halves: true, threads: 8, signatures: 50 }
    }
}
