//! `casemate hsm check` on modules that hold what they promise, and on ones that do not.
#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

mod broken;
mod buyer;
mod sound;
mod together;
