use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
};

use crate::LabError;

/// The daemons in the order in which they start, each with the uid that `[users]` gives it in the image too.
pub const DAEMONS: [(&str, u32); 6] =
    [("keyd", 64001), ("certmgr", 64002), ("capf", 64006), ("ctlprovider", 64003), ("tftp", 64004), ("tvs", 64005)];

/// The group of all daemons: it may reach sockets and the audit file.
const GROUP: u32 = 64000;

/// Whether users that do not own `folder` can reach it.
pub(crate) fn reachable(folder: &Path) -> bool {
    let mut there = folder.ancestors().filter(|folder| folder.exists());
    there.all(|folder| folder.metadata().is_ok_and(|data| data.permissions().mode() & 0o001 != 0))
}

/// Under whom the daemons run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Owner {
    /// A uid each: the policy of the key broker is the real one.
    Each,
    /// One uid for all, with the reason why.
    One(&'static str),
}

impl Owner {
    /// `Each` for root in a folder that other users can reach.
    #[must_use]
    pub fn here(folder: &Path) -> Self {
        if !nix::unistd::geteuid().is_root() {
            return Self::One("the lab runs without root");
        }
        if reachable(folder) { Self::Each } else { Self::One("other users cannot reach the lab's folder") }
    }

    /// The uid of `daemon`.
    #[must_use]
    pub fn uid(self, daemon: &str) -> u32 {
        match self {
            Self::Each => DAEMONS.iter().find(|(name, _)| *name == daemon).map_or(0, |(_, uid)| *uid),
            Self::One(_) => nix::unistd::geteuid().as_raw(),
        }
    }

    /// The group of the daemons.
    #[must_use]
    pub fn gid(self) -> u32 {
        match self {
            Self::Each => GROUP,
            Self::One(_) => nix::unistd::getegid().as_raw(),
        }
    }
}

/// The folders of a lab: those of the image under one root.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The lab's folder.
    pub root: PathBuf,
    /// Under whom daemons run.
    pub owner: Owner,
}

impl Layout {
    /// The settings file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.root.join("etc/casemate.toml")
    }

    /// Sockets and the self-test report.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// The installed programs.
    #[must_use]
    pub fn bin(&self) -> PathBuf {
        self.root.join("bin")
    }

    /// The daemons' records.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    /// The audit trail.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.root.join("journal.jsonl")
    }

    /// The log of `daemon`.
    #[must_use]
    pub fn log(&self, daemon: &str) -> PathBuf {
        self.root.join("log").join(format!("{daemon}.log"))
    }

    /// The token's files, keyd's alone.
    #[must_use]
    pub fn token(&self) -> PathBuf {
        self.root.join("token")
    }

    /// The token's user PIN, keyd's alone.
    #[must_use]
    pub fn pin(&self) -> PathBuf {
        self.root.join("pins/pin")
    }

    /// The PIN of the token in the TPM, keyd's alone.
    #[must_use]
    pub fn tpm_pin(&self) -> PathBuf {
        self.root.join("pins/tpm-pin")
    }

    /// Where the maker of the lab's TPM lives, whose certificate is `cert.pem`. No real TPM's maker is so near.
    #[must_use]
    pub fn tpm_maker(&self) -> PathBuf {
        self.root.join("swtpm-maker")
    }

    /// Makes the folders anew. What an earlier lab left is removed: a lab is for trying, its token holds nothing of worth.
    ///
    /// # Errors
    /// A folder cannot be made.
    pub fn create(&self) -> Result<(), LabError> {
        if self.root.exists() {
            fs::remove_dir_all(&self.root).map_err(LabError::file(&self.root))?;
        }
        for name in ["etc", "run", "bin", "state", "log", "phones"] {
            self.folder(&self.root.join(name), 0o755, None)?;
        }
        // Each daemon makes its own socket here, and the sticky bit keeps the others' hands off it and off the report.
        self.folder(&self.run(), 0o1775, Some(0))?;
        for name in ["token", "pins"] {
            self.folder(&self.root.join(name), 0o700, Some(self.owner.uid("keyd")))?;
        }
        for (daemon, _) in DAEMONS {
            let state = self.state().join(daemon);
            self.folder(&state, 0o711, Some(self.owner.uid(daemon)))?;
        }
        fs::write(self.journal(), b"").map_err(LabError::file(self.journal()))?;
        self.own(&self.journal(), 0o660, Some(0))
    }

    fn folder(&self, path: &Path, mode: u32, uid: Option<u32>) -> Result<(), LabError> {
        fs::create_dir_all(path).map_err(LabError::file(path))?;
        self.own(path, mode, uid)
    }

    /// Gives `path` to `uid` and the daemons' group, with permissions `mode`.
    ///
    /// # Errors
    /// Linux refuses.
    pub fn own(&self, path: &Path, mode: u32, uid: Option<u32>) -> Result<(), LabError> {
        if let (Owner::Each, Some(uid)) = (self.owner, uid) {
            chown(path, Some(uid), Some(self.owner.gid())).map_err(LabError::file(path))?;
        }
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(LabError::file(path))
    }
}
