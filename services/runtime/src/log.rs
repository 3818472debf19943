//! Diagnostic logs: journald where it is, else standard error. Not the audit trail.

use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};

/// Starts logging for this process. The level is `info`, or what `CASEMATE_LOG` says in the syntax of `tracing`.
pub fn init() {
    let filter = EnvFilter::try_from_env("CASEMATE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    match tracing_journald::layer() {
        Ok(journal) => registry.with(journal).init(),
        Err(_) => registry.with(tracing_subscriber::fmt::layer().with_ansi(false).with_writer(std::io::stderr)).init(),
    }
}
