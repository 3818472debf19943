//! Refusals into the audit trail, but not more than a flood of forged datagrams may put there.

use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use casemate_audit::{Auditor, Event};

use crate::name::Transport;

/// The time in which the limit counts.
const WINDOW: Duration = Duration::from_secs(10);

struct Window {
    began: Instant,
    recorded: u32,
    left_out: u64,
}

/// Records refused requests: at most a number of them in ten seconds, and then how many were left out.
pub struct Refusals {
    auditor: Arc<Auditor>,
    limit: u32,
    window: Mutex<Window>,
}

impl Refusals {
    /// At most `limit` refusals in ten seconds go to `auditor`.
    #[must_use]
    pub fn new(auditor: Arc<Auditor>, limit: NonZeroU32) -> Arc<Self> {
        let window = Window { began: Instant::now(), recorded: 0, left_out: 0 };
        Arc::new(Self { auditor, limit: limit.get(), window: Mutex::new(window) })
    }

    /// A file was refused.
    pub fn file(&self, transport: Transport, peer: &str, name: &[u8], reason: &str) {
        self.record(
            transport,
            peer,
            &Event::FileRefused {
                service: transport.name().into(),
                peer: peer.into(),
                file: String::from_utf8_lossy(name).into_owned(),
                reason: reason.into(),
            },
        );
    }

    /// A peer broke the protocol.
    pub fn protocol(&self, transport: Transport, peer: &str, reason: &str) {
        self.record(
            transport,
            peer,
            &Event::ProtocolRefused { service: transport.name().into(), peer: peer.into(), reason: reason.into() },
        );
    }

    /// A peer was silent for too long while doing `step`.
    pub fn silence(&self, transport: Transport, peer: &str, step: &str) {
        self.record(
            transport,
            peer,
            &Event::ConnectionTimedOut { service: transport.name().into(), peer: peer.into(), step: step.into() },
        );
    }

    fn record(&self, transport: Transport, peer: &str, event: &Event) {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if window.began.elapsed() >= WINDOW {
            if window.left_out > 0 {
                self.auditor.record(&Event::ConnectionRefused {
                    service: transport.name().into(),
                    peer: peer.into(),
                    limit: "audited-refusals".into(),
                    suppressed: window.left_out,
                });
            }
            *window = Window { began: Instant::now(), recorded: 0, left_out: 0 };
        }
        if window.recorded >= self.limit {
            window.left_out += 1;
            return;
        }
        window.recorded += 1;
        drop(window);
        self.auditor.record(event);
    }
}

#[cfg(test)]
mod tests {
    use casemate_audit::AuditSettings;

    use super::*;

    #[test]
    fn a_flood_leaves_a_bounded_trail_and_a_count() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("journal.jsonl");
        let settings = AuditSettings { journal_socket: dir.path().join("absent"), file: file.clone() };
        let auditor = Arc::new(Auditor::open("casemate-tftp", &settings).unwrap());
        let refusals = Refusals::new(auditor, NonZeroU32::new(3).unwrap());
        for _ in 0..1000 {
            refusals.file(Transport::Tftp, "192.0.2.1:9", b"../x", "no");
        }
        let trail = || std::fs::read_to_string(&file).unwrap();
        assert_eq!(trail().lines().count(), 3);
        let before = Instant::now().checked_sub(WINDOW).unwrap();
        refusals.window.lock().unwrap().began = before;
        refusals.protocol(Transport::Tftp, "192.0.2.1:9", "cut");
        assert!(trail().contains("997"), "{}", trail());
        assert!(trail().contains("ProtocolRefused"));
    }
}
