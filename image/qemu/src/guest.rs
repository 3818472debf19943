use std::{
    fs::{self, File},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use nix::fcntl::{Flock, FlockArg};

use crate::{
    Console, Entry, GuestError, GuestSettings, Journal, Memory,
    machine::{self, Process},
    qmp::Qmp,
};

/// A running guest. Dropping it pulls its plug; its folder stays.
#[derive(Debug)]
pub struct Guest {
    settings: GuestSettings,
    started: Instant,
    // Dropped in this order: the machine before its TPM, and then another guest may have the folder.
    qemu: Process,
    swtpm: Process,
    _lock: Flock<File>,
}

impl Guest {
    /// Switches a machine on.
    ///
    /// # Errors
    /// As [`GuestError`] says.
    pub fn start(settings: GuestSettings) -> Result<Self, GuestError> {
        for path in [&settings.disk, &settings.firmware] {
            if !path.exists() {
                return Err(GuestError::NotBuilt { path: path.clone() });
            }
        }
        fs::create_dir_all(&settings.folder).map_err(GuestError::file(&settings.folder))?;
        let lock = lock(&settings)?;
        if !settings.keep || !settings.file("disk.qcow2").exists() {
            machine::renew(&settings)?;
        }
        for name in ["serial.log", "journal.jsonl", "network.pcap", "console.sock", "qmp.sock", "tpm.sock"] {
            // Most are not there.
            let _ = fs::remove_file(settings.file(name));
        }
        let mut swtpm = machine::swtpm(&settings)?;
        let (socket, limit) = (settings.file("tpm.sock"), Duration::from_secs(20));
        let waited = Instant::now();
        while !socket.exists() {
            if swtpm.has_ended() {
                return Err(GuestError::Ended { program: "swtpm", log: settings.file("swtpm.log") });
            }
            if waited.elapsed() > limit {
                return Err(GuestError::Waited {
                    what: "swtpm's socket".into(),
                    limit,
                    log: settings.file("swtpm.log"),
                });
            }
            thread::sleep(Duration::from_millis(20));
        }
        let started = Instant::now();
        let qemu = machine::qemu(&settings)?;
        Ok(Self { settings, started, qemu, swtpm, _lock: lock })
    }

    /// What it was made from.
    #[must_use]
    pub fn settings(&self) -> &GuestSettings {
        &self.settings
    }

    /// The journal as it came out of the guest so far.
    #[must_use]
    pub fn journal(&self) -> Journal {
        Journal { path: self.settings.file("journal.jsonl") }
    }

    /// What the firmware, the boot loader and the kernel said on the serial line.
    #[must_use]
    pub fn serial(&self) -> String {
        fs::read(self.settings.file("serial.log"))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The file of [`Guest::serial`].
    #[must_use]
    pub fn serial_log(&self) -> PathBuf {
        self.settings.file("serial.log")
    }

    /// What went wrong, as far as the guest said: the journal's last warnings, and the end of the serial line.
    #[must_use]
    pub fn troubles(&self) -> String {
        let entries = self.journal().entries().unwrap_or_default();
        let serious = |priority: &str| priority.parse::<u8>().is_ok_and(|priority| priority <= 4);
        let wrong: Vec<_> = entries.iter().filter(|entry| entry.field("PRIORITY").is_some_and(serious)).collect();
        let mut text = String::new();
        for entry in wrong.iter().rev().take(30).rev() {
            let unit = entry.field("_SYSTEMD_UNIT").or(entry.field("SYSLOG_IDENTIFIER")).unwrap_or_default();
            text += &format!("guest: {unit}: {}\n", entry.field("MESSAGE").unwrap_or_default());
        }
        let serial = self.serial();
        let tail: Vec<_> = serial.lines().rev().take(15).collect();
        for line in tail.iter().rev() {
            text += &format!("guest: serial: {line}\n");
        }
        text
    }

    /// How long the machine has been on.
    #[must_use]
    pub fn on_for(&self) -> Duration {
        self.started.elapsed()
    }

    /// Whether the machine switched itself off, or QEMU ended.
    pub fn is_off(&mut self) -> bool {
        self.qemu.has_ended()
    }

    /// Waits until `holds`, as long as the machine is on.
    ///
    /// # Errors
    /// It does not within `limit`, or QEMU or swtpm ended.
    pub fn wait_for<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut holds: impl FnMut(&Self) -> Result<Option<T>, GuestError>,
    ) -> Result<T, GuestError> {
        let waited = Instant::now();
        loop {
            if let Some(found) = holds(self)? {
                return Ok(found);
            }
            if self.qemu.has_ended() {
                return Err(GuestError::Ended { program: "QEMU", log: self.settings.folder.clone() });
            }
            if self.swtpm.has_ended() {
                return Err(GuestError::Ended { program: "swtpm", log: self.settings.file("swtpm.log") });
            }
            if waited.elapsed() > limit {
                return Err(GuestError::Waited { what: what.to_owned(), limit, log: self.settings.folder.clone() });
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until systemd says that `unit` came up, and gives that entry.
    ///
    /// # Errors
    /// As [`Guest::wait_for`].
    pub fn wait_for_unit(&mut self, unit: &str, limit: Duration) -> Result<Entry, GuestError> {
        self.wait_for(unit, limit, |guest| {
            Ok(guest.journal().entries()?.into_iter().find(|entry| entry.says_started(unit)))
        })
    }

    /// Waits for `text` on the serial line.
    ///
    /// # Errors
    /// As [`Guest::wait_for`].
    pub fn wait_for_serial(&mut self, text: &str, limit: Duration) -> Result<(), GuestError> {
        self.wait_for(&format!("{text:?} on the serial line"), limit, |guest| {
            Ok(guest.serial().contains(text).then_some(()))
        })
    }

    /// How much memory the guest's kernel counts as used.
    ///
    /// # Errors
    /// QEMU does not answer, or the guest's kernel said nothing within `limit`.
    pub fn memory(&self, limit: Duration) -> Result<Memory, GuestError> {
        Qmp::connect(&self.settings.file("qmp.sock"))?.memory(limit)
    }

    /// Pulls the plug, and comes back when QEMU and the TPM are gone: what the guest did not write is lost.
    pub fn pull_plug(self) {
        drop(self);
    }

    /// The operator's prompt; one conversation at a time.
    ///
    /// # Errors
    /// It does not answer within `limit`.
    pub fn console(&self, limit: Duration) -> Result<Console, GuestError> {
        Console::connect(&self.settings.file("console.sock"), limit)
    }
}

fn lock(settings: &GuestSettings) -> Result<Flock<File>, GuestError> {
    let path = settings.folder.with_extension("lock");
    let file = File::create(&path).map_err(GuestError::file(&path))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|_| GuestError::Occupied { folder: settings.folder.clone() })
}
