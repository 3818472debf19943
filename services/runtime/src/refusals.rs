//! What strangers did, into the audit trail, but not more of it than a flood may put there.

use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use casemate_audit::{Auditor, Event};

/// The time in which the limit counts, where a service has no reason for another.
pub const WINDOW: Duration = Duration::from_secs(10);

struct Window {
    began: Instant,
    recorded: u32,
    left_out: u64,
}

/// The event that says how many of a service's refusals were left out.
pub type Summary = fn(service: &str, suppressed: u64) -> Event;

/// Records the refusals of one service: at most a number of them in a window of time. How many were left out is recorded with
/// the first refusal after the window, or when the service ends.
///
/// For events that anybody on the network can cause. What an authenticated peer does goes to the [`Auditor`] itself.
pub struct Refusals {
    service: String,
    per_window: u32,
    length: Duration,
    summary: Summary,
    auditor: Arc<Auditor>,
    window: Mutex<Window>,
}

impl Refusals {
    /// At most `per_window` refusals of `service` in each `window` go to `auditor`.
    #[must_use]
    pub fn new(
        service: impl Into<String>,
        per_window: NonZeroU32,
        window: Duration,
        auditor: Arc<Auditor>,
    ) -> Arc<Self> {
        Self::summed_by(turned_away, service, per_window, window, auditor)
    }

    /// As [`Refusals::new`], for other events than refusals: `summary` says how many were left out.
    #[must_use]
    pub fn summed_by(
        summary: Summary,
        service: impl Into<String>,
        per_window: NonZeroU32,
        window: Duration,
        auditor: Arc<Auditor>,
    ) -> Arc<Self> {
        Arc::new(Self {
            service: service.into(),
            per_window: per_window.get(),
            length: window,
            summary,
            auditor,
            window: Mutex::new(Window { began: Instant::now(), recorded: 0, left_out: 0 }),
        })
    }

    /// The service whose refusals these are.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.service
    }

    /// Records `event`, or counts it where the window has its number.
    pub fn record(&self, event: &Event) {
        let mut window = self.window();
        let left_out = if window.began.elapsed() < self.length {
            0
        } else {
            std::mem::replace(&mut *window, Window { began: Instant::now(), recorded: 0, left_out: 0 }).left_out
        };
        let room = window.recorded < self.per_window;
        if room {
            window.recorded += 1;
        } else {
            window.left_out += 1;
        }
        drop(window);
        self.record_left_out(left_out);
        if room {
            self.auditor.record(event);
        }
    }

    /// A peer broke the protocol.
    pub fn protocol(&self, peer: &str, reason: &str) {
        self.record(&Event::ProtocolRefused {
            service: self.service.clone(),
            peer: peer.into(),
            reason: reason.into(),
        });
    }

    /// A peer was silent for too long while doing `step`.
    pub fn silence(&self, peer: &str, step: &str) {
        self.record(&Event::ConnectionTimedOut { service: self.service.clone(), peer: peer.into(), step: step.into() });
    }

    fn record_left_out(&self, suppressed: u64) {
        if suppressed > 0 {
            self.auditor.record(&(self.summary)(&self.service, suppressed));
        }
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn turned_away(service: &str, suppressed: u64) -> Event {
    Event::ConnectionRefused {
        service: service.to_owned(),
        peer: "several peers".into(),
        limit: "audited-refusals".into(),
        suppressed,
    }
}

impl Drop for Refusals {
    fn drop(&mut self) {
        let left_out = self.window().left_out;
        self.record_left_out(left_out);
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use casemate_audit::AuditSettings;
    use tempfile::TempDir;

    use super::*;

    fn refusals(window: Duration) -> (TempDir, PathBuf, Arc<Refusals>) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("journal.jsonl");
        let settings = AuditSettings { journal_socket: folder.path().join("absent"), file: file.clone() };
        let auditor = Arc::new(Auditor::open("casemate-test", &settings).unwrap());
        (folder, file, Refusals::new("test", NonZeroU32::new(3).unwrap(), window, auditor))
    }

    #[test]
    fn a_flood_leaves_a_bounded_trail_and_its_count_after_the_window() {
        let (_folder, file, refusals) = refusals(Duration::from_secs(3600));
        for _ in 0..1000 {
            refusals.protocol("192.0.2.1:9", "nonsense");
        }
        let trail = || fs::read_to_string(&file).unwrap();
        assert_eq!(trail().lines().count(), 3);
        refusals.window().began = Instant::now().checked_sub(Duration::from_secs(3600)).unwrap();
        refusals.silence("192.0.2.2:9", "request");
        assert_eq!(trail().lines().count(), 5);
        assert!(trail().contains("997"), "{}", trail());
        assert!(trail().contains("ConnectionTimedOut"), "{}", trail());
    }

    #[test]
    fn the_count_of_a_last_window_is_recorded_at_the_end() {
        let (_folder, file, refusals) = refusals(Duration::from_secs(3600));
        for _ in 0..10 {
            refusals.silence("192.0.2.1:9", "request");
        }
        drop(refusals);
        let trail = fs::read_to_string(&file).unwrap();
        assert_eq!(trail.lines().count(), 4);
        assert!(trail.lines().last().unwrap().contains("ConnectionRefused"), "{trail}");
    }

    #[test]
    fn each_window_has_room_again() {
        let (_folder, file, refusals) = refusals(Duration::ZERO);
        for _ in 0..10 {
            refusals.silence("192.0.2.1:9", "request");
        }
        let trail = fs::read_to_string(&file).unwrap();
        assert_eq!(trail.lines().count(), 10);
        assert!(!trail.contains("ConnectionRefused"), "{trail}");
    }
}
