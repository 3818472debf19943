//! The proof.

use std::{
    fs::{self, File},
    path::Path,
};

use crate::{PostError, Report, boot_id, file, module};

const PROGRAM: &str = "/proc/self/exe";

/// The power-on self-test of this boot passed, it proved the very program that runs in this process, and the module's
/// tests passed in this process too.
///
/// There is no other way to one than [`Passed::for_this_process`] (and, where the feature `testing` is on, which no shipped
/// binary has, `Passed::testing`). What must not run on a broken module takes one as an argument.
#[derive(Debug, Clone, Copy)]
pub struct Passed(());

impl Passed {
    /// Runs the module's integrity test and self-test in this process, and reads the report at `report`.
    ///
    /// The report must belong to root, or to this process's own user (a daemon without root can then lie to nobody but
    /// itself), must be writable by nobody else, and lie in a folder where nobody else can replace it. It must be of this
    /// boot, of this module version, complete and passed, and hold for this process's program, by its file name, the digest
    /// of what runs here.
    ///
    /// # Errors
    /// Each of these has its own [`PostError`]. A module whose own known answers are wrong does not return: it aborts.
    pub fn for_this_process(report: &Path) -> Result<Self, PostError> {
        module::tests()?;
        let found = Report::read(report)?;
        if found.boot_id != boot_id()? {
            return Err(PostError::OtherBoot { path: report.to_owned(), found: found.boot_id });
        }
        if let Some((test, reason)) = found.failure() {
            return Err(PostError::NotPassed { path: report.to_owned(), reason: format!("{test}: {reason}") });
        }
        if found.module_version != module::module_version() {
            return Err(PostError::OtherModule { reported: found.module_version, own: module::module_version() });
        }
        prove_program(&found)?;
        Ok(Self(()))
    }

    /// For tests of other crates, which run in test programs that no manifest names: only the module's own tests.
    ///
    /// # Panics
    /// If the module in this process is broken.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn testing() -> Self {
        module::tests().expect("the module's own tests pass; without them no test of what uses it means anything");
        Self(())
    }
}

/// Whether the program in this process is one that the report proved under that name. The open file is asked, not the path:
/// it stays the program that runs even after the path was replaced.
fn prove_program(report: &Report) -> Result<(), PostError> {
    let program = fs::read_link(PROGRAM).map_err(PostError::file(PROGRAM))?;
    let digest = File::open(PROGRAM).and_then(|file| file::sha256(&file)).map_err(PostError::file(&program))?;
    let proven = program.file_name().and_then(|name| name.to_str()).and_then(|name| report.binaries.get(name));
    match proven {
        Some(proven) if *proven == digest => Ok(()),
        Some(_) => Err(PostError::ProgramNotProven { program, reason: "its digest differs" }),
        None => Err(PostError::ProgramNotProven { program, reason: "it is not among the proven binaries" }),
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, path::PathBuf};

    use super::*;
    use crate::{Outcome, report};

    /// A report that proves this test's own program.
    fn own_report() -> Report {
        let mut report = report::tests::passed();
        let name = fs::read_link(PROGRAM).unwrap().file_name().unwrap().to_str().unwrap().to_owned();
        report.binaries.insert(name, file::sha256(&File::open(PROGRAM).unwrap()).unwrap());
        report
    }

    fn claim(report: &Report) -> Result<Passed, PostError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("post.json");
        report.write(&path).unwrap();
        Passed::for_this_process(&path)
    }

    #[test]
    fn a_passed_report_of_this_boot_and_program_is_believed() {
        claim(&own_report()).unwrap();
    }

    #[test]
    fn another_boot_is_refused() {
        let mut report = own_report();
        report.boot_id = "6f9619ff-8b86-d011-b42d-00c04fc964ff".into();
        assert!(matches!(claim(&report), Err(PostError::OtherBoot { .. })));
    }

    #[test]
    fn a_failed_test_is_refused_and_named_even_when_the_whole_says_passed() {
        let mut report = own_report();
        report.tests[3].outcome = Outcome::Failed { reason: "SHA-256 is wrong".into() };
        let error = claim(&report).unwrap_err();
        assert!(
            matches!(&error, PostError::NotPassed { reason, .. } if reason.contains("SHA-256 is wrong")),
            "{error}"
        );
    }

    #[test]
    fn a_report_that_left_a_part_out_or_calls_itself_failed_is_refused() {
        let mut report = own_report();
        report.tests.retain(|test| test.group != crate::Group::Entropy);
        assert!(matches!(claim(&report), Err(PostError::NotPassed { .. })));
        let mut report = own_report();
        report.passed = false;
        assert!(matches!(claim(&report), Err(PostError::NotPassed { .. })));
    }

    #[test]
    fn another_module_version_is_refused() {
        let mut report = own_report();
        report.module_version = "AWS-LC FIPS 3.1.0".into();
        assert!(matches!(claim(&report), Err(PostError::OtherModule { .. })));
    }

    #[test]
    fn a_program_that_was_not_proven_is_refused() {
        assert!(matches!(claim(&report::tests::passed()), Err(PostError::ProgramNotProven { .. })));
        let mut report = own_report();
        for digest in report.binaries.values_mut() {
            *digest = "11".repeat(32);
        }
        assert!(matches!(claim(&report), Err(PostError::ProgramNotProven { .. })));
    }

    #[test]
    fn a_missing_a_damaged_and_a_world_writable_report_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path: PathBuf = folder.path().join("post.json");
        assert!(matches!(Passed::for_this_process(&path), Err(PostError::NoReport { .. })));
        own_report().write(&path).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes.truncate(bytes.len() / 2);
        fs::write(&path, &bytes).unwrap();
        assert!(matches!(Passed::for_this_process(&path), Err(PostError::Damaged { .. })));
        own_report().write(&path).unwrap();
        Passed::for_this_process(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o646)).unwrap();
        assert!(matches!(Passed::for_this_process(&path), Err(PostError::NotTrusted { mode: 0o646, .. })));
    }
}
