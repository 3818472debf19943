//! The AWS-LC module's own tests, and what it calls itself. The only unsafe code of this crate.

use std::{ffi::CStr, process::ExitCode};

use aws_lc_fips_sys::{BORINGSSL_integrity_test, BORINGSSL_self_test, FIPS_mode, awslc_version_string};

use crate::PostError;

/// What `--self-test` prints before the module's version.
pub(crate) const SELF_TEST_LINE: &str = "self-test passed";

/// The version that the module reports, word for word: `AWS-LC FIPS 3.6.0`.
#[must_use]
pub fn module_version() -> String {
    // SAFETY: takes nothing, may be called at any time, and returns a pointer to a string constant of the module: not
    // null, ended by NUL, never freed.
    let text = unsafe { CStr::from_ptr(awslc_version_string()) };
    text.to_string_lossy().into_owned()
}

/// Whether the module was built as a FIPS module.
pub(crate) fn is_fips() -> bool {
    // SAFETY: takes nothing and reads a compile-time constant of the module.
    let mode = unsafe { FIPS_mode() };
    mode == 1 && aws_lc_rs::try_fips_mode().is_ok()
}

/// The integrity test: HMAC-SHA-256 over the module's code and constants as they lie in memory, compared with the value
/// injected when it was built.
pub(crate) fn integrity_test() -> Result<(), PostError> {
    // SAFETY: takes nothing; reads the module's own text, which is mapped for as long as the process lives.
    let result = unsafe { BORINGSSL_integrity_test() };
    if result == 1 { Ok(()) } else { Err(PostError::ModuleIntegrity) }
}

/// Every known-answer test of the module, those included that it runs only at first use (RSA, ECC, FFDH, ML-KEM, EdDSA).
pub(crate) fn self_test_of_module() -> Result<(), PostError> {
    // SAFETY: takes nothing; works on memory of its own, and may be called again and from any thread.
    let result = unsafe { BORINGSSL_self_test() };
    if result == 1 { Ok(()) } else { Err(PostError::ModuleSelfTest) }
}

/// The three together. `FIPS_mode` alone stays true with a broken test, which is why it is not enough.
pub(crate) fn tests() -> Result<(), PostError> {
    if !is_fips() {
        return Err(PostError::ModuleNotFips);
    }
    integrity_test()?;
    self_test_of_module()
}

/// What a daemon does when called with `--self-test`: runs the module's tests in this process, prints
/// `self-test passed AWS-LC FIPS 3.6.0` or the reason, and says with which code to exit.
#[must_use]
pub fn self_test() -> ExitCode {
    match tests() {
        Ok(()) => {
            println!("{SELF_TEST_LINE} {}", module_version());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pinned_module_is_healthy_and_says_what_it_is() {
        assert!(is_fips());
        assert!(matches!(integrity_test(), Ok(())));
        assert!(matches!(self_test_of_module(), Ok(())));
        assert_eq!(module_version(), "AWS-LC FIPS 3.6.0");
    }

    /// What `CpuJitter::SEEDS` says of the module's seed holds for its passive entropy source alone.
    #[test]
    fn the_pinned_module_is_not_seeded_by_cpu_jitter() {
        assert!(aws_lc_rs::try_fips_cpu_jitter_entropy().is_err());
    }
}
