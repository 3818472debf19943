//! A token in memory, for tests of everything that uses a [`KeyStore`](casemate_hsm_api::KeyStore). [`FakeToken`] is the
//! device and the test's handle on its faults; it outlives the [`FakeStore`]s that are opened on it, as a device outlives the
//! processes that use it. Nothing happens by chance: a fault holds from the call that sets it.
//!
//! Keys are software keys of the FIPS module. Nothing but tests may depend on this crate.
#![forbid(unsafe_code)]

mod device;
mod gate;
mod signer;
mod store;

pub use device::{FakeToken, Half, Latency, LatencyProfile, PinFault};
pub use store::{FakeSettings, FakeStore};
