//! The overlay of the image's root file system (`image/mkosi.extra`), for tests that need no machine: its files, its units, and a
//! copy in which systemd's own tools can look at them as they will stand in the guest.
#![forbid(unsafe_code)]

mod root;
mod unit;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

pub use root::Root;
pub use unit::{Unit, units};

/// The checkout.
#[must_use]
pub fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The overlay.
#[must_use]
pub fn overlay() -> PathBuf {
    checkout().join("image/mkosi.extra")
}

/// The text of the overlay's file `path`.
///
/// # Errors
/// It cannot be read.
pub fn text(path: &str) -> io::Result<String> {
    fs::read_to_string(overlay().join(path))
}

/// The lines of a file without comments and empty ones.
pub fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}
