//! Who is on the other end of a local socket: what the kernel says, not what the peer says.

use std::{io, os::fd::AsFd};

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
