//! What one caller can write: to the audit trail by being refused, and to the record of signatures by having keys used. A daemon
//! that was taken over must neither hide others' refusals behind its own nor fill the record until it was put aside.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use casemate_audit::{Auditor, Event};
use casemate_runtime::refusals::{Refusals, WINDOW};

use crate::Spent;

/// The name under which what was left out is told.
const SERVICE: &str = "keyd";

/// Refusals in the audit trail: a number of them in ten seconds for each user of `[users]`, and as many for all strangers, refused
/// connections and broken frames together. What is over is counted.
pub(crate) struct AuditedRefusals {
    per_window: NonZeroU32,
    auditor: Arc<Auditor>,
    strangers: Arc<Refusals>,
    /// One for each user that the broker knows, so there are few.
    users: Mutex<HashMap<u32, Arc<Refusals>>>,
}

impl AuditedRefusals {
    pub(crate) fn new(per_window: NonZeroU32, auditor: &Arc<Auditor>) -> Self {
        let strangers = Refusals::new(SERVICE, per_window, WINDOW, Arc::clone(auditor));
        Self { per_window, auditor: Arc::clone(auditor), strangers, users: Mutex::default() }
    }

    /// Of those whom the broker does not know, or has not listened to yet.
    pub(crate) const fn of_strangers(&self) -> &Arc<Refusals> {
        &self.strangers
    }

    /// A refusal of a user whom the broker knows.
    pub(crate) fn of_user(&self, uid: u32, event: &Event) {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        let user = users.entry(uid).or_insert_with(|| {
            let service = format!("{SERVICE}, uid {uid}");
            Refusals::summed_by(left_out, service, self.per_window, WINDOW, Arc::clone(&self.auditor))
        });
        let user = Arc::clone(user);
        drop(users);
        user.record(event);
    }
}

fn left_out(service: &str, suppressed: u64) -> Event {
    Event::EventsNotListed {
        service: service.to_owned(),
        event: "KeyUseRefused and AttestationRefused".to_owned(),
        limit: "audited-refusals".to_owned(),
        suppressed,
    }
}

/// Milliseconds of a day.
const DAY: u128 = 86_400_000;

/// How much of the record each user may fill: so many bytes a day, saved up for a day at most. The record as a whole has room for
/// `file-bytes` times `keep`, so this is what decides how many days of it are left when somebody tries to write over his traces.
pub(crate) struct Shares {
    bytes_a_day: u64,
    users: Mutex<HashMap<u32, Credit>>,
}

struct Credit {
    /// Bytes, times the milliseconds of a day.
    left: u128,
    since: Instant,
}

impl Shares {
    /// `spent` is what users have written in the day before `now`, when the broker did not run or ran as another process: all of it is
    /// taken from their shares, as if they had saved nothing before that day.
    pub(crate) fn new(bytes_a_day: u64, spent: &Spent, now: Instant) -> Self {
        let most = u128::from(bytes_a_day) * DAY;
        let credit = |bytes: u64| Credit { left: most.saturating_sub(u128::from(bytes) * DAY), since: now };
        let users = spent.iter().map(|(uid, bytes)| (*uid, credit(*bytes))).collect();
        Self { bytes_a_day, users: Mutex::new(users) }
    }

    pub(crate) const fn bytes_a_day(&self) -> u64 {
        self.bytes_a_day
    }

    /// Whether `uid` may write so many bytes at the time `now`; if so they are spent.
    pub(crate) fn spend(&self, uid: u32, bytes: usize, now: Instant) -> bool {
        self.with(uid, now, |credit| {
            let left = credit.left.checked_sub(cost(bytes));
            credit.left = left.unwrap_or(credit.left);
            left.is_some()
        })
    }

    /// So many bytes were written for `uid`, whatever was left.
    pub(crate) fn spent(&self, uid: u32, bytes: usize, now: Instant) {
        self.with(uid, now, |credit| credit.left = credit.left.saturating_sub(cost(bytes)));
    }

    fn with<T>(&self, uid: u32, now: Instant, change: impl FnOnce(&mut Credit) -> T) -> T {
        let most = u128::from(self.bytes_a_day) * DAY;
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        let credit = users.entry(uid).or_insert(Credit { left: most, since: now });
        let milliseconds = now.saturating_duration_since(credit.since).as_millis();
        let earned = milliseconds.saturating_mul(u128::from(self.bytes_a_day));
        credit.left = credit.left.saturating_add(earned).min(most);
        // Whole milliseconds: what is left of one counts the next time.
        credit.since += Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0));
        change(credit)
    }
}

fn cost(bytes: usize) -> u128 {
    (bytes as u128).saturating_mul(DAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_share_is_used_up_by_its_user_alone_and_grows_back_within_a_day() {
        let begin = Instant::now();
        let shares = Shares::new(2400, &Spent::new(), begin);
        assert!(shares.spend(1, 2000, begin) && shares.spend(1, 400, begin));
        assert!(!shares.spend(1, 1, begin));
        assert!(shares.spend(2, 2400, begin), "another's share is his own");
        assert!(!shares.spend(1, 101, begin + HOUR) && shares.spend(1, 100, begin + HOUR));
        assert!(!shares.spend(1, 2401, begin + HOUR * 1000), "no more than a day's is saved up");
        assert!(shares.spend(1, 2400, begin + HOUR * 1000));
    }

    #[test]
    fn what_was_written_before_the_start_is_spent() {
        let begin = Instant::now();
        let shares = Shares::new(2400, &Spent::from([(1, 2000), (2, u64::MAX)]), begin);
        assert!(!shares.spend(1, 401, begin) && shares.spend(1, 400, begin));
        assert!(!shares.spend(2, 1, begin) && shares.spend(2, 100, begin + HOUR));
        assert!(shares.spend(3, 2400, begin));
    }

    #[test]
    fn asking_often_earns_no_less_and_what_was_refused_costs_nothing() {
        let begin = Instant::now();
        let shares = Shares::new(86_400_000, &Spent::new(), begin);
        assert!(shares.spend(1, 86_400_000, begin));
        for microseconds in 1..=10_000 {
            let _ = shares.spend(1, 1000, begin + Duration::from_micros(microseconds));
        }
        assert!(shares.spend(1, 10, begin + Duration::from_millis(10)), "ten milliseconds earn ten bytes");
        assert!(!shares.spend(1, 1, begin + Duration::from_millis(10)));
        shares.spent(1, 5, begin + Duration::from_millis(11));
        assert!(shares.spend(1, 1, begin + Duration::from_millis(12)), "there are no debts");
    }
}
