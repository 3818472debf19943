//! Numbers of the key broker's own record that the audit trail has a copy of, and which it lacks. The record is the authority: every
//! line of it was on disk before its copy was written.

use std::collections::BTreeMap;

/// More separate runs of numbers than this are not kept apart: memory stays bounded, whatever a trail says.
const MOST_RUNS: usize = 1024;

/// So many gaps are named.
const NAMED: usize = 8;

/// The numbers that were seen.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    /// First number of each run without a gap, and its last.
    runs: BTreeMap<u64, u64>,
    /// Numbers that were seen before; the first of them.
    twice: Option<u64>,
    /// What should be a number and is none; the first of them.
    unread: Option<String>,
    too_many: bool,
}

impl Numbers {
    /// Takes the number of one event.
    pub(super) fn saw(&mut self, text: &str) {
        match text.parse() {
            Ok(number) if number > 0 => self.add(number),
            _ => drop(self.unread.get_or_insert_with(|| text.chars().take(32).collect())),
        }
    }

    fn add(&mut self, number: u64) {
        let before = self.runs.range(..=number).next_back().map(|(first, last)| (*first, *last));
        if before.is_some_and(|(_, last)| last >= number) {
            self.twice.get_or_insert(number);
            return;
        }
        let first = before.filter(|(_, last)| last + 1 == number).map_or(number, |(first, _)| first);
        // A run that begins right behind is one with this.
        let last = number.checked_add(1).and_then(|next| self.runs.remove(&next)).unwrap_or(number);
        self.runs.insert(first, last);
        if self.runs.len() > MOST_RUNS {
            self.too_many = true;
            self.runs.pop_first();
        }
    }

    /// The lowest number.
    pub(super) fn first(&self) -> Option<u64> {
        self.runs.keys().next().copied()
    }

    /// What does not agree with the record, whose last number is `recorded` where that is known; a sentence each. What the trail holds
    /// no more at its beginning is none of it: a journal is limited.
    pub(super) fn lacking(&self, recorded: Option<u64>) -> Vec<String> {
        let starts = self.runs.keys().copied().skip(1);
        let mut gaps: Vec<(u64, u64)> =
            self.runs.values().zip(starts).map(|(last, next)| (last + 1, next - 1)).collect();
        let last = self.runs.values().next_back().copied().unwrap_or_default();
        gaps.extend(recorded.filter(|recorded| *recorded > last).map(|recorded| (last + 1, recorded)));
        let told = gaps.iter().take(NAMED).map(|(from, to)| {
            let numbers = if from == to { format!("number {from}") } else { format!("numbers {from} to {to}") };
            format!("{numbers} of the key broker's record: not in the trail")
        });
        let more = gaps.len().saturating_sub(NAMED);
        let more = (more > 0 || self.too_many).then(|| format!("and {more} gaps more, or over {MOST_RUNS}"));
        let twice = self.twice.map(|number| {
            format!("number {number} of the key broker's record is in the trail twice: somebody wrote it, or the record was begun anew")
        });
        let unread = self.unread.as_ref().map(|text| format!("{text:?} is no number of the key broker's record"));
        told.chain(more).chain(twice).chain(unread).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(numbers: &[u64]) -> Numbers {
        let mut seen = Numbers::default();
        numbers.iter().for_each(|number| seen.saw(&number.to_string()));
        seen
    }

    #[test]
    fn gaps_are_named_within_and_at_the_end_and_not_at_the_beginning() {
        // Two threads may copy in another order than they recorded.
        assert_eq!(of(&[3, 5, 4, 7, 6]).lacking(Some(7)), Vec::<String>::new());
        assert_eq!(of(&[3, 5, 4, 7, 6]).first(), Some(3));
        let told = |numbers: &[u64], recorded| of(numbers).lacking(recorded).join("; ");
        assert_eq!(told(&[1, 3], None), "number 2 of the key broker's record: not in the trail");
        assert_eq!(told(&[1], Some(2)), "number 2 of the key broker's record: not in the trail");
        assert_eq!(told(&[1], Some(4)), "numbers 2 to 4 of the key broker's record: not in the trail");
        assert_eq!(told(&[], Some(2)), "numbers 1 to 2 of the key broker's record: not in the trail");
        assert_eq!(told(&[], Some(0)), "");
        assert!(told(&[1, 2, 1], None).contains("number 1 of the key broker's record is in the trail twice"));
        assert!(told(&[0], None).contains("\"0\" is no number"));
        assert!(told(&[u64::MAX], None).is_empty());
        let sparse: Vec<u64> = (1..5000).map(|number| number * 2).collect();
        let seen = of(&sparse);
        assert!(seen.runs.len() <= MOST_RUNS && seen.lacking(None).len() == NAMED + 1);
    }

    proptest! {
        #[test]
        fn no_number_is_lost_or_made_up(numbers in prop::collection::btree_set(1_u64..60, 0..40), last in 0_u64..70) {
            let seen = of(&numbers.iter().rev().copied().collect::<Vec<_>>());
            let missing = |number: &u64| !numbers.contains(number);
            let from = numbers.first().copied().unwrap_or(1);
            let to = last.max(numbers.last().copied().unwrap_or(0));
            let gaps = (from..=to).filter(missing).filter(|number| *number == from || numbers.contains(&(number - 1))).count();
            prop_assert_eq!(seen.lacking(Some(last)).len().min(NAMED), gaps.min(NAMED));
        }
    }
}
