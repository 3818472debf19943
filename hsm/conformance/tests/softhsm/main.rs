//! SoftHSM: the suite, and what only a real module shows. Each test runs in a process of its own with a token of its own; the
//! packages softhsm2 and opensc are needed, and a test fails where they are missing.

mod absence;
mod generation;
mod lab;
mod limits;
mod pin;
mod suite;
