//! The vectors, one file an algorithm.

mod aes_gcm;
mod ecdh;
mod ecdsa;
mod hkdf;
mod hmac;
mod pbkdf2;
mod rsa_pkcs1;
mod rsa_pss;
mod rsa_sign;
mod sha2;
mod tls12_prf;

pub use aes_gcm::AES_GCM;
pub use ecdh::ECDH;
pub use ecdsa::ECDSA;
pub use hkdf::HKDF;
pub use hmac::HMAC;
pub use pbkdf2::PBKDF2;
pub use rsa_pkcs1::RSA_PKCS1;
pub use rsa_pss::RSA_PSS;
pub use rsa_sign::RSA_SIGN;
pub use sha2::SHA2;
pub use tls12_prf::TLS12_PRF;

use crate::Vector;

/// Every vector of this crate, in the order in which the algorithms build on each other.
#[must_use]
pub fn published() -> Vec<Vector> {
    [SHA2, HMAC, HKDF, PBKDF2, TLS12_PRF, AES_GCM, RSA_PKCS1, RSA_PSS, RSA_SIGN, ECDSA, ECDH].concat()
}
