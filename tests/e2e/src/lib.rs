//! End-to-end tests live in `tests/`; this crate's program is their stranger at the key broker's door.
#![forbid(unsafe_code)]
