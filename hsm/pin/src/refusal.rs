use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    num::NonZeroU32,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use aws_lc_rs::{constant_time, pbkdf2, rand};
use casemate_hsm_api::Pin;
use serde::{Deserialize, Serialize};

use crate::{PinError, WrittenPin};

/// A PIN has few digits, and whoever reads the record may guess at leisure: so each guess costs what a login may cost us.
/// PBKDF2-HMAC-SHA256 (SP 800-132); measured below 300 ms on the project's two-core machine.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(600_000).expect("600,000 is not zero");

/// What a record that this program wrote may ask for at most, so that a forged one cannot stop the daemon.
const MOST_ITERATIONS: u32 = 10_000_000;

/// No record is longer.
const LONGEST: u64 = 4096;

/// How the login went that the record speaks of.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    /// Written before the token sees the PIN. If it is found, the process died within the login, or the token gave no clear
    /// answer.
    Unresolved,
    /// The token refused the PIN.
    Refused,
}

/// The content of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Record {
    version: u32,
    serial: String,
    outcome: Outcome,
    /// Logins in a row that ended unresolved, this one included.
    logins: u32,
    /// When the PIN file was written that held the PIN, in nanoseconds since 1970.
    written: i64,
    iterations: u32,
    #[serde(with = "hex::serde")]
    salt: [u8; 16],
    #[serde(with = "hex::serde")]
    fingerprint: [u8; 32],
}

/// Whether a PIN may be tried.
#[derive(Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It may; this many logins with it ended unresolved before.
    Try(u32),
    /// It was refused before.
    Refused,
    /// It may have been refused so many times.
    Unresolved(u32),
}

/// The memory of one token's refused PIN, across restarts. It is marked before each login and cleared after a successful one:
/// so a process that dies between the token's refusal and the record of it cannot try the same PIN again and again.
pub struct Refusals {
    folder: PathBuf,
    path: PathBuf,
    serial: String,
}

impl Refusals {
    /// Of the PKCS#11 token with this serial number, in `folder`, which must survive restarts. One file a token: the memory of one
    /// is not overwritten when another is plugged in.
    #[must_use]
    pub fn of_token(folder: &Path, serial: &str) -> Self {
        Self::named(folder, serial, "")
    }

    /// Of the TPM with this serial number. No PKCS#11 token's file has a hyphen here.
    #[must_use]
    pub fn of_tpm(folder: &Path, serial: &str) -> Self {
        Self::named(folder, serial, "tpm-")
    }

    /// The same for the PIN of a change whose end is unknown ([`NextPin`](crate::NextPin)): it has a record of its own, so that
    /// trying one of the two PINs does not have the refusal of the other forgotten.
    #[must_use]
    pub fn of_next(&self) -> Self {
        let mut path = self.path.clone().into_os_string();
        path.push("-next");
        Self { path: path.into(), folder: self.folder.clone(), serial: self.serial.clone() }
    }

    /// Forgets the PIN: the token has another one now.
    ///
    /// # Errors
    /// [`PinError::Record`].
    pub fn forget(&self) -> Result<(), PinError> {
        if self.path.exists() { self.remove() } else { Ok(()) }
    }

    fn named(folder: &Path, serial: &str, kind: &str) -> Self {
        let name: String = serial.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let path = folder.join(format!("pin-refused-{kind}{name}"));
        Self { folder: folder.to_owned(), path, serial: serial.to_owned() }
    }

    /// What the record says of `pin`. `refused_since` is the token's own memory (`CKF_USER_PIN_COUNT_LOW`): some PIN was refused
    /// after the last good login, so an unresolved login was probably a refused one. Where the token does not say, no more than
    /// `limit` logins in a row may end unresolved, until somebody writes the PIN file again.
    ///
    /// # Errors
    /// [`PinError::Record`] and [`PinError::RecordDamaged`].
    pub fn verdict(&self, pin: &WrittenPin, refused_since: bool, limit: u32) -> Result<Verdict, PinError> {
        let Some(record) = self.read()? else { return Ok(Verdict::Try(0)) };
        let iterations = NonZeroU32::new(record.iterations)
            .filter(|count| count.get() <= MOST_ITERATIONS)
            .ok_or_else(|| self.damaged("its iteration count is out of range"))?;
        let same = constant_time::verify_slices_are_equal(
            &fingerprint(&pin.pin, &self.serial, &record.salt, iterations),
            &record.fingerprint,
        );
        Ok(match (same, record.outcome) {
            (Err(_), _) => Verdict::Try(0),
            (Ok(()), Outcome::Refused) => Verdict::Refused,
            (Ok(()), Outcome::Unresolved) if refused_since => Verdict::Refused,
            (Ok(()), Outcome::Unresolved) if record.written != pin.written => Verdict::Try(0),
            (Ok(()), Outcome::Unresolved) if record.logins >= limit => Verdict::Unresolved(record.logins),
            (Ok(()), Outcome::Unresolved) => Verdict::Try(record.logins),
        })
    }

