//! The registry of audit events: one enum, a stable `MESSAGE_ID` each, and the way into the journal.
//!
//! Events go to journald's native socket, or, where there is none, to a file with one JSON object a line and the same field
//! names. Control characters in values from the network cannot forge a second event: journald fields are length-prefixed when
//! they hold a line break, and JSON escapes them.
#![forbid(unsafe_code)]

mod auditor;
mod event;
mod record;

pub use auditor::{AuditError, AuditSettings, Auditor};
use event::MEANINGS;
pub use event::{Event, REGISTRY};
pub use record::{NUMBER, Priority, Record, Value};

/// The journal's message catalog (`journalctl -x`, <https://systemd.io/CATALOG/>), made from the registry so that the two cannot
/// differ: what an event means, and its message with the fields of the very record (`@FIELD@`).
#[must_use]
pub fn catalog() -> String {
    let heading = "# Made by casemate_audit::catalog() from the registry of events; a test holds it to that.\n\n";
    let entries = REGISTRY.iter().zip(MEANINGS).map(|((name, id, template), meaning)| {
        let (meaning, message) = (lines(meaning), with_fields(template));
        format!("-- {id}\nSubject: Casemate: {name}\nDefined-By: Casemate\n\n{meaning}\n\n{message}\n\n")
    });
    std::iter::once(heading.to_owned()).chain(entries).collect()
}

/// The lines of a doc comment without the space before each.
fn lines(text: &str) -> String {
    text.lines().map(str::trim).collect::<Vec<_>>().join("\n")
}

/// `{role}` as the journal's field: `@CASEMATE_ROLE@`.
fn with_fields(template: &str) -> String {
    let mut parts = template.split('{');
    let before = parts.next().unwrap_or_default().to_owned();
    parts.fold(before, |text, part| match part.split_once('}') {
        Some((field, rest)) => format!("{text}@CASEMATE_{}@{rest}", field.to_ascii_uppercase()),
        None => format!("{text}{{{part}"),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn message_ids_are_unique_and_well_formed() {
        let ids: BTreeSet<_> = REGISTRY.iter().map(|(_, id, _)| *id).collect();
        assert_eq!(ids.len(), REGISTRY.len());
        assert!(ids.iter().all(|id| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())));
    }

    #[test]
    fn the_catalog_has_every_event_with_its_meaning_and_the_fields_of_its_record() {
        let catalog = catalog();
        for (name, id, _) in REGISTRY {
            let entry = catalog.split(&format!("-- {id}\n")).nth(1).unwrap();
            assert!(entry.starts_with(&format!("Subject: Casemate: {name}\n")), "{entry}");
        }
        assert!(!catalog.contains(['{', '}']), "a field that no journal knows");
        let stopped = catalog.split("-- 01a98f109d9d475bb454594617e4411f\n").nth(1).unwrap();
        let whole = "Subject: Casemate: ServiceStopped\nDefined-By: Casemate\n\nA daemon ended because it was told to.\n\n\
                     service stopped: @CASEMATE_REASON@\n\n";
        assert!(stopped.starts_with(whole), "{stopped}");
    }
}
