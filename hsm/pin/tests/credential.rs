//! PIN files before the kernel: credentials as systemd gives them to a service with `User=`, with real access lists, read by
//! another user.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use std::{
    env,
    fs::{self, File, Permissions},
    os::unix::{
        fs::{PermissionsExt, chown, symlink},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
};

use casemate_hsm_pin::{PinError, read_pin};
use nix::unistd::geteuid;
use rustix::fs::{XattrFlags, fsetxattr};

const FOLDER: &str = "CASEMATE_TEST_CREDENTIALS";
/// The user of the service.
const USER: u32 = 64001;
const OTHER: u32 = 64002;

/// Runs the test named `test` again, as `user`, with variables of its own.
fn again(test: &str, user: Option<u32>, variables: &[(&str, &Path)]) {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture"]).envs(variables.iter().copied());
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    assert!(command.status().unwrap().success());
}

/// Sets an access list: the owner and `users` may read (and search, of a folder), the group what `group` says.
fn give(path: &Path, users: &[u32], group: u16) {
    let may = if path.is_dir() { 5 } else { 4 };
    let mut list = 2_u32.to_le_bytes().to_vec();
    let named = users.iter().map(|user| (0x02, may, *user));
    let rest = [(0x04, group, u32::MAX), (0x10, may, u32::MAX), (0x20, 0, u32::MAX)];
    for (tag, permissions, id) in [(0x01_u16, may, u32::MAX)].into_iter().chain(named).chain(rest) {
        list.extend(tag.to_le_bytes());
        list.extend(permissions.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    fsetxattr(File::open(path).unwrap(), "system.posix_acl_access", &list, XattrFlags::empty())
        .unwrap_or_else(|error| panic!("{}: {error}; a file system with access lists is needed", path.display()));
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// A file of mode 0400 in `folder`, given to `users`.
fn file(folder: &Path, name: &str, users: &[u32]) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, "135790\n").unwrap();
    mode(&path, 0o400);
    if !users.is_empty() {
        give(&path, users, 0);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o440, "as stat shows it");
    }
    path
}

/// The folder as systemd makes it, and files in it and beside it that are nearly as it makes them.
fn prepare(root: &Path) {
    mode(root, 0o755);
    let beside = root.join("beside");
    fs::create_dir(&beside).unwrap();
    file(&beside, "pin", &[USER]);
    let folder = root.join("credentials");
    fs::create_dir(&folder).unwrap();
    file(&folder, "pin", &[USER]);
    file(&folder, "of-two", &[USER, OTHER]);
    file(&folder, "of-none", &[]);
    chown(file(&folder, "own", &[]), Some(USER), Some(USER)).unwrap();
    let group = file(&folder, "of-the-group", &[USER]);
    give(&group, &[USER], 4);
    let open = file(&folder, "open", &[]);
    mode(&open, 0o444);
    let group = file(&folder, "without-list", &[]);
    chown(&group, Some(0), Some(USER)).unwrap();
    mode(&group, 0o440);
    let others = file(&folder, "of-another-owner", &[USER]);
    chown(&others, Some(OTHER), None).unwrap();
    symlink(beside.join("pin"), folder.join("link")).unwrap();
    fs::create_dir(folder.join("deeper")).unwrap();
    file(&folder.join("deeper"), "pin", &[USER]);
    for folder in [folder.join("deeper"), folder] {
        mode(&folder, 0o500);
        give(&folder, &[USER], 0);
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o7777, 0o550, "as stat shows it");
    }
    let writable = root.join("writable");
    fs::create_dir(&writable).unwrap();
    file(&writable, "pin", &[USER]);
    mode(&writable, 0o777);
}

#[test]
fn a_credential_that_systemd_gave_to_this_user_alone_is_read() {
    const TEST: &str = "a_credential_that_systemd_gave_to_this_user_alone_is_read";
    let Some(root) = env::var_os(FOLDER).map(PathBuf::from) else {
        if !geteuid().is_root() {
            println!(
                "NOT PROVEN here, for root alone can play systemd: that a credential is read; run this test as root"
            );
            return;
        }
        let root = tempfile::tempdir().unwrap();
        prepare(root.path());
        for credentials in ["credentials", "beside", "writable"] {
            let folder = root.path().join(credentials);
            again(TEST, Some(USER), &[(FOLDER, root.path()), ("CREDENTIALS_DIRECTORY", &folder)]);
        }
        again(TEST, Some(USER), &[(FOLDER, root.path())]);
        return;
    };
    let folder = env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let is_read = |path: &Path| {
        let read = read_pin(path).map(|read| assert_eq!(read.pin.expose(), "135790"));
        println!("{}: {read:?}", path.display());
        read.is_ok()
    };
    let refused = |path: &str| {
        let read = read_pin(&root.join(path)).map(drop);
        assert!(matches!(read, Err(PinError::FileUnsafe { .. })), "{path}: {read:?}");
    };
    let own = root.join("credentials/own");
    match folder.as_deref().and_then(Path::file_name).and_then(|name| name.to_str()) {
        Some("credentials") => {
            assert!(is_read(&root.join("credentials/pin")) && is_read(&own));
            for name in ["of-two", "of-the-group", "open", "without-list", "of-another-owner", "deeper/pin"] {
                refused(&format!("credentials/{name}"));
            }
            refused("beside/pin");
            // The one is root's alone; the other leads out of the folder.
            for name in ["of-none", "link"] {
                let read = read_pin(&root.join("credentials").join(name)).map(drop);
                assert!(matches!(read, Err(PinError::Unreadable { .. })), "{name}: {read:?}");
            }
        }
        // Folders in which somebody could have put another file.
        Some("writable") => refused("writable/pin"),
        Some(_) => refused("beside/pin"),
        // Without the variable it is a file of somebody else, as ever.
        None => {
            refused("credentials/pin");
            assert!(is_read(&own));
        }
    }
}
