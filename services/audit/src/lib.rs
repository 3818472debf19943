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
pub use event::{Event, REGISTRY};
pub use record::{Priority, Record, Value};

/// The journal's message catalog (`journalctl -x`), made from the registry so that the two cannot differ.
#[must_use]
pub fn catalog() -> String {
    REGISTRY
        .iter()
        .map(|(name, id, template)| {
            format!("-- {id}\nSubject: Casemate: {name}\nDefined-By: Casemate\n\n{template}\n\n")
        })
        .collect()
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
    fn the_catalog_has_every_event() {
        let catalog = catalog();
        assert!(REGISTRY.iter().all(|(_, id, _)| catalog.contains(id)));
    }
}
