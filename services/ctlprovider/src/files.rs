//! Signed device files, many at a time: several threads compare, sign and write beside; one puts them in place, a batch with
//! one synchronisation of the disk, so that the token and not the disk sets the pace.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{self, Receiver, SyncSender},
    },
    thread,
};

use aws_lc_rs::digest;
use casemate_audit::{Auditor, Event};
use casemate_keyring::Purpose;
use casemate_phonefile::{
    Content, Limits, PhoneFile, PhoneFileError, SIGNED_SUFFIX, Sha1, SignedFile, SignerId, SignerKey, Unsigned,
};
use casemate_pki::CertificateFacts;

use crate::{CtlproviderError, Sign};

/// What a file that is not in place yet ends with; its name begins with a dot.
const BESIDE: &str = ".new";

/// A file that phones are to get.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Wanted {
    /// Name of the unsigned file: `SEP001122334455.cnf.xml`.
    pub name: String,
    /// Its content.
    pub body: Vec<u8>,
}

/// What a building did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Built {
    /// Files that were signed and put in place.
    pub signed: usize,
    /// Files that stood there already.
    pub unchanged: usize,
}

/// The folder of device files, with who signs them.
pub struct DeviceFiles<'a> {
    /// Where they are published.
    pub folder: &'a Path,
    /// The signer's certificate: CallManager.
    pub signer: &'a CertificateFacts,
    /// Threads that sign, and so signatures in flight.
    pub threads: usize,
    /// Files that share one synchronisation of the disk at most.
    pub batch: usize,
    /// Largest file.
    pub limits: Limits,
    /// Where each signed file is recorded.
    pub auditor: &'a Auditor,
}

/// A file and its signed form, written beside and not yet in place.
struct Staged {
    name: String,
    digest: String,
    bytes: usize,
}

/// What the signing threads share.
struct Work<'a, S> {
    files: &'a DeviceFiles<'a>,
    sign: &'a S,
    key: SignerKey,
    id: SignerId,
    timestamp: u32,
    queue: Mutex<std::vec::IntoIter<Wanted>>,
    stopped: AtomicBool,
    unchanged: AtomicUsize,
}

