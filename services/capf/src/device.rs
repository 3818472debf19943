use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Longest device name, in bytes.
pub const NAME_LIMIT: usize = 15;

/// The name of a device: a letter, then letters, digits, `.`, `_` and `-`, 15 in all at most; one that begins with `SEP` goes on
/// with twelve hexadecimal digits in capitals, the MAC address (phone-formats §5). It can be part of a file's name.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceName(String);

/// A text that names no device.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "{0:?} is no device name: SEP and 12 hexadecimal digits in capitals, or a letter and up to 14 letters, digits, '.', '_', '-'"
)]
pub struct BadDeviceName(String);

impl DeviceName {
    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn names_a_device(text: &str) -> bool {
    let in_capitals = |byte: u8| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte);
    match text.strip_prefix("SEP") {
        Some(mac) => mac.len() == 12 && mac.bytes().all(in_capitals),
        None => {
            text.len() <= NAME_LIMIT
                && text.starts_with(|first: char| first.is_ascii_alphabetic())
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
                // These make no file name that the file server would serve, and the last is the name of everybody's file.
                && !text.contains("..")
                && !text.ends_with('.')
                && text != "XMLDefault"
        }
    }
}

impl TryFrom<String> for DeviceName {
    type Error = BadDeviceName;

    fn try_from(text: String) -> Result<Self, BadDeviceName> {
        if names_a_device(&text) {
            return Ok(Self(text));
        }
        // It goes into audit events and to the operator: no more of it than helps.
        Err(BadDeviceName(text.chars().take(32).collect()))
    }
}

impl FromStr for DeviceName {
    type Err = BadDeviceName;

    fn from_str(text: &str) -> Result<Self, BadDeviceName> {
        Self::try_from(text.to_owned())
    }
}

impl From<DeviceName> for String {
    fn from(name: DeviceName) -> Self {
        name.0
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phones_and_soft_phones_have_names_and_paths_do_not() {
        for good in ["SEP001122334455", "SEPAABBCCDDEEFF", "CSFjdoe", "BOT1", "x"] {
            assert_eq!(good.parse::<DeviceName>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "SEP00112233445",
            "SEP0011223344556",
            "SEP00112233445g",
            "SEPaabbccddeeff",
            "..",
            "a/b",
            "a b",
            "é",
            "1abc",
            "ABCDEFGHIJKLMNOP",
            "a\0",
            "a..b",
            "a.",
            "XMLDefault",
        ] {
            assert!(bad.parse::<DeviceName>().is_err(), "{bad:?}");
        }
    }
}
