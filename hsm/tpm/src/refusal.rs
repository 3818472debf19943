use std::{
    fs::{self, File},
    io::{self, Read},
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use aws_lc_rs::{constant_time, pbkdf2, rand};
use casemate_hsm_api::Pin;
use serde::{Deserialize, Serialize};

use crate::{TpmError, frame, write::replace};

/// A refused PIN is mostly a right one with a typing error, and whoever reads the record may guess at leisure: so each guess
/// costs a quarter of a second (PBKDF2-HMAC-SHA256, SP 800-132).
const ITERATIONS: NonZeroU32 = NonZeroU32::new(600_000).expect("600,000 is not zero");

/// No record is longer.
const LONGEST: u64 = 4096;

/// How the login went that the record speaks of.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    /// Written before the TPM sees the PIN. If it is found, the process died meanwhile or the TPM gave no clear answer.
    Unresolved,
    /// The TPM refused the PIN.
    Refused,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Record {
    outcome: Outcome,
    /// Logins in a row that ended unresolved, this one included.
    logins: u32,
    #[serde(with = "hex::serde")]
    salt: [u8; 16],
    #[serde(with = "hex::serde")]
    fingerprint: [u8; 32],
}

/// Whether a PIN may be tried.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// It may; this many logins with it ended unresolved before.
    Try(u32),
    /// It was refused before, or may have been too often.
    Refused,
}

/// The memory of one TPM's refused PIN, across restarts. The TPM counts wrong PINs, and a daemon that is restarted with one must
/// not lock it. The record is written before each login and removed after a good one, so that a process that dies in between
/// cannot try the same PIN for ever.
pub(crate) struct Refusals {
    path: PathBuf,
}

impl Refusals {
    /// `serial` is hexadecimal.
    pub(crate) fn new(state: &Path, serial: &str) -> Self {
        Self { path: state.join(format!("pin-refused-tpm-{serial}")) }
    }

    /// What the record says of `pin`; `limit` unresolved logins in a row count as a refusal.
    pub(crate) fn verdict(&self, pin: &Pin, limit: u32) -> Result<Verdict, TpmError> {
        let Some(record) = self.read()? else { return Ok(Verdict::Try(0)) };
        let same = constant_time::verify_slices_are_equal(&fingerprint(pin, &record.salt), &record.fingerprint);
        Ok(match (same, record.outcome) {
            (Err(_), _) => Verdict::Try(0),
            (Ok(()), Outcome::Refused) => Verdict::Refused,
            (Ok(()), Outcome::Unresolved) if record.logins >= limit => Verdict::Refused,
            (Ok(()), Outcome::Unresolved) => Verdict::Try(record.logins),
        })
    }

    /// Writes down that `pin` is about to be tried.
    pub(crate) fn mark(&self, pin: &Pin, unresolved_before: u32) -> Result<Mark<'_>, TpmError> {
        let mut salt = [0; 16];
        rand::fill(&mut salt).map_err(|_| self.failed("no random bytes"))?;
        let record = Record {
            outcome: Outcome::Unresolved,
            logins: unresolved_before.saturating_add(1),
            salt,
            fingerprint: fingerprint(pin, &salt),
        };
        self.write(&record)?;
        Ok(Mark { refusals: self, record })
    }

    fn read(&self) -> Result<Option<Record>, TpmError> {
        let mut content = Vec::new();
        match File::open(&self.path).and_then(|file| file.take(LONGEST).read_to_end(&mut content)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed(&error.to_string())),
            Ok(_) => {}
        }
        frame::open(&content)
            .map(Some)
            .map_err(|detail| self.failed(&format!("{detail}; check the PIN, then remove the record")))
    }

    fn write(&self, record: &Record) -> Result<(), TpmError> {
        replace(&self.path, &frame::seal(record)).map_err(|error| self.failed(&error.to_string()))
    }

    fn failed(&self, detail: &str) -> TpmError {
        TpmError::RefusalRecord { path: self.path.clone(), detail: detail.to_owned() }
    }
}

/// A login that is under way. Dropped without a word, it stays unresolved.
pub(crate) struct Mark<'a> {
    refusals: &'a Refusals,
    record: Record,
}

impl Mark<'_> {
    /// The PIN was right, or was certainly not looked at.
    pub(crate) fn clear(self) -> Result<(), TpmError> {
        fs::remove_file(&self.refusals.path).map_err(|error| self.refusals.failed(&error.to_string()))
    }

    /// The PIN was refused: final until it changes.
    pub(crate) fn refused(mut self) -> Result<(), TpmError> {
        self.record.outcome = Outcome::Refused;
        self.refusals.write(&self.record)
    }
}

fn fingerprint(pin: &Pin, salt: &[u8; 16]) -> [u8; 32] {
    let mut out = [0; 32];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ITERATIONS, salt, pin.expose().as_bytes(), &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(text: &str) -> Pin {
        Pin::new(text.to_owned())
    }

    #[test]
    fn a_refused_pin_is_refused_for_ever_and_another_is_tried() {
        let folder = tempfile::tempdir().unwrap();
        let refusals = Refusals::new(folder.path(), "ab");
        assert_eq!(refusals.verdict(&pin("1234"), 3).unwrap(), Verdict::Try(0));
        refusals.mark(&pin("1234"), 0).unwrap().refused().unwrap();
        assert_eq!(Refusals::new(folder.path(), "ab").verdict(&pin("1234"), 3).unwrap(), Verdict::Refused);
        assert_eq!(refusals.verdict(&pin("12345"), 3).unwrap(), Verdict::Try(0));
        assert_eq!(Refusals::new(folder.path(), "cd").verdict(&pin("1234"), 3).unwrap(), Verdict::Try(0));
    }

    #[test]
    fn a_process_that_dies_within_logins_runs_out_of_tries_and_success_clears() {
        let folder = tempfile::tempdir().unwrap();
        let refusals = Refusals::new(folder.path(), "ab");
        let _unresolved = refusals.mark(&pin("1"), 0).unwrap();
        assert_eq!(refusals.verdict(&pin("1"), 2).unwrap(), Verdict::Try(1));
        let _unresolved = refusals.mark(&pin("1"), 1).unwrap();
        assert_eq!(refusals.verdict(&pin("1"), 2).unwrap(), Verdict::Refused);
        refusals.mark(&pin("1"), 0).unwrap().clear().unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_record_that_cannot_be_read_or_written_lets_no_pin_through() {
        let folder = tempfile::tempdir().unwrap();
        let refusals = Refusals::new(folder.path(), "ab");
        fs::write(&refusals.path, b"{").unwrap();
        assert!(matches!(refusals.verdict(&pin("1"), 3), Err(TpmError::RefusalRecord { .. })));
        let nowhere = Refusals::new(&folder.path().join("gone"), "ab");
        assert!(matches!(nowhere.mark(&pin("1"), 0).map(drop), Err(TpmError::RefusalRecord { .. })));
    }
}