impl DeviceFiles<'_> {
    /// Makes every file of `wanted` stand in the folder, signed by this signer; those that do already are left alone. When it
    /// returns without an error, all of them survive a power cut. `timestamp` is in seconds since 1970.
    ///
    /// # Errors
    /// The first that failed. What was signed until then is in place; building again goes on from there.
    pub fn build(&self, sign: &impl Sign, wanted: Vec<Wanted>, timestamp: u32) -> Result<Built, CtlproviderError> {
        let threads = self.threads.clamp(1, wanted.len().max(1));
        let work = Work {
            files: self,
            sign,
            key: SignerKey::of_certificate(self.signer),
            id: SignerId::of(self.signer),
            timestamp,
            queue: Mutex::new(wanted.into_iter()),
            stopped: AtomicBool::new(false),
            unchanged: AtomicUsize::new(0),
        };
        let signed = thread::scope(|scope| {
            let (staged, waiting) = mpsc::sync_channel(self.batch.max(1));
            for _ in 0..threads {
                let (work, staged) = (&work, staged.clone());
                scope.spawn(move || work.run(&staged));
            }
            drop(staged);
            let outcome = self.put_in_place(&waiting);
            work.stopped.store(true, Ordering::Relaxed);
            outcome
        })?;
        Ok(Built { signed, unchanged: work.unchanged.into_inner() })
    }

    /// Removes what a killed building left beside.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn clean(&self) -> Result<(), CtlproviderError> {
        for entry in fs::read_dir(self.folder).map_err(CtlproviderError::file(self.folder))? {
            let path = entry.map_err(CtlproviderError::file(self.folder))?.path();
            let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
            if name.starts_with('.') && name.ends_with(BESIDE) {
                fs::remove_file(&path).map_err(CtlproviderError::file(&path))?;
            }
        }
        Ok(())
    }

    fn put_in_place(&self, waiting: &Receiver<Result<Staged, CtlproviderError>>) -> Result<usize, CtlproviderError> {
        let mut signed = 0;
        let mut failed = None;
        while let Ok(first) = waiting.recv() {
            let mut batch = Vec::with_capacity(self.batch);
            for next in std::iter::once(first).chain(waiting.try_iter().take(self.batch.saturating_sub(1))) {
                match next {
                    Ok(staged) => batch.push(staged),
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
            self.commit(&batch).map_err(CtlproviderError::file(self.folder))?;
            signed += batch.len();
        }
        failed.map_or(Ok(signed), Err)
    }

    /// Content first, then names: a reader or a power cut sees each file whole, old or new.
    fn commit(&self, batch: &[Staged]) -> io::Result<()> {
        let folder = File::open(self.folder)?;
        nix::unistd::syncfs(&folder)?;
        for staged in batch {
            for name in [staged.name.clone(), signed_name(&staged.name)] {
                fs::rename(self.beside(&name), self.folder.join(name))?;
            }
        }
        folder.sync_all()?;
        for staged in batch {
            self.auditor.record(&Event::FileSigned {
                file: signed_name(&staged.name),
                digest: staged.digest.clone(),
                bytes: staged.bytes,
            });
        }
        Ok(())
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.folder.join(format!(".{name}{BESIDE}"))
    }

    fn write_beside(&self, name: &str, content: &[u8]) -> Result<(), CtlproviderError> {
        let path = self.beside(name);
        let write = || {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
            file.write_all(content)?;
            file.set_permissions(Permissions::from_mode(0o644))
        };
        write().map_err(CtlproviderError::file(&path))
    }
}

impl<S: Sign> Work<'_, S> {
    /// Takes files until none is left, one failed, or nobody puts them in place any more.
    fn run(&self, staged: &SyncSender<Result<Staged, CtlproviderError>>) {
        while !self.stopped.load(Ordering::Relaxed) {
            let next = self.queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(wanted) = next else { return };
            if self.is_in_place(&wanted) {
                self.unchanged.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let outcome = self.stage(&wanted);
            if outcome.is_err() {
                self.stopped.store(true, Ordering::Relaxed);
            }
            if staged.send(outcome).is_err() {
                return;
            }
        }
    }

    /// Whether both files stand in the folder with this content, the signed one by this signer and with a signature that
    /// verifies. A file that cannot be read is made again.
    fn is_in_place(&self, wanted: &Wanted) -> bool {
        let read = |name: &str| fs::read(self.files.folder.join(name));
        read(&wanted.name).is_ok_and(|body| body == wanted.body)
            && read(&signed_name(&wanted.name)).is_ok_and(|file| self.check(wanted, &file).is_ok_and(|same| same))
    }

    /// Whether `file` is `wanted`, signed by this signer.
    fn check(&self, wanted: &Wanted, file: &[u8]) -> Result<bool, PhoneFileError> {
        let signed = SignedFile::parse(file, &self.files.limits)?;
        let Content::File(content) = &signed.content else { return Ok(false) };
        if content.name != signed_name(&wanted.name) || content.signer != self.id || content.body != wanted.body {
            return Ok(false);
        }
        signed.verify(std::slice::from_ref(&self.key), Sha1::Refused).map(|()| true)
    }

    fn stage(&self, wanted: &Wanted) -> Result<Staged, CtlproviderError> {
        let name = signed_name(&wanted.name);
        let content = |source| CtlproviderError::Content { file: name.clone(), source };
        let file =
            PhoneFile { name: name.clone(), timestamp: self.timestamp, signer: self.id.clone(), body: &wanted.body };
        let unsigned = Unsigned::file(&file, &self.files.limits).map_err(content)?;
        let signature = self
            .sign
            .sign(Purpose::File { name: name.clone() }, unsigned.to_be_signed())
            .map_err(|source| CtlproviderError::Sign { file: name.clone(), source })?;
        let signed = unsigned.with_signature(&signature).map_err(content)?;
        if !self.check(wanted, &signed).map_err(content)? {
            return Err(content(PhoneFileError::ReadBack { file: name.clone() }));
        }
        self.files.write_beside(&wanted.name, &wanted.body)?;
        self.files.write_beside(&name, &signed)?;
        let digest = hex::encode(digest::digest(&digest::SHA256, &signed));
        Ok(Staged { name: wanted.name.clone(), digest, bytes: signed.len() })
    }
}

fn signed_name(name: &str) -> String {
    format!("{name}{SIGNED_SUFFIX}")
}
