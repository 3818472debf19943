//! Runs a daemon's `--self-test` as its parent.

use std::{
    io::Read,
    os::{fd::AsFd, unix::process::ExitStatusExt},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::{PostError, module};

/// How much of what a daemon says is kept, in bytes.
const HEARD: u64 = 512;
const POLL: Duration = Duration::from_millis(2);

/// Runs `bin/name --self-test` with an empty environment, and demands that it exits with 0 within `timeout` and says that
/// the tests of this module version passed.
pub(crate) fn self_test(bin: &Path, name: &str, timeout: Duration) -> Result<(), PostError> {
    let path = bin.join(name);
    let mut child = Command::new(&path)
        .arg("--self-test")
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(PostError::file(&path))?;
    let Some(status) = wait(&mut child, timeout).map_err(PostError::file(&path))? else {
        return Err(PostError::DaemonTimedOut { name: name.to_owned(), millis: timeout.as_millis() });
    };
    let printed = child.stdout.take().map(heard).unwrap_or_default();
    let said = child.stderr.take().map(heard).unwrap_or_default();
    judge(name, status, printed, said)
}

fn judge(name: &str, status: ExitStatus, printed: String, said: String) -> Result<(), PostError> {
    let name = name.to_owned();
    if let Some(signal) = status.signal() {
        return Err(PostError::DaemonKilled { name, signal, said });
    }
    match status.code() {
        Some(0) if printed.trim_end() == format!("{} {}", module::SELF_TEST_LINE, module::module_version()) => Ok(()),
        Some(0) => Err(PostError::DaemonSaidOtherwise { name, said: printed }),
        code => Err(PostError::DaemonExited { name, code: code.unwrap_or(-1), said }),
    }
}

/// The status, or nothing if the child had to be killed.
fn wait(child: &mut Child, timeout: Duration) -> std::io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

/// What lies in the pipe now, up to a limit. Not to its end: a process that the daemon left behind could hold it open.
fn heard(mut pipe: impl Read + AsFd) -> String {
    let mut bytes = Vec::new();
    if fcntl(pipe.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).is_ok() {
        // That nothing more is there now ends the reading with an error, after what was there has been taken.
        let _ = pipe.by_ref().take(HEARD).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn run(path: &str) -> Result<(), PostError> {
        let path = Path::new(path);
        self_test(path.parent().unwrap(), path.file_name().unwrap().to_str().unwrap(), TIMEOUT)
    }

    #[test]
    fn a_program_that_does_nothing_successfully_has_not_tested_itself() {
        assert!(matches!(run("/bin/true"), Err(PostError::DaemonSaidOtherwise { said, .. }) if said.is_empty()));
        assert!(
            matches!(run("/bin/echo"), Err(PostError::DaemonSaidOtherwise { said, .. }) if said == "--self-test\n")
        );
    }

    #[test]
    fn an_exit_code_is_recorded_with_what_was_said() {
        assert!(matches!(run("/bin/false"), Err(PostError::DaemonExited { code: 1, .. })));
        let Err(PostError::DaemonExited { said, .. }) = run("/bin/ls") else { panic!("ls knows no --self-test") };
        assert!(said.contains("self-test"), "{said}");
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        assert!(matches!(run("/bin/casemate-none"), Err(PostError::File { .. })));
    }

    #[test]
    fn a_program_that_does_not_end_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("casemate-slow");
        std::fs::write(&script, "#!/bin/sh\nexec sleep 60\n").unwrap();
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let start = Instant::now();
        let result = self_test(folder.path(), "casemate-slow", Duration::from_millis(100));
        assert!(matches!(result, Err(PostError::DaemonTimedOut { millis: 100, .. })));
        assert!(start.elapsed() < Duration::from_secs(30));
    }

    /// This test's own program holds the module. With one byte of the module's constants changed it dies before `main`.
    #[test]
    fn a_broken_module_aborts_before_main_and_is_recorded_with_its_signal() {
        let mut program = std::fs::read("/proc/self/exe").unwrap();
        // The first two of SHA-512's round constants (FIPS 180-4, 4.2.3), little-endian, as they lie in the module.
        let constants = [0x428a_2f98_d728_ae22_u64, 0x7137_4491_23ef_65cd].map(u64::to_le_bytes).concat();
        let at = program.windows(constants.len()).position(|window| window == constants).unwrap();
        program[at] ^= 1;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("casemate-broken");
        std::fs::write(&path, program).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let Err(error) = self_test(folder.path(), "casemate-broken", TIMEOUT) else {
            panic!("a broken module was not noticed");
        };
        assert!(matches!(&error, PostError::DaemonKilled { signal: 6, .. }), "{error}");
        assert!(error.to_string().contains("SIGABRT"), "{error}");
    }
}
