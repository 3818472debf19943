//! What every daemon does alike, so that each does it the same way: reading its settings, starting only after the self-tests,
//! knowing its peers, framing local messages, listening within limits, publishing files.
#![forbid(unsafe_code)]

pub mod config;
pub mod control;
pub mod daemon;
pub mod frame;
pub mod listener;
pub mod log;
pub mod peer;
pub mod publish;
pub mod refusals;
