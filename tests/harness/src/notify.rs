use std::{
    io,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// The service manager's end of `sd_notify(3)` for one daemon.
pub(crate) struct Readiness {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Readiness {
    pub(crate) fn listen(path: &Path) -> io::Result<Self> {
        let _ = std::fs::remove_file(path);
        let socket = UnixDatagram::bind(path)?;
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
        Ok(Self { socket, path: path.to_owned() })
    }

    /// Whether `READY=1` came within `limit`, while `alive` says that somebody is left to send it.
    pub(crate) fn wait(&self, limit: Duration, mut alive: impl FnMut() -> bool) -> io::Result<bool> {
        let end = Instant::now() + limit;
        self.socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let mut buffer = [0; 256];
        while Instant::now() < end {
            match self.socket.recv(&mut buffer) {
                Ok(n) if buffer.get(..n).is_some_and(|m| m.split(|b| *b == b'\n').any(|line| line == b"READY=1")) => {
                    return Ok(true);
                }
                Ok(_) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    if !alive() {
                        return Ok(false);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }
}

impl Drop for Readiness {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
