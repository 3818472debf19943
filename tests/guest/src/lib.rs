//! Tests on the guest: the image that `image/build` made, booted in QEMU.
//!
//! A boot takes a minute on a quiet machine of two cores, so a test is a whole scenario with its steps printed, and guests run one
//! at a time. `make test-image` builds the image and runs them; `make test` leaves them out, for it builds no image.
//!
//! Faults are made from outside: power is cut, and disks are changed while the machine is off. Nothing in the image knows of tests.
//!
//! `LIMIT` is how many seconds one wait may take, 600 if it is not set. A test's guest lies in `target/image/guest-NAME`, and stays
//! there to be looked at: `journal.jsonl`, `serial.log`, `network.pcap`.
#![forbid(unsafe_code)]
#![allow(clippy::panic)] // a test fails by panicking

mod disk;
mod machine;

use std::{
    env,
    path::{Path, PathBuf},
    time::Instant,
};

pub use disk::{Partition, changed_byte, copy_of, partitions};
pub use machine::Machine;

/// The checkout.
///
/// # Panics
/// It is not where it was when this was compiled.
#[must_use]
pub fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the checkout is where it was compiled")
}

/// The folder of this build's programs: `target/debug`.
///
/// # Panics
/// Where the running program has no path, which Linux always gives.
#[must_use]
pub fn programs() -> PathBuf {
    let own = env::current_exe().expect("Linux says where a program lies");
    // A test's program lies in `deps`.
    own.ancestors().nth(2).map(Path::to_path_buf).unwrap_or_default()
}

/// Prints one step of a scenario with its time.
///
/// # Panics
/// As `work`.
pub fn step<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    println!("step: {what} ...");
    let outcome = work();
    println!("step: {what}: {:.1} s", started.elapsed().as_secs_f64());
    outcome
}
