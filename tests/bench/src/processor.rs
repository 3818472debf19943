//! Processor time by process: where a number comes from, and what does not change when somebody else uses the machine too.

use std::{fs, time::Duration};

use casemate_harness::{DAEMONS, Lab};

/// Linux counts processor time for proc(5) in hundredths of a second (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

/// Processor time that each daemon and the load itself have used so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Used(Vec<(&'static str, Duration)>);

impl Used {
    pub(crate) fn now(lab: &Lab) -> Self {
        let daemons = DAEMONS.iter().filter_map(|(daemon, _)| Some((*daemon, lab.pid(daemon)?.to_string())));
        let processes = daemons.chain([("the load", "self".to_owned())]);
        Self(processes.map(|(name, process)| (name, of(&process))).collect())
    }

    /// What was used after `earlier`, by processes that ran then; those that used nothing are left out.
    pub(crate) fn since(&self, earlier: &Self) -> Vec<(&'static str, Duration)> {
        let before = |name: &str| earlier.0.iter().find(|(other, _)| *other == name).map(|(_, time)| *time);
        let used = self.0.iter().filter_map(|(name, time)| Some((*name, time.checked_sub(before(name)?)?)));
        used.filter(|(_, time)| !time.is_zero()).collect()
    }
}

/// Processor time that the process of this number, or `self`, has used so far.
pub(crate) fn of(process: &str) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    ticks(&stat).map_or(Duration::ZERO, |ticks| TICK * ticks)
}

/// `utime` and `stime` of proc_pid_stat(5); the name before them is in parentheses and may hold spaces.
fn ticks(stat: &str) -> Option<u32> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11).map(str::parse::<u32>);
    Some(fields.next()?.ok()? + fields.next()?.ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_behind_any_name() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 120 30 0 0 20 0";
        assert_eq!(ticks(stat), Some(150));
        assert_eq!(ticks("7 (a"), None);
    }

    #[test]
    fn only_processes_of_both_moments_are_compared() {
        let ms = Duration::from_millis;
        let earlier = Used(vec![("keyd", ms(100)), ("capf", ms(50))]);
        let later = Used(vec![("keyd", ms(300)), ("capf", ms(50)), ("tvs", ms(90))]);
        assert_eq!(later.since(&earlier), [("keyd", ms(200))]);
    }
}