    /// Writes down that `pin` is about to be tried, after so many logins with it that ended unresolved.
    ///
    /// # Errors
    /// [`PinError::Record`]: then the PIN must not be tried.
    pub fn mark(&self, pin: &WrittenPin, unresolved_before: u32) -> Result<Mark<'_>, PinError> {
        let mut salt = [0; 16];
        rand::fill(&mut salt).map_err(|_| self.failed(io::Error::other("no random bytes")))?;
        let record = Record {
            version: 1,
            serial: self.serial.clone(),
            outcome: Outcome::Unresolved,
            logins: unresolved_before.saturating_add(1),
            written: pin.written,
            iterations: ITERATIONS.get(),
            salt,
            fingerprint: fingerprint(&pin.pin, &self.serial, &salt, ITERATIONS),
        };
        self.write(&record)?;
        Ok(Mark { refusals: self, record })
    }

    fn read(&self) -> Result<Option<Record>, PinError> {
        let mut text = Vec::new();
        match File::open(&self.path).and_then(|file| file.take(LONGEST).read_to_end(&mut text)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed(error)),
            Ok(_) => {}
        }
        let record: Record = serde_json::from_slice(&text).map_err(|error| self.damaged(&error.to_string()))?;
        if record.version != 1 || record.serial != self.serial {
            return Err(self.damaged("it is of another token or version"));
        }
        Ok(Some(record))
    }

    fn write(&self, record: &Record) -> Result<(), PinError> {
        let text = serde_json::to_vec(record).map_err(|error| self.failed(io::Error::other(error)))?;
        let new = self.path.with_extension("new");
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)
            .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&new, &self.path))
            .and_then(|()| sync_folder(&self.folder));
        written.map_err(|error| self.failed(error))
    }

    fn remove(&self) -> Result<(), PinError> {
        fs::remove_file(&self.path).and_then(|()| sync_folder(&self.folder)).map_err(|error| self.failed(error))
    }

    fn failed(&self, source: io::Error) -> PinError {
        PinError::Record { path: self.path.clone(), source }
    }

    fn damaged(&self, detail: &str) -> PinError {
        PinError::RecordDamaged { path: self.path.clone(), detail: detail.to_owned() }
    }
}

/// A login that is under way. Dropped without a word, it stays unresolved.
pub struct Mark<'a> {
    refusals: &'a Refusals,
    record: Record,
}

impl Mark<'_> {
    /// The PIN was right, or was certainly not looked at.
    ///
    /// # Errors
    /// [`PinError::Record`].
    pub fn clear(self) -> Result<(), PinError> {
        self.refusals.remove()
    }

    /// The PIN was refused: final until it changes.
    ///
    /// # Errors
    /// [`PinError::Record`].
    pub fn refused(mut self) -> Result<(), PinError> {
        self.record.outcome = Outcome::Refused;
        self.refusals.write(&self.record)
    }
}

