//! Statements that a key was made in a TPM and cannot leave it, and how an auditor proves them on a machine of his own: no TPM,
//! no C library but the FIPS module, nothing of Casemate but this.
//!
//! A TPM's maker certifies its endorsement key. That key cannot sign; it can only decrypt what somebody encrypted for a named
//! other key of the same TPM. So an attestation key is enrolled once, by a [`Challenge`]: the auditor encrypts a secret to the
//! endorsement key of a certificate that chains to the maker's, for the name of the attestation key; who answers with the secret
//! has both in one TPM. From then on a [`Statement`] signed by that key counts, and one signed by any other key counts nothing.
//!
//! A statement is the TPM's `TPM2_Certify` over a key's public area: its attributes say that the TPM made the key itself
//! (`sensitiveDataOrigin`) and that it stays (`fixedTPM`, `fixedParent`). The auditor's nonce is in it, so it is not an old one.
//! Beside it stands a [`Quote`] by the same key with the same nonce: what the machine was started with, for the auditor to compare.
#![forbid(unsafe_code)]

mod area;
mod attest;
mod enrol;
mod error;
mod quote;
mod read;
mod report;
mod statement;

pub use area::PublicArea;
pub use enrol::{Answer, AttestationKey, Challenge, Enrolled, Expected, challenge};
pub use error::AttestError;
pub use quote::{Pcr, QUOTED_PCRS, Quote};
pub use report::{Outcome, Report};
pub use statement::{Proof, Statement};
