#![deny(unsafe_code)]
//! The power-on self-test: integrity, module, known answers, entropy; its report; and [`Passed`], the proof that a
//! daemon must hold before it may use keys, listen, or configure TLS.
//!
//! - [`run`] is what `casemate-postd` does: the installed binaries against their [`Manifest`], each daemon's own
//!   `--self-test` (a broken AWS-LC module aborts its process with SIGABRT before `main`, so only a parent can record it),
//!   the module's integrity test and self-test here, [`casemate_kat`]'s published answers, and the start-up test of a noise
//!   source. It returns a [`Report`], which [`Report::write`] leaves for the daemons.
//! - [`self_test`] answers `--self-test`.
//! - [`Passed::for_this_process`] is what each daemon does at its start.
//!
//! When a known answer of the module itself is wrong in *this* process, the module does not return: it aborts. The report
//! was removed before ([`Report::remove`]), so nothing else starts then either.

mod daemon;
mod error;
mod file;
mod manifest;
#[expect(unsafe_code, reason = "the module's self-test symbols are C; every call stands in this file")]
mod module;
mod passed;
mod report;
mod run;
mod standing;

pub use error::PostError;
pub use manifest::{Binary, MANIFEST_FILE, Manifest};
pub use module::{module_version, self_test};
pub use passed::Passed;
pub use report::{EntropyStatement, Group, Outcome, Report, TestRecord, boot_id};
pub use run::{Settings, run};
pub use standing::{CERTIFICATE, Certificate, CertificateClaim, FipsStanding, FipsStatus, TokenStanding};
