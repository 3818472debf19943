//! The image in QEMU: OVMF with Secure Boot and our keys alone, swtpm, ports forwarded from 127.0.0.1, the journal as JSON lines in
//! a file, and the operator's console.
//!
//! QEMU and swtpm come from the image's tools tree (`image/tools`), which needs root. The guest's processors are emulated (TCG): KVM
//! is not asked for, because where this is developed it opens and then does not run a guest.
#![forbid(unsafe_code)]

mod console;
mod error;
mod guest;
mod journal;
mod machine;
mod phone;
mod qmp;
mod settings;

pub use console::Console;
pub use error::GuestError;
pub use guest::Guest;
pub use journal::{Entry, Journal};
pub use phone::Phone;
pub use qmp::Memory;
pub use settings::{FORWARDED, Forward, GuestSettings, Protocol};
