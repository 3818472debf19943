//! X.509 over a signer (RFC 5280, RFC 2986): certificates read strictly, certificates and requests judged before they are
//! signed, identity and device certificates built. No keys and no input or output: whoever signs hands in a
//! [`rcgen::SigningKey`].
//!
//! What a broker is asked to sign is judged twice. First each field by name, so that a refusal says what is wrong. Then the
//! whole is built anew from what was read and must be the same byte for byte: so nothing that a lenient reader would pass
//! over can be signed.
#![forbid(unsafe_code)]

mod certificate;
mod der;
mod device;
mod device_check;
mod error;
mod extension;
mod identity;
mod identity_check;
mod name;
mod refusal;
mod request;
mod serial;
mod signature;
mod spki;
mod tbs;

pub use certificate::CertificateFacts;
pub use device::{DeviceProfile, issue_device_certificate};
pub use device_check::{DeviceExpectations, check_device_certificate};
pub use error::PkiError;
pub use extension::{AltName, BasicConstraints, Extension, Extensions, KeyUsage};
pub use identity::{IdentityProfile, SubjectSettings, certificate_request, self_signed};
pub use identity_check::{IdentityExpectations, check_certificate_request, check_self_signature};
pub use refusal::Refusal;
pub use request::CsrFacts;
pub use serial::random_serial;
pub use spki::SpkiFacts;
pub use tbs::TbsFacts;
