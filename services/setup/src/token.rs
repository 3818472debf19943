use std::{
    fs::{self, File},
    path::Path,
    process::Command,
};

use nix::unistd::sync;
use zeroize::Zeroizing;

use crate::{
    Places, SetupError,
    pins::{officer, user},
    places::holds_something,
};

/// What the token is called, here and in `role-tokens.toml`.
pub const LABEL: &str = "casemate";

const TOOL: &str = "/usr/bin/softhsm2-util";

/// Makes the token with the PINs of `folder`, which were sealed, and removes them from there. The sealed PIN takes its place as the
/// very last step: until then the token is nobody's and an interrupted run's is removed.
///
/// # Errors
/// Nothing was sealed; a file; SoftHSM's tool.
pub fn make_token(places: &Places, folder: &Path) -> Result<(), SetupError> {
    if places.credential.exists() {
        return Err(SetupError::HasToken { credential: places.credential.clone() });
    }
    if !holds_something(&places.unfinished)? {
        return Err(SetupError::NotSealed { credential: places.unfinished.clone() });
    }
    for unfinished in places.in_tokens()? {
        remove(&unfinished).map_err(SetupError::file(unfinished))?;
    }
    initialize(folder)?;
    let object = places.object()?.ok_or_else(|| SetupError::NoToken { tokens: places.tokens.clone() })?;
    fs::copy(&object, &places.copy).map_err(SetupError::file(&places.copy))?;
    for path in [user(folder), officer(folder)] {
        fs::remove_file(&path).map_err(SetupError::file(path))?;
    }
    // All that SoftHSM and systemd wrote, before what says that it is there.
    sync();
    fs::rename(&places.unfinished, &places.credential).map_err(SetupError::file(&places.credential))?;
    let parent = places.credential.parent().unwrap_or(Path::new("/"));
    File::open(parent).and_then(|folder| folder.sync_all()).map_err(SetupError::file(parent))
}

fn remove(path: &Path) -> std::io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

/// SoftHSM's tool takes PINs from its command line or a terminal alone. Nobody else's process can read this one's command line: the
/// unit hides processes of others, and nothing that serves runs yet.
fn initialize(folder: &Path) -> Result<(), SetupError> {
    let read = |path: &Path| fs::read_to_string(path).map(Zeroizing::new).map_err(SetupError::file(path));
    let (user, officer) = (read(&user(folder))?, read(&officer(folder))?);
    let mut command = Command::new(TOOL);
    command.args(["--init-token", "--free", "--label", LABEL, "--pin", &user, "--so-pin", &officer]);
    let output = command.output().map_err(SetupError::file(TOOL))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().to_owned();
    Err(SetupError::Tool { status: output.status, said })
}
