use std::{
    ops::Range,
    time::{Duration, Instant},
};

use casemate_harness::Lab;
use casemate_hsm_api::KeyAlgorithm;
use casemate_phone::identity::KeySpec;

use crate::{
    BenchError,
    enrolment::{Door, Keys, Served},
    files, operator,
    report::{Goal, Report},
    run::say,
};

/// Phones in flight while the rate of enrolments is measured.
const IN_FLIGHT: usize = 32;

/// Phones in flight while the time of one enrolment is measured.
const SIMULTANEOUS: usize = 100;

/// The devices of each measurement, out of all that are added: what their operations ask for is what enrols there.
struct Shares {
    warm_up: Range<usize>,
    with_files: Range<usize>,
    simultaneous: Range<usize>,
    p256: Range<usize>,
    rsa: Range<usize>,
}

impl Shares {
    fn of(phones: usize) -> Self {
        let at = |per_cent: usize| phones * per_cent / 100;
        Self {
            warm_up: 0..at(5),
            with_files: at(5)..at(25),
            simultaneous: at(25)..at(50),
            p256: at(50)..at(75),
            rsa: at(75)..phones,
        }
    }

    fn key(&self, number: usize) -> KeyAlgorithm {
        if self.rsa.contains(&number) { KeyAlgorithm::Rsa2048 } else { KeyAlgorithm::P256 }
    }
}

/// What the system did under load.
pub(crate) struct Measured {
    phones: usize,
    adding: Duration,
    files: Duration,
    with_files: Served,
    simultaneous: Served,
    p256: Served,
    rsa: Served,
    /// The bare token before the first, between each two, and after the last of: files, what ctlprovider takes part in, P-256,
    /// RSA. Each is held against the two around it, for the machine is not as fast all the time.
    bare: [f64; 5],
}

/// Adds `phones` devices while ctlprovider is stopped, has their files signed, and lets every one of them enrol. `bare` measures
/// the bare token, while no daemon has anything to do.
///
/// After an enrolment ctlprovider signs the device's file anew, for nothing is left to do in it: a third signature. The rates
/// that are held against the bare token are of the enrolment's own two, so ctlprovider is stopped while they are measured.
pub(crate) fn measure(
    lab: &Lab,
    phones: usize,
    bare: impl Fn() -> Result<f64, BenchError>,
) -> Result<Measured, BenchError> {
    let shares = Shares::of(phones);
    say("phones are added");
    lab.stop_daemon("ctlprovider")?;
    let started = Instant::now();
    operator::add(&lab.layout.run().join("capf.sock"), 0..phones, |number| shares.key(number))?;
    let adding = started.elapsed();
    let first = bare()?;
    say("their files are signed");
    let files = files::publish(lab, 0..phones)?;
    let second = bare()?;
    say("they enrol");
    let door = Door::of(lab)?;
    let (few, many) = (Keys::make(KeySpec::P256, IN_FLIGHT)?, Keys::make(KeySpec::P256, SIMULTANEOUS)?);
    let rsa = Keys::make(KeySpec::Rsa2048, IN_FLIGHT)?;
    door.load(&few, shares.warm_up)?;
    let (with_files, simultaneous) = (door.load(&few, shares.with_files)?, door.load(&many, shares.simultaneous)?);
    lab.stop_daemon("ctlprovider")?;
    let third = bare()?;
    let p256 = door.load(&few, shares.p256)?;
    let fourth = bare()?;
    let rsa = door.load(&rsa, shares.rsa)?;
    let bare = [first, second, third, fourth, bare()?];
    lab.start_daemon("ctlprovider")?;
    Ok(Measured { phones, adding, files, with_files, simultaneous, p256, rsa, bare })
}

impl Measured {
    /// Writes the numbers into `report`, each beside the bare token's around it.
    pub(crate) fn tell(&self, report: &mut Report) {
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        for (when, rate) in ["the files", "those with files", "P-256", "RSA-2048"].iter().zip(self.bare) {
            report.note(format!("bare token: RSA-2048 signatures, one session, before {when}"), rate, "/s");
        }
        report.note("bare token: RSA-2048 signatures, one session, after RSA-2048", self.bare[4], "/s");
        let around = |part: usize| f64::midpoint(self.bare[part], self.bare[part + 1]);
        for (key, served, bare) in [("P-256", &self.p256, around(2)), ("RSA-2048", &self.rsa, around(3))] {
            let rate = served.per_second();
            report.note(format!("enrolments, {key} keys, {IN_FLIGHT} in flight, two signatures each"), rate, "/s");
            report.hold(format!("enrolments a bare signature, {key}"), rate / bare, "", Goal::AtLeast(0.35));
            for (process, time) in served.processor_time() {
                report.note(format!("processor time of an enrolment, {key}, {process}"), millis(time), "ms");
            }
        }
        let rate = self.with_files.per_second();
        report.note("enrolments, and the device's file signed again, three signatures each", rate, "/s");
        report.note("such enrolments a bare signature", rate / around(1), "");
        let name = |what: &str| format!("an enrolment under {SIMULTANEOUS} simultaneous phones, {what}");
        report.note(name("p50"), millis(self.simultaneous.within(500)), "ms");
        report.note(name("p99"), millis(self.simultaneous.within(990)), "ms");
        let files = self.phones as f64 / self.files.as_secs_f64();
        report.note(format!("{} signed files, built in", self.phones), self.files.as_secs_f64(), "s");
        report.note("signed files", files, "/s");
        report.hold("signed files a bare signature", files / around(0), "", Goal::AtLeast(0.9));
        report.note("phones added over capf's socket", self.phones as f64 / self.adding.as_secs_f64(), "/s");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phone_has_one_part() {
        let shares = Shares::of(1_001);
        let parts = [&shares.warm_up, &shares.with_files, &shares.simultaneous, &shares.p256, &shares.rsa];
        let ends: Vec<_> = parts.iter().flat_map(|part| [part.start, part.end]).collect();
        assert_eq!(ends, [0, 50, 50, 250, 250, 500, 500, 750, 750, 1_001]);
        assert_eq!((shares.key(749), shares.key(750)), (KeyAlgorithm::P256, KeyAlgorithm::Rsa2048));
    }
}
