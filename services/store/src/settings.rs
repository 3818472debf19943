use serde::Deserialize;

/// Limits of one store; a table in the daemon's own section.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct StoreSettings {
    /// Connections that read.
    pub readers: u32,
    /// Writes that may wait; one more is refused.
    pub queue: usize,
    /// Writes that share one commit at most.
    pub batch: usize,
    /// Milliseconds that a read waits for a connection, and a connection for a lock.
    pub wait_ms: u64,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self { readers: 2, queue: 1024, batch: 128, wait_ms: 5000 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_are_refused_and_missing_ones_have_defaults() {
        assert_eq!(toml::from_str::<StoreSettings>("batch = 7").unwrap().batch, 7);
        assert_eq!(toml::from_str::<StoreSettings>("").unwrap().queue, 1024);
        assert!(toml::from_str::<StoreSettings>("bathc = 7").is_err());
    }
}
