//! `/etc/casemate/casemate.toml`: one file, a section a daemon, unknown keys refused.

use std::{
    collections::BTreeMap,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use casemate_audit::AuditSettings;
use casemate_policy::Mode;
use serde::{Deserialize, de::DeserializeOwned};

use crate::peer::LocalServer;

/// The settings cannot be used. The text says where.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("settings file {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not TOML, or a key is unknown or of the wrong kind; the text has line and column.
    #[error("settings file {path}: {source}")]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A section's key is unknown or of the wrong kind.
    #[error("settings file {path}, section [{section}]: {source}")]
    Section {
        /// Which file.
        path: PathBuf,
        /// Which section.
        section: String,
        /// Why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// No program reads this section: a misspelt one would otherwise leave everything at its default, in silence.
    #[error("settings file {path}: no program reads the section [{section}]")]
    Unknown {
        /// Which file.
        path: PathBuf,
        /// Which section.
        section: String,
    },
    /// `[users]` does not say who runs a daemon.
    #[error("settings file {path}: [users] has no uid for {daemon}")]
    NoUser {
        /// Which file.
        path: PathBuf,
        /// Which daemon.
        daemon: String,
    },
}

/// Where things are.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Paths {
    /// Sockets and the self-test report.
    pub run: PathBuf,
    /// A folder a daemon for its records.
    pub state: PathBuf,
    /// The installed programs.
    pub bin: PathBuf,
    /// Shipped data: the key policy.
    pub etc: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            run: "/run/casemate".into(),
            state: "/var/lib/casemate".into(),
            bin: "/usr/lib/casemate".into(),
            etc: "/etc/casemate".into(),
        }
    }
}

impl Paths {
    /// The report of the power-on self-test.
    #[must_use]
    pub fn post_report(&self) -> PathBuf {
        self.run.join("post.json")
    }

    /// The control socket of `daemon`.
    #[must_use]
    pub fn socket(&self, daemon: &str) -> PathBuf {
        self.run.join(format!("{daemon}.sock"))
    }

    /// The records of `daemon`.
    #[must_use]
    pub fn state_of(&self, daemon: &str) -> PathBuf {
        self.state.join(daemon)
    }

    /// What `daemon` publishes for all to read.
    #[must_use]
    pub fn public_of(&self, daemon: &str) -> PathBuf {
        self.state_of(daemon).join("public")
    }
}

/// Where audit events go.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct AuditSection {
    /// journald's native socket.
    pub journal_socket: PathBuf,
    /// JSON lines, used where there is no journald.
    pub file: PathBuf,
}

impl Default for AuditSection {
    fn default() -> Self {
        Self { journal_socket: "/run/systemd/journal/socket".into(), file: "/var/log/casemate/journal.jsonl".into() }
    }
}

/// The security mode.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SecuritySection {
    /// `fips` or `non-fips`.
    pub mode: Mode,
}

/// What phones and certificates call this node.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct NodeSection {
    /// Host name, the common name of the RSA identity certificates.
    pub host: String,
    /// Address that files tell phones to use, and that listeners bind to.
    pub address: IpAddr,
    /// Organisation, `O` of every subject.
    pub organisation: String,
    /// Organisational unit, `OU` of every subject.
    pub unit: String,
    /// Locality, `L` of every subject.
    pub locality: String,
    /// State or province, `ST` of every subject.
    pub state: String,
    /// Two-letter country, `C` of every subject.
    pub country: String,
}

impl Default for NodeSection {
    fn default() -> Self {
        Self {
            host: "casemate".into(),
            address: IpAddr::from([0, 0, 0, 0]),
            organisation: "Casemate".into(),
            unit: "Voice".into(),
            locality: "Bern".into(),
            state: "BE".into(),
            country: "CH".into(),
        }
    }
}

/// The programs that have a section of their own.
const PROGRAMS: [&str; 8] = ["capf", "certmgr", "console", "ctlprovider", "keyd", "postd", "tftp", "tvs"];

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    paths: Paths,
    #[serde(default)]
    security: SecuritySection,
    #[serde(default)]
    audit: AuditSection,
    #[serde(default)]
    node: NodeSection,
    #[serde(default)]
    users: BTreeMap<String, u32>,
    #[serde(flatten)]
    sections: BTreeMap<String, toml::Value>,
}

