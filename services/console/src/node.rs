use std::{path::PathBuf, time::Duration};

use casemate_runtime::config::Config;
use serde::Deserialize;

use crate::{ConsoleError, arguments::Arguments};

/// Section `[console]` of the settings.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct ConsoleSettings {
    /// How long a daemon may take to answer, in milliseconds.
    pub(crate) timeout_ms: u64,
    /// How long one identity may take to be made, in milliseconds: an RSA key takes a TPM half a minute.
    pub(crate) provision_timeout_ms: u64,
    /// How long the trust list may take after a re-key, in milliseconds.
    pub(crate) rekey_timeout_ms: u64,
    /// Between two looks for new audit events, in milliseconds.
    pub(crate) follow_ms: u64,
    /// Phones that are asked for at once.
    pub(crate) page: u32,
    /// How long `hsm check` waits for a module to get on with a single step, in milliseconds: a TPM may take a minute over a key.
    pub(crate) check_step_timeout_ms: u64,
    /// How long `hsm check` may take in all, in milliseconds.
    pub(crate) check_timeout_ms: u64,
    /// How long `hsm check` measures how fast a token signs, for each algorithm, in milliseconds.
    pub(crate) check_rate_ms: u64,
}

impl Default for ConsoleSettings {
    fn default() -> Self {
        Self {
            timeout_ms: 10_000,
            provision_timeout_ms: 240_000,
            rekey_timeout_ms: 30_000,
            follow_ms: 250,
            page: 1024,
            check_step_timeout_ms: 180_000,
            check_timeout_ms: 3_600_000,
            check_rate_ms: 1_000,
        }
    }
}

/// The node that is operated: its settings, and where they stand.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) path: PathBuf,
    pub(crate) config: Config,
    pub(crate) settings: ConsoleSettings,
}

impl Node {
    /// The node whose settings the command line names: `--config`, else the lab's, else the installed ones.
    pub(crate) fn find(arguments: &Arguments) -> Result<Self, ConsoleError> {
        let path = match (&arguments.config, &arguments.lab) {
            (Some(config), _) => config.clone(),
            (None, Some(lab)) => lab.join("etc/casemate.toml"),
            (None, None) => "/etc/casemate/casemate.toml".into(),
        };
        let config = Config::load(&path)?;
        Ok(Self { settings: config.section("console")?, path, config })
    }

    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_millis(self.settings.timeout_ms)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn a_lab_and_a_named_file_come_before_the_installed_settings() {
        let dir = tempfile::tempdir().unwrap();
        let lab = dir.path().join("lab");
        std::fs::create_dir_all(lab.join("etc")).unwrap();
        std::fs::write(lab.join("etc/casemate.toml"), "[console]\npage = 7").unwrap();
        std::fs::write(dir.path().join("other.toml"), "[console]\npage = 8").unwrap();
        let find = |more: &[&str]| {
            let lab = lab.to_str().unwrap();
            let line = ["casemate", "--lab", lab, "phone", "list"].into_iter().chain(more.iter().copied());
            Node::find(&Arguments::try_parse_from(line).unwrap()).unwrap().settings.page
        };
        assert_eq!(find(&[]), 7);
        let other = dir.path().join("other.toml");
        assert_eq!(find(&["--config", other.to_str().unwrap()]), 8);
    }
}
