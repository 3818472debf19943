use std::fs;

use casemate_harness::Lab;

/// Memory of a process, in MiB.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Memory {
    /// Pages in memory (`VmRSS` of proc_pid_status(5)).
    pub(crate) resident: f64,
    /// The same with what several processes share divided among them (`Pss` of `smaps_rollup`); root alone may look.
    pub(crate) proportional: f64,
    /// The most that was ever in memory (`VmHWM`).
    pub(crate) peak: f64,
}

impl Memory {
    /// Of keyd, while it runs.
    pub(crate) fn of_keyd(lab: &Lab) -> Self {
        let read = |name: &str| {
            let path = lab.pid("keyd").map(|pid| format!("/proc/{pid}/{name}"));
            path.and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default()
        };
        Self::read(&read("status"), &read("smaps_rollup"))
    }

    fn read(status: &str, smaps: &str) -> Self {
        let of = |text: &str, name: &str| mebibytes(text, name).unwrap_or(f64::NAN);
        Self { resident: of(status, "VmRSS:"), proportional: of(smaps, "Pss:"), peak: of(status, "VmHWM:") }
    }

    /// The larger of each.
    pub(crate) fn or_more(self, other: Self) -> Self {
        Self {
            resident: self.resident.max(other.resident),
            proportional: self.proportional.max(other.proportional),
            peak: self.peak.max(other.peak),
        }
    }
}

fn mebibytes(text: &str, name: &str) -> Option<f64> {
    let kib: f64 = text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()?;
    Some(kib / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_by_the_kernels_names_and_the_larger_of_two_counts() {
        let status = "Name:\tcasemate-keyd\nVmHWM:\t   20480 kB\nVmRSS:\t   10240 kB\n";
        let smaps =
            "559d8 ---p 00000000 00:00 0 [rollup]\nRss:  10240 kB\nPss:                5120 kB\nPss_Dirty: 1 kB\n";
        let read = Memory::read(status, smaps);
        assert_eq!(read, Memory { resident: 10.0, proportional: 5.0, peak: 20.0 });
        let more = read.or_more(Memory { resident: 11.0, proportional: 1.0, peak: 1.0 });
        assert_eq!(more, Memory { resident: 11.0, proportional: 5.0, peak: 20.0 });
        assert!(Memory::read(status, "").proportional.is_nan());
    }
}
