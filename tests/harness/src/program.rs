use std::{
    env, fs,
    io::ErrorKind,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::{DAEMONS, LabError, Layout, Owner};

/// The folder of this build's programs: `target/debug` or `target/release`.
///
/// # Panics
/// Where the running program has no path, which Linux always gives.
#[must_use]
pub fn programs() -> PathBuf {
    let own = env::current_exe().expect("Linux says where a program lies");
    let folder = own.parent().map_or_else(PathBuf::new, Path::to_path_buf);
    // A test's program lies one folder deeper.
    if folder.ends_with("deps") { folder.parent().map_or(folder.clone(), Path::to_path_buf) } else { folder }
}

/// `target`.
pub(crate) fn target_folder() -> PathBuf {
    programs().parent().map_or_else(|| PathBuf::from("target"), Path::to_path_buf)
}

/// Installs the shipped programs into the lab, as the image's build does, owned by the installer. A hard link each, for a
/// hundred labs of copies fill a disk: a test that changes a program removes it first, as an attacker would have to.
pub(crate) fn install(layout: &Layout) -> Result<(), LabError> {
    let names = DAEMONS.iter().map(|(daemon, _)| format!("casemate-{daemon}"));
    for name in names.chain(["casemate-postd", "casemate", "casemate-hsm-check"].map(ToOwned::to_owned)) {
        let (from, to) = (programs().join(&name), layout.bin().join(&name));
        if fs::hard_link(&from, &to).is_err() {
            // Another file system, or a build that is not ours to link.
            fs::copy(&from, &to).map_err(LabError::file(&from))?;
        }
        layout.own(&to, 0o755, None)?;
    }
    Ok(())
}

/// A command under `uid` and the daemons' group, which is killed with the thread that started it.
pub(crate) fn under(owner: Owner, uid: u32, program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    // Ctrl-C on the lab's terminal is for the lab alone.
    command.process_group(0);
    command.args(["--pdeathsig", "KILL"]);
    if owner == Owner::Each {
        command.arg("--clear-groups").arg(format!("--regid={}", owner.gid())).arg(format!("--reuid={uid}"));
    }
    command.arg("--").arg(program);
    command
}

/// Runs `command` to its end and gives what it printed.
pub(crate) fn finish(mut command: Command) -> Result<Output, LabError> {
    let name = command.get_args().find(|arg| arg.to_string_lossy().contains('/')).unwrap_or(command.get_program());
    let program = name.to_string_lossy().into_owned();
    let output = command.output().map_err(|source| LabError::Run { program: program.clone(), source })?;
    if output.status.success() {
        return Ok(output);
    }
    let text = [output.stdout, output.stderr].concat();
    Err(LabError::Failed { program, output: format!("{}; {}", output.status, String::from_utf8_lossy(&text).trim()) })
}

/// Whether `path` is there, without following what is wrong with it.
pub(crate) fn present(path: &Path) -> bool {
    !matches!(fs::symlink_metadata(path), Err(error) if error.kind() == ErrorKind::NotFound)
}
