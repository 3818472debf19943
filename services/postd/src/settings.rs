//! Section `[postd]` of the settings file.

use std::{path::Path, time::Duration};

use casemate_entropy::STARTUP_SAMPLES;
use casemate_post::Settings;
use serde::Deserialize;

/// The limits of the power-on self-test.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct PostdSettings {
    /// How long a daemon's `--self-test` may take, in milliseconds.
    pub self_test_timeout_ms: u64,
    /// How many daemons test themselves at the same time.
    pub parallel: usize,
    /// Samples of the noise source's start-up test; fewer than 1,024 fail it.
    pub entropy_samples: usize,
}

impl Default for PostdSettings {
    fn default() -> Self {
        Self { self_test_timeout_ms: 10_000, parallel: 2, entropy_samples: STARTUP_SAMPLES }
    }
}

impl PostdSettings {
    pub(crate) fn of(&self, bin: &Path) -> Settings {
        Settings {
            bin: bin.to_owned(),
            self_test_timeout: Duration::from_millis(self.self_test_timeout_ms),
            parallel: self.parallel,
            samples: self.entropy_samples,
        }
    }
}
