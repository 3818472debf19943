use casemate_hsm_api::KeyRole;
use serde::{Deserialize, Serialize};

use crate::Statement;

/// What `casemate hsm attest` writes for the auditor: the key that is meant, and all that can be said of it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Report {
    /// Whose key, in the node's words. Proven is only what the statement says of the certificate's key.
    pub role: KeyRole,
    /// The outcome.
    pub result: Outcome,
}

/// Whether there is anything to judge.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The TPM's word, to be judged by [`Statement::prove`].
    Statement(Box<Statement>),
    /// The key's token offers no statement; this is the reason.
    Unproven(String),
}
