//! Records in SQLite: one file a daemon, which no other process writes.
//!
//! Reads go through a small pool. Writes go through one task that takes what waits, runs each write in a savepoint of its own
//! inside one transaction, commits once, and only then answers: an acknowledged write is on disk (`synchronous=FULL` in WAL
//! mode synchronises the log at each commit, <https://www.sqlite.org/pragma.html#pragma_synchronous>), a failing write undoes
//! only itself, and a hundred writers pay for one synchronisation instead of a hundred.
#![forbid(unsafe_code)]

mod error;
mod migrate;
mod settings;
mod store;
mod writer;

pub use error::StoreError;
pub use migrate::Migration;
pub use settings::StoreSettings;
/// The database driver, so that all daemons use the same one.
pub use sqlx;
pub use store::Store;
pub use writer::Work;
