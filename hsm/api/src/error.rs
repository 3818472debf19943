use std::time::Duration;

use crate::Unlock;

/// Why a token did not do what was asked. The variant says what to do next: wait, ask a person, or stop.
#[derive(Debug, thiserror::Error)]
pub enum HsmError {
    /// No token with this serial or label is in any slot, or the module lost it while it was used. Wait and look again:
    /// nothing is deleted or made because of it.
    #[error("token {token} is absent: {detail}")]
    TokenAbsent {
        /// Label or serial that was looked for.
        token: String,
        /// What the module said.
        detail: String,
    },
    /// The PIN was refused. Final until the PIN changes: trying again would lock the token.
    #[error("token {token} refused the PIN; correct the PIN file, it is not tried again until it changes")]
    PinIncorrect {
        /// Serial of the token.
        token: String,
    },
    /// The user PIN is locked, and the PIN file may be right: what the token is decides who unlocks it.
    #[error("the user PIN of token {token} is locked; {}", .unlock.when_locked())]
    PinLocked {
        /// Serial of the token.
        token: String,
        /// How it is unlocked.
        unlock: Unlock,
    },
    /// One more wrong PIN would lock the token, so none is tried.
    #[error("token {token} has one PIN try left; nothing was tried: check the PIN file, then {}", .unlock.at_last_try())]
    PinLastTry {
        /// Serial of the token.
        token: String,
        /// How it gets its tries back.
        unlock: Unlock,
    },
    /// The same PIN was refused before; it is not tried a second time.
    #[error("this PIN was refused by token {token} before; change the PIN file")]
    PinRefusedBefore {
        /// Serial of the token.
        token: String,
    },
    /// So many logins with this PIN in a row never ended: the process died within each, or the module gave no clear answer. Nobody
    /// knows whether the token refused it, so it is not tried again before a person has looked.
    #[error(
        "the last {logins} logins to token {token} never ended, and whether it refused the PIN is not known; look at the token, \
         then write the PIN file again (touch is enough)"
    )]
    PinUnresolved {
        /// Serial of the token.
        token: String,
        /// Logins in a row.
        logins: u32,
    },
    /// No key with this identifier is on the token. Never a reason to make one.
    #[error("key {key} is not on token {token}")]
    KeyMissing {
        /// `CKA_ID` in hexadecimal, or the role.
        key: String,
        /// Serial of the token.
        token: String,
    },
    /// More than one key answers to the identifier: nothing is signed until a person has looked.
    #[error("{count} keys on token {token} answer to {key}; remove the strangers")]
    KeyAmbiguous {
        /// `CKA_ID` in hexadecimal.
        key: String,
        /// Serial of the token.
        token: String,
        /// How many private keys were found.
        count: usize,
    },
    /// The token made or holds a key that is not what was asked (extractable, not sensitive, another size).
    #[error("key {key} on token {token} is not as specified: {detail}")]
    KeyNotAsSpecified {
        /// `CKA_ID` in hexadecimal.
        key: String,
        /// Serial of the token.
        token: String,
        /// Which attribute differs.
        detail: String,
    },
    /// The token cannot do the operation at all.
    #[error("token {token} does not offer {operation}")]
    Unsupported {
        /// Serial of the token.
        token: String,
        /// Mechanism or attribute in the words of PKCS#11.
        operation: String,
    },
    /// The token makes no key that is gone afterwards, so nobody can tell how fast it signs before a key of ours is on it.
    #[error("token {token} cannot be measured with {algorithm}: {detail}")]
    Unmeasurable {
        /// Serial of the token.
        token: String,
        /// Of which kind the temporary key was to be.
        algorithm: crate::KeyAlgorithm,
        /// What the token said.
        detail: String,
    },
    /// Nothing proves to anybody else that keys of this token were made in it and stay there.
    #[error("keys of token {token} are unproven: {detail}")]
    Unproven {
        /// Serial of the token.
        token: String,
        /// Why.
        detail: String,
    },
    /// Caller's mistake: the scheme does not fit the key.
    #[error("{scheme} does not fit a key of {algorithm}")]
    SchemeMismatch {
        /// What was asked.
        scheme: crate::SignatureScheme,
        /// What the key is.
        algorithm: crate::KeyAlgorithm,
    },
    /// The token answered, and the answer is wrong: a signature that does not verify, a pair whose halves do not fit.
    /// The error state of FIPS 140-3: nothing more is asked of it.
    #[error("token {token} gave a wrong answer to {operation}; it is not used any more")]
    WrongAnswer {
        /// Serial of the token.
        token: String,
        /// Which test or call.
        operation: String,
    },
    /// The token did not answer in time. The call may still be running; its session is not used again.
    #[error("token {token} did not answer within {limit:?}")]
    Timeout {
        /// Serial of the token.
        token: String,
        /// The limit that ran out.
        limit: Duration,
    },
    /// Every session is busy and the queue is full.
    #[error("token {token} is busy: {waiting} requests wait already")]
    Busy {
        /// Serial of the token.
        token: String,
        /// Length of the queue.
        waiting: usize,
    },
    /// The token has no room for another object or session.
    #[error("token {token} is full: {detail}")]
    TokenFull {
        /// Serial of the token.
        token: String,
        /// The module's return value.
        detail: String,
    },
    /// Anything else that the module returned.
    #[error("token {token} failed in {operation}: {detail}")]
    Device {
        /// Serial or label of the token.
        token: String,
        /// The PKCS#11 function.
        operation: String,
        /// The module's return value.
        detail: String,
    },
}

impl HsmError {
    /// Whether waiting may help: the token may come back as it was.
    #[must_use]
    pub const fn is_absence(&self) -> bool {
        matches!(self, Self::TokenAbsent { .. } | Self::Timeout { .. } | Self::Busy { .. })
    }

    /// Whether the token must never be used again by this process.
    #[must_use]
    pub const fn is_error_state(&self) -> bool {
        matches!(self, Self::WrongAnswer { .. })
    }
}
