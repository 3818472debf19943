//! What a run of the phone did.

use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::identity::{KeySpec, Lsc};

/// A step that held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Its name: `trust list`, `configuration`, `trust verification`, `key`, `enrolment`, `certificate`.
    pub name: &'static str,
    /// How long it took; written in milliseconds.
    #[serde(rename = "ms", serialize_with = "milliseconds")]
    pub took: Duration,
    /// What was seen.
    pub said: String,
}

/// The certificate that the phone holds at the end, checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Held {
    /// Serial number in hex.
    pub serial: String,
    /// Issuer, for people.
    pub issuer: String,
    /// First second of validity, in Unix seconds.
    pub not_before: i64,
    /// Last second of validity, in Unix seconds.
    pub not_after: i64,
    /// Kind and size of the key.
    pub key: String,
}

impl Held {
    pub(super) fn new(lsc: &Lsc, key: KeySpec) -> Self {
        Self {
            serial: lsc.serial.clone(),
            issuer: lsc.issuer.clone(),
            not_before: lsc.not_before,
            not_after: lsc.not_after,
            key: key.to_string(),
        }
    }
}

/// A run in which all held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Transcript {
    /// The device's name.
    pub device: String,
    /// Its steps in order.
    pub steps: Vec<Step>,
    /// The certificate; `None` when the phone has none and its configuration wants none.
    pub certificate: Option<Held>,
}

fn milliseconds<S: Serializer>(took: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((took.as_secs_f64() * 1e6).round() / 1e3)
}
