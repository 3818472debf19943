use std::{
    fmt,
    path::{Path, PathBuf},
};

/// Of a forwarded port.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protocol {
    /// A stream.
    Tcp,
    /// Datagrams.
    Udp,
}

/// A port of the guest that is reached at 127.0.0.1.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Forward {
    /// Its protocol.
    pub protocol: Protocol,
    /// The guest's port.
    pub port: u16,
}

impl Forward {
    /// The port at 127.0.0.1: the real one plus 20000.
    #[must_use]
    pub const fn outside(self) -> u16 {
        self.port + 20_000
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        write!(f, "hostfwd={protocol}:127.0.0.1:{}-:{}", self.outside(), self.port)
    }
}

const fn tcp(port: u16) -> Forward {
    Forward { protocol: Protocol::Tcp, port }
}

/// What phones use: TFTP, HTTP, HTTPS, CAPF, TVS.
pub const FORWARDED: [Forward; 5] =
    [Forward { protocol: Protocol::Udp, port: 69 }, tcp(6970), tcp(6971), tcp(3804), tcp(2445)];

/// What a guest is made from.
#[derive(Clone, Debug)]
pub struct GuestSettings {
    /// The script that runs a program in the tools tree.
    pub tools: PathBuf,
    /// The disk as it was built; it is never written to.
    pub disk: PathBuf,
    /// The firmware's variables with our keys; copied for each new guest.
    pub firmware: PathBuf,
    /// The guest's own files: what it wrote to its disk, its TPM, its journal, logs. Within the checkout, which is all that the tools
    /// tree shows.
    pub folder: PathBuf,
    /// Whether disk, TPM and firmware variables of an earlier guest in that folder go on.
    pub keep: bool,
    /// Memory, in MiB.
    pub memory: u32,
    /// Processors.
    pub processors: u32,
    /// Ports that are reached from outside.
    pub forwarded: Vec<Forward>,
}

impl GuestSettings {
    /// A new guest of the image that `make image` made in `checkout`, with its files in `target/image/NAME`.
    ///
    /// # Errors
    /// Nothing was built.
    pub fn new(checkout: &Path, name: &str) -> Result<Self, crate::GuestError> {
        let image = checkout.join("target/image");
        let out = image.join("out");
        let not_built = || crate::GuestError::NotBuilt { path: out.join("casemate_VERSION.raw") };
        let mut disks: Vec<PathBuf> = out
            .read_dir()
            .map_err(|_| not_built())?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| is_disk(path))
            .collect();
        disks.sort();
        Ok(Self {
            tools: checkout.join("image/tools"),
            disk: disks.pop().ok_or_else(not_built)?,
            firmware: out.join("firmware-vars.fd"),
            folder: image.join(name),
            keep: false,
            memory: 1024,
            processors: 2,
            forwarded: FORWARDED.to_vec(),
        })
    }

    /// A file of the guest.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// `casemate_0.1.0.raw`, and not the partitions beside it.
fn is_disk(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    name.starts_with("casemate_") && name.ends_with(".raw") && !name.contains(".root")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_forwarded_from_127_0_0_1_alone_and_20000_higher() {
        assert_eq!(tcp(3804).to_string(), "hostfwd=tcp:127.0.0.1:23804-:3804");
        assert_eq!(FORWARDED[0].to_string(), "hostfwd=udp:127.0.0.1:20069-:69");
    }

    #[test]
    fn the_disk_is_told_from_its_partitions() {
        assert!(is_disk(Path::new("/o/casemate_0.1.0.raw")));
        assert!(!is_disk(Path::new("/o/casemate_0.1.0.root.raw")) && !is_disk(Path::new("/o/casemate_0.1.0.efi")));
    }
}
