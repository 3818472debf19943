use casemate_hsm_api::KeyRole;
use serde::{Deserialize, Serialize};

use crate::rekey::RekeyPlan;

/// What root and the operator's user may ask on `certmgr.sock` (frames of `casemate_runtime::control`).
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Give `role` its key and its certificate, or say that it has both. The console asks for each of [`KeyRole::ALL`] in
    /// turn, and so can say how far it is.
    Provision {
        /// Which identity.
        role: KeyRole,
    },
    /// Every current identity.
    Identities,
    /// What a re-key of `role` would do, and whether it can begin. Nothing is done.
    PlanRekey {
        /// Which identity.
        role: KeyRole,
    },
    /// Give `role` a next key and a certificate of it, and publish that; or go on where this was interrupted.
    Rekey {
        /// Which identity.
        role: KeyRole,
    },
    /// Have the key of `role`, which phones know from the published list, sign the lists from now on.
    SignLists {
        /// ITLRecovery or CallManager.
        role: KeyRole,
    },
    /// Retire the key that was re-keyed, once phones are offered a list with the new certificate; or say what is waited for.
    FinishRekey {
        /// Which identity.
        role: KeyRole,
    },
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Response {
    /// To [`Request::Provision`].
    Provisioned(Provisioned),
    /// To [`Request::Identities`], in the order of [`KeyRole::ALL`].
    Identities(Vec<Identity>),
    /// To [`Request::PlanRekey`].
    Plan(Box<RekeyPlan>),
    /// To [`Request::Rekey`]: the new certificate is published.
    Rekeyed(Identity),
    /// To [`Request::SignLists`].
    ListSigner(KeyRole),
    /// To [`Request::FinishRekey`].
    RekeyFinished(FinishedRekey),
    /// To [`Request::FinishRekey`]: not yet, and why. Ask again.
    RekeyWaits(String),
    /// Nothing was done, or not to the end; what was done is kept.
    Failed(String),
}

/// A role that has its key and its certificate.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Provisioned {
    /// Its identity.
    pub identity: Identity,
    /// Whether this request made the key.
    pub key_made: bool,
    /// Whether this request made the certificate.
    pub certificate_made: bool,
}

/// A current identity certificate.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Identity {
    /// What it is for.
    pub role: KeyRole,
    /// Subject, attributes in the certificate's order.
    pub subject: String,
    /// Serial number, hexadecimal.
    pub serial: String,
    /// End of validity, RFC 3339 in UTC.
    pub not_after: String,
    /// SHA-256 of the certificate, hexadecimal.
    pub fingerprint: String,
    /// SHA-256 of the `SubjectPublicKeyInfo`, hexadecimal: the key in the token.
    pub key_fingerprint: String,
    /// Serial of the token that holds the key.
    pub token: String,
    /// Where the certificate is published.
    pub published: String,
}

/// A re-key that is done.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FinishedRekey {
    /// The identity as it is now.
    pub identity: Identity,
    /// SHA-256 of the `SubjectPublicKeyInfo` of the key that is retired, hexadecimal.
    pub retired: String,
    /// Serial of the token in which it stays.
    pub retired_token: String,
}
