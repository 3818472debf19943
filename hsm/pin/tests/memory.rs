//! A process that may lock no memory.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use std::{
    env,
    fs::{self, Permissions},
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::PathBuf,
    process::Command,
};

use casemate_hsm_pin::{PinError, read_pin};
use nix::{
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::geteuid,
};

const FOLDER: &str = "CASEMATE_TEST_MEMORY";
/// Root may lock whatever it likes.
const USER: u32 = 64001;

#[test]
fn no_pin_is_read_into_memory_that_cannot_be_locked() {
    const TEST: &str = "no_pin_is_read_into_memory_that_cannot_be_locked";
    let Some(root) = env::var_os(FOLDER).map(PathBuf::from) else {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), Permissions::from_mode(0o755)).unwrap();
        let pin = root.path().join("pin");
        fs::write(&pin, "135790\n").unwrap();
        fs::set_permissions(&pin, Permissions::from_mode(0o400)).unwrap();
        // The limit is for ever, so it is for a process of its own.
        let mut command = Command::new(env::current_exe().unwrap());
        command.args([TEST, "--exact", "--nocapture"]).env(FOLDER, root.path());
        if geteuid().is_root() {
            chown(&pin, Some(USER), None).unwrap();
            command.uid(USER).gid(USER);
        }
        assert!(command.status().unwrap().success());
        return;
    };
    read_pin(&root.join("pin")).unwrap();
    let (_, most) = getrlimit(Resource::RLIMIT_MEMLOCK).unwrap();
    setrlimit(Resource::RLIMIT_MEMLOCK, 0, most).unwrap();
    let read = read_pin(&root.join("pin")).map(drop);
    let Err(error @ PinError::Unlocked(_)) = read else { panic!("{read:?}") };
    assert!(error.to_string().contains("LimitMEMLOCK="), "{error}");
}
