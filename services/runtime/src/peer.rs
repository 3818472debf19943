//! Who is on the other end of a local socket: what the kernel says, not what the peer says.

use std::{
    io,
    os::{fd::AsFd, unix::net::UnixStream},
    path::{Path, PathBuf},
};

use nix::sys::socket::{getsockopt, sockopt};

/// `SO_PEERCRED` of a unix socket, as it was when the peer connected.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Peer {
    /// User.
    pub uid: u32,
    /// Process; for the audit trail only, for numbers are reused.
    pub pid: i32,
}

impl Peer {
    /// Asks the kernel.
    ///
    /// # Errors
    /// The descriptor is no connected unix socket.
    pub fn of(socket: &impl AsFd) -> io::Result<Self> {
        let credentials = getsockopt(socket, sockopt::PeerCredentials)?;
        Ok(Self { uid: credentials.uid(), pid: credentials.pid() })
    }
}

/// A daemon's local socket and who must be behind it. Names in the run folder are first come, first served, and a client that
/// asked whoever took one would hand authentication strings to an impostor and certify an impostor's key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LocalServer {
    path: PathBuf,
    uid: u32,
}

impl LocalServer {
    /// The socket at `path` on which `uid` listens.
    #[must_use]
    pub const fn new(path: PathBuf, uid: u32) -> Self {
        Self { path, uid }
    }

    /// The socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Connects, and makes sure that whoever called listen(2) is the daemon, or root for it (socket activation).
    ///
    /// # Errors
    /// Nobody listens, or somebody else ([`io::ErrorKind::PermissionDenied`]).
    pub fn connect(&self) -> io::Result<UnixStream> {
        let socket = UnixStream::connect(&self.path)?;
        let listener = Peer::of(&socket)?;
        if listener.uid != self.uid && listener.uid != 0 {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("uid {} listens there instead of uid {}: an impostor, stop it", listener.uid, self.uid),
            ));
        }
        Ok(socket)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_the_daemon_is_spoken_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keyd.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        let own = nix::unistd::geteuid().as_raw();
        assert!(LocalServer::new(path.clone(), own).connect().is_ok());
        let other = LocalServer::new(path, own + 1).connect();
        assert_eq!(other.is_ok(), own == 0, "root may listen for anybody");
    }
}
