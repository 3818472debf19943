//! Real modules: the suite on SoftHSM and kryoptic, and what only a real module shows. Each test runs in a process of its own
//! with a token of its own; the packages softhsm2 and opensc and the module that .ci/kryoptic builds are needed, and a test fails
//! where they are missing.
#![forbid(unsafe_code)]
// Clippy allows these in test functions, and not in what they share.
#![allow(clippy::unwrap_used, clippy::panic)]

mod absence;
mod change;
mod generation;
mod lab;
mod limits;
mod pin;
mod suite;
mod tokens;
