//! The power-on self-test with real binaries: `casemate-postd` itself plays every daemon, for it knows `--self-test`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "functions beside the tests are tests too")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use casemate_entropy::{Claim, CpuJitter, NoiseSource, SampleSpace};
use casemate_kat::{Hex, Test, Vector, published};
use casemate_post::{Group, Outcome, Report};
use casemate_postd::power_on;
use casemate_runtime::config::Config;

const POSTD: &str = env!("CARGO_BIN_EXE_casemate-postd");

/// An installation of three daemons in a folder of its own.
struct Installation(tempfile::TempDir);

impl Installation {
    fn new() -> Self {
        let this = Self(tempfile::tempdir().unwrap());
        fs::create_dir(this.bin()).unwrap();
        for name in ["casemate-postd", "casemate-keyd", "casemate-tftp"] {
            fs::copy(POSTD, this.bin().join(name)).unwrap();
        }
        let text = format!(
            "[paths]\nrun = {run:?}\nbin = {bin:?}\n[audit]\njournal-socket = {socket:?}\nfile = {file:?}\n\
             [postd]\nself-test-timeout-ms = 20000\n",
            run = this.path("run"),
            bin = this.bin(),
            socket = this.path("no-journald"),
            file = this.path("journal.jsonl"),
        );
        fs::write(this.path("casemate.toml"), text).unwrap();
        assert!(this.postd(&["--write-manifest"]).status.success());
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn bin(&self) -> PathBuf {
        self.path("bin")
    }

    fn report_path(&self) -> PathBuf {
        self.path("run/post.json")
    }

    fn report(&self) -> Report {
        Report::read(&self.report_path()).unwrap()
    }

    fn config(&self) -> Config {
        Config::load(&self.path("casemate.toml")).unwrap()
    }

    fn postd(&self, arguments: &[&str]) -> Output {
        Command::new(POSTD).arg("--config").arg(self.path("casemate.toml")).args(arguments).output().unwrap()
    }

    /// The last audit event, as its JSON.
    fn audited(&self) -> serde_json::Value {
        let journal = fs::read_to_string(self.path("journal.jsonl")).unwrap();
        serde_json::from_str(journal.lines().last().unwrap()).unwrap()
    }

    fn run_with(&self, vectors: &[Vector], source: &mut dyn NoiseSource) -> Report {
        power_on(&self.config(), vectors, source, &mut Vec::new()).unwrap()
    }
}

fn flip_a_byte(path: &Path, at: impl FnOnce(&[u8]) -> usize) {
    let mut bytes = fs::read(path).unwrap();
    let at = at(&bytes);
    bytes[at] ^= 1;
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Where the first two of SHA-512's round constants lie: within the module, so that its integrity test must notice.
fn in_the_module(program: &[u8]) -> usize {
    let constants = [0x428a_2f98_d728_ae22_u64, 0x7137_4491_23ef_65cd].map(u64::to_le_bytes).concat();
    program.windows(constants.len()).position(|window| window == constants).unwrap()
}

fn failed<'a>(report: &'a Report, name: &str) -> &'a str {
    let test = report.tests.iter().rfind(|test| test.name == name).unwrap();
    let Outcome::Failed { reason } = &test.outcome else { panic!("{name} did not fail: {test:?}") };
    reason
}

#[test]
fn a_healthy_installation_passes_and_leaves_a_report_that_says_so() {
    let installation = Installation::new();
    let output = installation.postd(&[]);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    assert!(printed.lines().last().unwrap().starts_with("power-on self-test passed: "), "{printed}");
    assert!(printed.contains("seeds nothing"), "{printed}");
    assert!(printed.contains("certificate #5314 validates AWS-LC FIPS 3.1.0: not the same version"), "{printed}");

    let report = installation.report();
    assert_eq!(report.failure(), None);
    assert!(report.passed);
    for group in Group::ALL {
        let tests = report.tests.iter().filter(|test| test.group == group).count();
        let least = match group {
            Group::Integrity | Group::Daemons | Group::Module => 3,
            Group::KnownAnswers => published().len(),
            Group::Entropy => 1,
        };
        assert_eq!(tests, least, "{group:?}");
    }
    assert_eq!(report.binaries.len(), 3);
    assert_eq!(fs::metadata(installation.report_path()).unwrap().permissions().mode() & 0o777, 0o644);
    let event = installation.audited().to_string();
    assert!(event.contains(&report.run_id) && event.contains("9b11cadb1ea5405c967fa0f01953b80a"), "{event}");
}

