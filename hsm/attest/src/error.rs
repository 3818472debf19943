/// Why a statement, or the enrolment of an attestation key, proves nothing.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// Bytes that are no structure of the TPM specification, or not the one that stands there.
    #[error("{what} is malformed")]
    Malformed {
        /// Which structure.
        what: &'static str,
    },
    /// A structure of a kind that this code does not judge.
    #[error("{what} is of a kind that is not used here")]
    Unsupported {
        /// Which structure.
        what: &'static str,
    },
    /// The endorsement certificate does not chain to a maker that the auditor named.
    #[error("the endorsement certificate is not issued by a maker that was named: {detail}")]
    Certificate {
        /// What webpki said.
        detail: String,
    },
    /// The attestation key could sign what the TPM did not say, or could be somewhere else.
    #[error("the attestation key is none: {detail}")]
    NoAttestationKey {
        /// Which attribute is missing.
        detail: &'static str,
    },
    /// The answer to a challenge is not its secret.
    #[error("the answer to the challenge is wrong: endorsement key and attestation key are not in one TPM")]
    WrongAnswer,
    /// The statement is by a key that was not enrolled; it proves nothing.
    #[error("the statement is signed by an attestation key that nobody endorsed")]
    Unendorsed,
    /// The signature does not fit the statement.
    #[error("the signature of the statement does not verify")]
    Signature,
    /// The statement is an answer to somebody else, or an old one.
    #[error("the statement does not answer this auditor's nonce")]
    Nonce,
    /// The statement is about another key than the one asked for.
    #[error("the statement is about another key: {detail}")]
    OtherKey {
        /// Where it differs.
        detail: &'static str,
    },
    /// The key may have been made elsewhere, or may leave.
    #[error("the key is not bound to its TPM: {detail}")]
    NotBound {
        /// Which attribute is missing.
        detail: &'static str,
    },
    /// The listed registers of the machine's start are not those of which the TPM spoke.
    #[error("the PCR values are not proven: {detail}")]
    Pcrs {
        /// Where they differ.
        detail: &'static str,
    },
    /// The TPM was started again between the two halves of the statement: what it said of the key and what it said of the machine do
    /// not belong together.
    #[error("the TPM was started again between certifying the key and quoting its PCRs; ask for another statement")]
    StartedBetween,
    /// The FIPS module failed.
    #[error("the FIPS module failed in {operation}")]
    Module {
        /// What was asked.
        operation: &'static str,
    },
}
