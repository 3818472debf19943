use std::{
    collections::BTreeMap,
    process,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::Event;

/// No value is longer than this in bytes: a record fits one datagram of journald's socket, and a peer cannot fill the disk
/// with one name.
const VALUE_LIMIT: usize = 2048;

/// The field with an event's number in the key broker's own record; counted from 1, and only what is on disk there has one.
pub const NUMBER: &str = "CASEMATE_RECORD";

/// Syslog priority (RFC 5424, 6.2.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[allow(missing_docs)] // RFC 5424's words
pub enum Priority {
    Critical = 2,
    Error = 3,
    Warning = 4,
    Notice = 5,
    Info = 6,
}

/// The value of a field.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Value {
    /// Text, cut at 2048 bytes when written.
    Text(String),
    /// A whole number.
    Number(i128),
    /// Yes or no.
    Bool(bool),
}

macro_rules! number_value {
    ($($kind:ty)*) => {$(
        impl From<$kind> for Value {
            fn from(number: $kind) -> Self {
                Self::Number(number as i128)
            }
        }
    )*};
}
number_value!(u32 i32 u64 i64 usize);

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}

impl Value {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => cut(text).to_owned(),
            Self::Number(number) => number.to_string(),
            Self::Bool(truth) => truth.to_string(),
        }
    }
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(VALUE_LIMIT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// An event with who recorded it and when, as pairs of journal field and text.
#[derive(Clone, Debug)]
pub struct Record(Vec<(String, String)>);

impl Record {
    /// Stamps `event` with this process and this moment; `service` is the daemon's name (`SYSLOG_IDENTIFIER`).
    #[must_use]
    pub fn new(service: &str, event: &Event) -> Self {
        let micros = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_micros());
        let mut fields = vec![
            ("MESSAGE".to_owned(), cut(&event.message()).to_owned()),
            ("MESSAGE_ID".to_owned(), event.message_id().to_owned()),
            ("PRIORITY".to_owned(), (event.priority() as u8).to_string()),
            ("SYSLOG_IDENTIFIER".to_owned(), service.to_owned()),
            ("SYSLOG_PID".to_owned(), process::id().to_string()),
            ("CASEMATE_TIMESTAMP".to_owned(), micros.to_string()),
            ("CASEMATE_EVENT".to_owned(), event.name().to_owned()),
        ];
        for (name, value) in event.fields() {
            fields.push((format!("CASEMATE_{}", name.to_ascii_uppercase()), value.text()));
        }
        Self(fields)
    }

    /// The same record with the number that it has in the key broker's own record (`CASEMATE_RECORD`): the journal's copy carries it
    /// too, so that a copy that is missing shows as a gap.
    #[must_use]
    pub fn numbered(mut self, number: u64) -> Self {
        self.0.push((NUMBER.to_owned(), number.to_string()));
        self
    }

    /// What is told, in one line.
    pub(crate) fn summary(&self) -> String {
        let field = |name| self.0.iter().find(|(field, _)| field == name).map_or("", |(_, text)| text.as_str());
        format!("{} ({} {})", field("MESSAGE"), field("CASEMATE_EVENT"), field("MESSAGE_ID"))
    }

    /// One JSON object and a line's end.
    #[must_use]
    pub fn json_line(&self) -> Vec<u8> {
        let object: BTreeMap<&str, &str> = self.0.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let mut line = serde_json::to_vec(&object).expect("texts under texts are always JSON");
        line.push(b'\n');
        line
    }

    /// One datagram of the Journal Native Protocol (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>): `NAME=text`, or, when the
    /// text holds a line break, the name, a 64-bit little-endian length and the text.
    #[must_use]
    pub fn journal_datagram(&self) -> Vec<u8> {
        let mut datagram = Vec::with_capacity(512);
        for (name, text) in &self.0 {
            datagram.extend_from_slice(name.as_bytes());
            if text.contains('\n') {
                datagram.push(b'\n');
                datagram.extend_from_slice(&(text.len() as u64).to_le_bytes());
            } else {
                datagram.push(b'=');
            }
            datagram.extend_from_slice(text.as_bytes());
            datagram.push(b'\n');
        }
        datagram
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hostile() -> Record {
        Record::new(
            "casemate-tftp",
            &Event::FileRefused {
                service: "tftp".into(),
                peer: "127.0.0.1".into(),
                file: "a\nMESSAGE_ID=0\n\"b".into(),
                reason: "é".repeat(3000),
            },
        )
    }

    #[test]
    fn a_line_break_in_a_name_forges_no_field() {
        let datagram = hostile().journal_datagram();
        let text = String::from_utf8_lossy(&datagram);
        assert!(!text.lines().any(|line| line.starts_with("CASEMATE_FILE=")));
        let at = datagram.windows(14).position(|w| w == b"CASEMATE_FILE\n").unwrap() + 14;
        assert_eq!(datagram[at..at + 8], 17u64.to_le_bytes());
    }

    #[test]
    fn a_json_record_is_one_line_and_bounded() {
        let line = hostile().json_line();
        assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value["CASEMATE_FILE"], "a\nMESSAGE_ID=0\n\"b");
        assert_eq!(value["CASEMATE_REASON"].as_str().unwrap().len(), 2048);
    }
}
