//! swtpm: the suite, and what only a TPM shows. Each test starts an swtpm of its own; the packages swtpm and tpm2-tools are
//! needed, and a test fails where they are missing.
#![forbid(unsafe_code)]
// Clippy allows these in test functions, and not in what they share.
#![allow(clippy::unwrap_used, clippy::panic)]

mod absence;
mod attest;
mod blobs;
mod cut;
mod generation;
mod lab;
mod limits;
mod pin;
mod suite;
