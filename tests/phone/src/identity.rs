//! What the phone is: its key, and the certificate over it.

mod key;
mod lsc;

pub use key::{DeviceKey, KeySpec};
pub use lsc::Lsc;
