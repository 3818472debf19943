//! What the simulated phone believes and what it refuses.
#![expect(
    clippy::unwrap_used,
    reason = "the helpers of tests are tests, which clippy.toml cannot see in their own files"
)]

mod fake;

mod enrolment;
mod lsc;
mod start;
mod transfer;
mod trust;
mod vectors;