#[test]
fn a_flipped_byte_in_a_daemon_is_found_and_the_daemon_is_not_run() {
    let installation = Installation::new();
    flip_a_byte(&installation.bin().join("casemate-tftp"), |program| program.len() / 2);
    let output = installation.postd(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stdout).unwrap().contains("power-on self-test FAILED at casemate-tftp"));
    let report = installation.report();
    assert!(failed(&report, "casemate-tftp").contains("was changed"));
    assert!(!report.passed);
    assert!(!report.tests.iter().any(|test| test.group == Group::Daemons && test.name == "casemate-tftp"));
    assert!(!report.binaries.contains_key("casemate-tftp"));
    assert!(installation.audited().to_string().contains("casemate-tftp"));
}

#[test]
fn a_daemon_with_a_broken_module_is_recorded_with_its_signal() {
    let installation = Installation::new();
    // Installed broken: the manifest vouches for the very bytes, and only running it shows that the module is damaged.
    flip_a_byte(&installation.bin().join("casemate-keyd"), in_the_module);
    assert!(installation.postd(&["--write-manifest"]).status.success());
    assert_eq!(installation.postd(&[]).status.code(), Some(1));
    let report = installation.report();
    let reason = failed(&report, "casemate-keyd");
    assert!(reason.contains("signal 6") && reason.contains("SIGABRT"), "{reason}");
}

#[test]
fn a_missing_an_extra_and_an_unlisted_installation_fail() {
    let installation = Installation::new();
    fs::rename(installation.bin().join("casemate-tftp"), installation.bin().join("casemate-other")).unwrap();
    assert_eq!(installation.postd(&[]).status.code(), Some(1));
    let report = installation.report();
    assert!(failed(&report, "casemate-tftp").contains("is missing"));
    assert!(failed(&report, "casemate-other").contains("not in the manifest"));
    assert!(!report.tests.iter().any(|test| test.group == Group::Daemons && test.name == "casemate-other"));

    fs::remove_file(installation.bin().join("manifest.json")).unwrap();
    assert_eq!(installation.postd(&[]).status.code(), Some(1));
    assert!(!installation.report().passed);
}

#[test]
fn a_flipped_vector_fails_and_is_named() {
    let installation = Installation::new();
    let mut vectors = published();
    let name = vectors[0].name;
    let Test::Digest { digest, .. } = &mut vectors[0].test else { panic!("the first vector is a digest") };
    let flipped = digest.0.replacen('2', "3", 1);
    *digest = Hex(flipped.leak());
    let report = installation.run_with(&vectors, &mut CpuJitter::new());
    assert!(failed(&report, name).contains("not the published one"));
    assert_eq!(report.failure().unwrap().0, name);
    assert!(!installation.report().passed);
}

#[test]
fn no_vectors_at_all_is_a_failure() {
    let installation = Installation::new();
    let report = installation.run_with(&[], &mut CpuJitter::new());
    assert!(failed(&report, "vectors").contains("nothing to test"));
}

/// Gives `often` of ten samples the value 0.
struct Lopsided {
    often: u32,
    taken: u32,
}

impl NoiseSource for Lopsided {
    fn name(&self) -> &'static str {
        "lopsided"
    }

    fn claim(&self) -> Claim {
        Claim::new(SampleSpace::NonBinary, 0.5, 30).unwrap()
    }

    fn seeds(&self) -> &'static str {
        "nothing: a test"
    }

    fn sample(&mut self) -> u8 {
        self.taken += 1;
        if self.taken % 10 < self.often { 0 } else { self.taken as u8 }
    }
}

#[test]
fn a_stuck_and_a_biased_noise_source_fail_by_the_right_test() {
    let installation = Installation::new();
    for (often, test) in [(10, "repetition count test"), (9, "adaptive proportion test")] {
        let report = installation.run_with(&published(), &mut Lopsided { often, taken: 0 });
        assert!(failed(&report, "lopsided").contains(test), "{:?}", report.failure());
        assert!(!installation.report().passed);
    }
}

#[test]
fn the_report_of_an_earlier_run_is_gone_before_anything_else() {
    let installation = Installation::new();
    assert!(installation.postd(&[]).status.success());
    assert!(installation.report_path().exists());
    // A run that cannot audit ends before it has tested anything; what it must not do is leave the old report standing.
    fs::remove_file(installation.path("journal.jsonl")).unwrap();
    fs::create_dir(installation.path("journal.jsonl")).unwrap();
    assert_eq!(installation.postd(&[]).status.code(), Some(1));
    assert!(!installation.report_path().exists());
}
