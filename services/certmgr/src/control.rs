use casemate_hsm_api::KeyRole;
use serde::{Deserialize, Serialize};

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
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Response {
    /// To [`Request::Provision`].
    Provisioned(Provisioned),
    /// To [`Request::Identities`], in the order of [`KeyRole::ALL`].
    Identities(Vec<Identity>),
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