/// The settings file, read once at start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where things are.
    pub paths: Paths,
    /// The security mode.
    pub mode: Mode,
    /// Where audit events go.
    pub audit: AuditSettings,
    /// Names and address of this node.
    pub node: NodeSection,
    path: PathBuf,
    users: BTreeMap<String, u32>,
    sections: BTreeMap<String, toml::Value>,
}

impl Config {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// With file, line and reason.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let file: File = toml::from_str(text)
            .map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })?;
        if let Some(unknown) = file.sections.keys().find(|name| !PROGRAMS.contains(&name.as_str())) {
            return Err(ConfigError::Unknown { path: path.to_owned(), section: unknown.clone() });
        }
        Ok(Self {
            paths: file.paths,
            mode: file.security.mode,
            audit: AuditSettings { journal_socket: file.audit.journal_socket, file: file.audit.file },
            node: file.node,
            path: path.to_owned(),
            users: file.users,
            sections: file.sections,
        })
    }

    /// The section of `daemon`; its defaults where the file has none.
    ///
    /// # Errors
    /// A key is unknown or of the wrong kind.
    pub fn section<S: DeserializeOwned + Default>(&self, daemon: &str) -> Result<S, ConfigError> {
        let Some(value) = self.sections.get(daemon) else { return Ok(S::default()) };
        value.clone().try_into().map_err(|source| ConfigError::Section {
            path: self.path.clone(),
            section: daemon.to_owned(),
            source: Box::new(source),
        })
    }

    /// The uid under which `daemon` runs, as `[users]` says: fixed numbers, the same in the image and in the lab.
    ///
    /// # Errors
    /// `[users]` does not name it.
    pub fn uid_of(&self, daemon: &str) -> Result<u32, ConfigError> {
        self.users
            .get(daemon)
            .copied()
            .ok_or_else(|| ConfigError::NoUser { path: self.path.clone(), daemon: daemon.to_owned() })
    }

    /// The control socket of `daemon`, with the uid that must be behind it.
    ///
    /// # Errors
    /// `[users]` does not name it.
    pub fn server(&self, daemon: &str) -> Result<LocalServer, ConfigError> {
        Ok(LocalServer::new(self.paths.socket(daemon), self.uid_of(daemon)?))
    }

    /// Every daemon of `[users]` that runs under `uid`: one each, but where a developer without root runs them all.
    pub fn daemons_of(&self, uid: u32) -> impl Iterator<Item = &str> {
        self.users.iter().filter(move |(_, user)| **user == uid).map(|(daemon, _)| daemon.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
    struct Capf {
        port: u16,
    }

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(Path::new("casemate.toml"), text)
    }

    #[test]
    fn a_section_is_read_and_its_unknown_keys_are_refused() {
        let config = parse("[capf]\nport = 3804\n[tvs]\npotr = 1\n[users]\ncapf = 7").unwrap();
        assert_eq!(config.section::<Capf>("capf").unwrap(), Capf { port: 3804 });
        let error = config.section::<Capf>("tvs").unwrap_err().to_string();
        assert!(error.contains("[tvs]") && error.contains("potr"), "{error}");
        assert_eq!(config.section::<Capf>("tftp").unwrap(), Capf { port: 0 });
        assert_eq!(config.daemons_of(7).collect::<Vec<_>>(), ["capf"]);
        assert!(config.uid_of("tvs").is_err());
    }

    #[test]
    fn fips_is_what_an_empty_file_means() {
        assert_eq!(parse("").unwrap().mode, Mode::Fips);
        assert!(parse("[security]\nmode = \"off\"").is_err());
        assert!(parse("[paths]\nrum = \"/x\"").is_err());
        let error = parse("[securty]\nmode = \"non-fips\"").unwrap_err().to_string();
        assert!(error.contains("[securty]"), "{error}");
    }
}
