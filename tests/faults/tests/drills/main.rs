//! The failure drills: a token that breaks in every way a token can, before the real daemons. After each: what the operator sees,
//! what is audited, that no key or record was lost, and how long it took to serve again, which is printed.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

mod crash;
mod full;
mod latency;
mod limits;
mod load;
mod pin;
mod removal;
mod resource_manager;
mod shared;
mod stage;
mod wrong;
