//! What the simulated phone believes and what it refuses.

mod fake;

mod enrolment;
mod lsc;
mod start;
mod transfer;
mod trust;
mod vectors;
