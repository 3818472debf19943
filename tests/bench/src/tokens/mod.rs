//! Signatures through keyd beside the same calls straight into the token's C interface, for each kind of token of the lab, each in a
//! lab of its own in which nobody else asks for anything.

mod absence;
mod calls;
mod child;
pub(crate) mod direct;
mod measured;
mod memory;
pub(crate) mod requests;

use std::{path::Path, time::Duration};

use casemate_harness::{Lab, LabSettings, Tokens};
use casemate_hsm_api::{KeyAlgorithm, KeyId, KeyRole};
use serde_json::Value;

use crate::{
    BenchError, processor,
    report::{Goal, Report},
    run::say,
};
use calls::Series;
use measured::Measured;
use memory::Memory;

/// Callers at once.
const IN_FLIGHT: [usize; 3] = [1, 2, 4];

/// The tokens, each by the word of `make lab TOKENS=`.
const KINDS: [(&str, Tokens); 4] = [
    ("softhsm", Tokens::SoftHsm),
    ("kryoptic", Tokens::Kryoptic),
    ("tpm", Tokens::Tpm),
    ("tpm2-pkcs11", Tokens::Tpm2Pkcs11),
];

/// The kind of token of this name, for the command line.
pub(crate) fn kind(name: &str) -> Result<Tokens, String> {
    let named = KINDS.into_iter().find(|(known, _)| *known == name).map(|(_, kind)| kind);
    named.ok_or_else(|| format!("the bench measures {}", KINDS.map(|(known, _)| known).join(", ")))
}

/// Measures the kinds of token that `wanted` names, or all if it names none; each thing for `duration`, in labs under `folder`.
pub(crate) fn run(folder: &Path, wanted: &[Tokens], duration: Duration, report: &mut Report) -> Result<(), BenchError> {
    for (name, tokens) in KINDS.into_iter().filter(|(_, kind)| wanted.is_empty() || wanted.contains(kind)) {
        say(&format!("{name}: a lab with its keys"));
        let lab = Lab::prepare(LabSettings { tokens, ..LabSettings::new(folder.join(name)) })?;
        measured::write_policy(&lab)?;
        lab.postd(&[])?;
        lab.start_daemon("keyd")?;
        lab.start_daemon("certmgr")?;
        lab.casemate(&["provision"])?;
        let ids = measured::ALL.map(|key| key_of(&lab, key.role));
        lab.stop_daemon("certmgr")?;
        lab.stop_daemon("keyd")?;
        let mut memory = Memory::default();
        for (key, id) in measured::ALL.into_iter().zip(ids) {
            say(&format!("{name}: {} straight into it, through keyd, and straight into it again", key.algorithm));
            let beside = Beside::measure(&lab, tokens, (&key, id?), duration)?;
            beside.tell(name, &key, report);
            memory = memory.or_more(beside.memory);
        }
        say(&format!("{name}: away for ten seconds"));
        let recovery = absence::recovery(&lab, tokens, &measured::ALL[0])?;
        report.note(format!("{name}: signs again after an absence of ten seconds, from its return"), recovery, "s");
        report.note(format!("{name}: memory of keyd after its load, resident"), memory.resident, "MiB");
        report.note(format!("{name}: the same, proportional"), memory.proportional, "MiB");
        report.note(format!("{name}: the same, peak"), memory.peak, "MiB");
    }
    Ok(())
}

/// keyd beside the C interface with one key.
struct Beside {
    direct: Series,
    through: Series,
    /// Processor time that keyd took for the latter.
    used: Duration,
    memory: Memory,
}

impl Beside {
    /// The C interface is measured right before and right after keyd, which runs neither before nor after this.
    fn measure(
        lab: &Lab,
        tokens: Tokens,
        (key, id): (&Measured, KeyId),
        duration: Duration,
    ) -> Result<Self, BenchError> {
        let directly = || direct::measure(lab, tokens, id, key.scheme, duration);
        let used = || lab.pid("keyd").map(|pid| processor::of(&pid.to_string())).unwrap_or_default();
        let before = directly()?;
        lab.start_daemon("keyd")?;
        let begin = used();
        let through = requests::measure(lab, key.role, key.scheme, duration)?;
        let used = used().saturating_sub(begin);
        let memory = Memory::of_keyd(lab);
        lab.stop_daemon("keyd")?;
        Ok(Self { direct: before.between(directly()?), through, used, memory })
    }

    fn tell(&self, token: &str, key: &Measured, report: &mut Report) {
        let algorithm = named(key.algorithm);
        let (from, goal) = key.goal;
        for ((callers, direct), through) in IN_FLIGHT.into_iter().zip(self.direct.calls).zip(self.through.calls) {
            let row = |what: &str| format!("{token}: {algorithm}, {callers} in flight, {what}");
            report.note(row("C interface"), direct.per_second, "/s");
            report.note(row("through keyd"), through.per_second, "/s");
            let ratio = through.per_second / direct.per_second;
            let what = row("keyd a C interface");
            if callers >= from {
                report.hold(what, ratio, "", Goal::AtLeast(goal));
            } else {
                report.note(what, ratio, "");
            }
        }
        let row = |who: &str| format!("{token}: {algorithm}, processor time of a signature, {who}");
        report.note(row("C interface"), self.direct.share(self.direct.used), "ms");
        report.note(row("keyd with it"), self.through.share(self.used), "ms");
        report.note(row("who asks keyd"), self.through.share(self.through.used), "ms");
        let ([direct, ..], [through, ..]) = (self.direct.calls, self.through.calls);
        let row = |what: &str| format!("{token}: {algorithm}, latency that keyd adds, {what}");
        report.note(row("p50"), through.p50_ms - direct.p50_ms, "ms");
        report.note(row("p99"), through.p99_ms - direct.p99_ms, "ms");
    }
}

/// The algorithm, and for P-256 that no shipped role has such a key.
fn named(algorithm: KeyAlgorithm) -> String {
    match algorithm {
        KeyAlgorithm::P256 => format!("{algorithm} (the bench's own role)"),
        _ => algorithm.to_string(),
    }
}

/// The identifier of the role's key, as the operator reads it.
fn key_of(lab: &Lab, role: KeyRole) -> Result<KeyId, BenchError> {
    let listed = lab.casemate(&["hsm", "list", "--json"])?;
    let told: Value = serde_json::from_str(&listed).map_err(BenchError::Job)?;
    let keys = told["keys"].as_array().into_iter().flatten();
    let id = keys.filter(|key| key["role"] == role.name()).find_map(|key| key["key-id"].as_str());
    direct::key(id.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_named_as_the_lab_names_it_and_what_is_not_measured_is_refused() {
        for (name, tokens) in KINDS {
            assert_eq!((kind(name).unwrap(), name.parse::<Tokens>().unwrap()), (tokens, tokens));
        }
        assert!(kind("split").unwrap_err().contains("softhsm, kryoptic"));
    }

    #[test]
    fn a_key_is_known_by_what_the_operator_reads() {
        let id = KeyId([0x0a; 16]);
        assert_eq!(direct::key(&id.to_string()).unwrap(), id);
        assert!(direct::key("").is_err() && direct::key("CAPF").is_err());
    }
}
