//! The steps of the image's first boot that need a program of our own. Each can be interrupted at any moment and run again.
#![forbid(unsafe_code)]

mod error;
mod mend;
mod pins;
mod places;
mod token;

pub use error::SetupError;
pub use mend::mend;
pub use pins::make_pins;
pub use places::Places;
pub use token::{LABEL, make_token};
