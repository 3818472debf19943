//! INTERIM STUB by the lead so that others compile; helper "a" replaces this file whole. Keep these names:
#![allow(missing_docs)]
use std::{path::Path, process::ExitCode};

#[derive(Clone, Copy, Debug)]
pub struct Passed(());

#[derive(Debug, thiserror::Error)]
#[error("power-on self-test")]
pub struct PostError;

impl Passed {
    /// # Errors
    pub fn for_this_process(_report: &Path) -> Result<Self, PostError> {
        Ok(Self(()))
    }
    #[cfg(feature = "testing")]
    pub fn for_tests() -> Self {
        Self(())
    }
}

pub fn self_test() -> ExitCode {
    ExitCode::SUCCESS
}

pub fn module_version() -> String {
    "stub".into()
}
