//! The trust list and the phones' files: built from what certmgr publishes and what CAPF knows of each device, signed by keys
//! in the token, published for `casemate-tftp`.
//!
//! Everything published is derived, so nothing is remembered beside it: what is wanted is compared with what stands in the
//! folder, and only what differs is signed. A restart signs nothing, and a file that was lost or damaged is made again.
#![forbid(unsafe_code)]

mod certificates;
mod devices;
mod error;
mod files;
mod provider;
mod settings;
mod sign;
mod trust_list;

pub use certificates::{Certificates, Identities};
pub use devices::device_config;
pub use error::CtlproviderError;
pub use files::{Built, DeviceFiles, Wanted};
pub use provider::Provider;
pub use settings::CtlproviderSettings;
pub use sign::{Sign, TokenSigner};
pub use trust_list::{Published, TrustListPlan};
