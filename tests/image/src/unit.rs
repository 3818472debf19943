use std::{fs, io};

use crate::{lines, overlay};

/// One of our units, as its file says it.
#[derive(Clone, Debug)]
pub struct Unit {
    /// The file's name: `casemate-keyd.service`.
    pub name: String,
    settings: Vec<(String, String)>,
}

impl Unit {
    /// Every value of `key`, in order.
    pub fn values<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.settings.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The values of every `Exec` setting without their prefixes (systemd.service(5)).
    pub fn commands(&self) -> impl Iterator<Item = &str> {
        let commands = self.settings.iter().filter(|(name, _)| name.starts_with("Exec"));
        commands.map(|(_, value)| value.trim_start_matches(['@', '-', ':', '+', '!']))
    }

    /// The words of every setting that names other units.
    pub fn named(&self) -> impl Iterator<Item = &str> {
        const KEYS: [&str; 8] =
            ["Requires", "Wants", "BindsTo", "After", "Before", "OnFailure", "Requisite", "Conflicts"];
        let settings = self.settings.iter().filter(|(name, _)| KEYS.contains(&name.as_str()));
        settings.flat_map(|(_, value)| value.split_whitespace())
    }
}

/// Every unit that the overlay brings, services and targets.
///
/// # Errors
/// The folder or a file cannot be read.
pub fn units() -> io::Result<Vec<Unit>> {
    let mut units = Vec::new();
    for entry in fs::read_dir(overlay().join("usr/lib/systemd/system"))? {
        let entry = entry?;
        if !entry.file_type()?.is_file() {
            continue;
        }
        let text = fs::read_to_string(entry.path())?;
        let settings = lines(&text).filter_map(|line| line.split_once('='));
        let settings = settings.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect();
        units.push(Unit { name: entry.file_name().to_string_lossy().into_owned(), settings });
    }
    units.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(units)
}