/// Has what was made, renamed or removed in the folder survive a power failure.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// The serial number is salted in, so that a record of one token says nothing about another with the same PIN.
fn fingerprint(pin: &Pin, serial: &str, salt: &[u8; 16], iterations: NonZeroU32) -> [u8; 32] {
    let mut out = [0; 32];
    let salt = [salt.as_slice(), serial.as_bytes()].concat();
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, pin.expose().as_bytes(), &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(text: &str) -> WrittenPin {
        WrittenPin { pin: Pin::new(text).unwrap(), written: 1 }
    }

    #[test]
    fn a_refused_pin_is_refused_for_ever_and_another_is_tried() {
        let folder = tempfile::tempdir().unwrap();
        let refusals = Refusals::of_token(folder.path(), "abc");
        assert_eq!(refusals.verdict(&pin("1234"), true, 3).unwrap(), Verdict::Try(0));
        refusals.mark(&pin("1234"), 0).unwrap().refused().unwrap();
        let again = Refusals::of_token(folder.path(), "abc");
        assert_eq!(again.verdict(&pin("1234"), false, 3).unwrap(), Verdict::Refused);
        assert_eq!(again.verdict(&pin("12345"), false, 3).unwrap(), Verdict::Try(0));
        assert_eq!(
            Refusals::of_token(folder.path(), "other").verdict(&pin("1234"), false, 3).unwrap(),
            Verdict::Try(0)
        );
        let text = fs::read_to_string(folder.path().join("pin-refused-abc")).unwrap();
        assert!(!text.contains("1234") || !text.contains("\"1234"), "the PIN stands in the record");
    }

    #[test]
    fn a_process_that_dies_within_logins_runs_out_of_tries() {
        let folder = tempfile::tempdir().unwrap();
        let refusals = Refusals::of_token(folder.path(), "abc");
        drop(refusals.mark(&pin("1"), 0).unwrap());
        assert_eq!(refusals.verdict(&pin("1"), false, 2).unwrap(), Verdict::Try(1));
        assert_eq!(refusals.verdict(&pin("1"), true, 2).unwrap(), Verdict::Refused, "the token says it refused a PIN");
        drop(refusals.mark(&pin("1"), 1).unwrap());
        assert_eq!(refusals.verdict(&pin("1"), false, 2).unwrap(), Verdict::Unresolved(2));
    }

    #[test]
    fn a_pin_file_that_is_written_again_says_that_somebody_looked() {
        let folder = tempfile::tempdir().unwrap();
        let refusals = Refusals::of_token(folder.path(), "abc");
        drop(refusals.mark(&pin("1"), 0).unwrap());
        let again = WrittenPin { written: 2, ..pin("1") };
        assert_eq!(refusals.verdict(&pin("1"), false, 1).unwrap(), Verdict::Unresolved(1));
        assert_eq!(refusals.verdict(&again, false, 1).unwrap(), Verdict::Try(0));
        assert_eq!(refusals.verdict(&again, true, 1).unwrap(), Verdict::Refused, "the token says it refused a PIN");
        refusals.mark(&pin("1"), 0).unwrap().refused().unwrap();
        assert_eq!(refusals.verdict(&again, false, 1).unwrap(), Verdict::Refused, "what was refused stays so");
    }

    #[test]
    fn success_clears_the_record() {
        let folder = tempfile::tempdir().unwrap();
        let refusals = Refusals::of_token(folder.path(), "abc");
        refusals.mark(&pin("1"), 0).unwrap().clear().unwrap();
        assert_eq!(refusals.verdict(&pin("1"), true, 1).unwrap(), Verdict::Try(0));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_record_that_cannot_be_read_or_written_lets_no_pin_through() {
        let folder = tempfile::tempdir().unwrap();
        let refusals = Refusals::of_token(folder.path(), "abc");
        fs::write(folder.path().join("pin-refused-abc"), b"{").unwrap();
        assert!(matches!(refusals.verdict(&pin("1"), false, 3), Err(PinError::RecordDamaged { .. })));
        let nowhere = Refusals::of_token(&folder.path().join("gone"), "abc");
        assert!(matches!(nowhere.mark(&pin("1"), 0).map(|_| ()), Err(PinError::Record { .. })));
    }

    /// A record whose name changes is a refused PIN that is tried again.
    #[test]
    fn records_keep_their_names() {
        let folder = tempfile::tempdir().unwrap();
        drop(Refusals::of_token(folder.path(), "tpm-a b").mark(&pin("1"), 0).unwrap());
        drop(Refusals::of_tpm(folder.path(), "0a1b").mark(&pin("1"), 0).unwrap());
        for name in ["pin-refused-tpm_a_b", "pin-refused-tpm-0a1b"] {
            assert!(folder.path().join(name).exists(), "{name}");
        }
    }

    #[test]
    fn a_record_cannot_stop_the_daemon_with_its_iteration_count() {
        let folder = tempfile::tempdir().unwrap();
        let refusals = Refusals::of_token(folder.path(), "abc");
        drop(refusals.mark(&pin("1"), 0).unwrap());
        let path = folder.path().join("pin-refused-abc");
        let text = fs::read_to_string(&path).unwrap();
        for count in ["0", "4294967295"] {
            fs::write(&path, text.replace("600000", count)).unwrap();
            assert!(matches!(refusals.verdict(&pin("1"), false, 3), Err(PinError::RecordDamaged { .. })));
        }
    }
}
