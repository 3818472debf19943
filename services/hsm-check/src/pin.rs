use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, AsRawFd},
    path::PathBuf,
};

use nix::sys::{
    memfd::{MFdFlags, memfd_create},
    stat::{Mode, fchmod},
};
use zeroize::Zeroizing;

use crate::options::Options;

/// No PIN file is longer (hsm/pkcs11 says so).
const LONGEST: u64 = 1026;

/// The PIN as the file from which hsm/pkcs11 reads it: the operator's, or one in memory with what standard input held.
pub(crate) struct PinFile {
    pub(crate) path: PathBuf,
    _memory: Option<File>,
}

impl PinFile {
    pub(crate) fn of(options: &Options) -> io::Result<Self> {
        if let Some(path) = &options.pin_file {
            return Ok(Self { path: path.clone(), _memory: None });
        }
        // Room for all of it at once, for a text that grows leaves copies behind; and past the buffer of the standard library.
        let mut text = Zeroizing::new(Vec::with_capacity(2048));
        File::from(io::stdin().as_fd().try_clone_to_owned()?).take(LONGEST).read_to_end(&mut text)?;
        let mut memory = File::from(memfd_create("pin", MFdFlags::MFD_CLOEXEC)?);
        fchmod(&memory, Mode::S_IRUSR)?;
        memory.write_all(&text)?;
        Ok(Self { path: format!("/proc/self/fd/{}", memory.as_raw_fd()).into(), _memory: Some(memory) })
    }
}
