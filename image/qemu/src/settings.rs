use std::{
    net::Ipv4Addr,
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

/// A port of the guest that is reached at a loopback address of this machine.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Forward {
    /// Its protocol.
    pub protocol: Protocol,
    /// The guest's port.
    pub port: u16,
}

impl Forward {
    /// The port outside: the real one plus 20000.
    #[must_use]
    pub const fn outside(self) -> u16 {
        self.port + 20_000
    }

    /// As QEMU's user network takes it (`-netdev user`).
    pub(crate) fn rule(self, address: Ipv4Addr) -> String {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        format!("hostfwd={protocol}:{address}:{}-:{}", self.outside(), self.port)
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
    /// The size of a new guest's disk, as qemu-img takes it: what the image leaves free becomes the data partition.
    pub disk_size: String,
    /// What the machine's clock shows when it is switched on, as QEMU's `-rtc base=` takes it: `utc` is now.
    pub clock: String,
    /// The address of this machine at which the guest's ports are reached: a loopback one.
    pub address: Ipv4Addr,
    /// Ports that are reached from outside.
    pub forwarded: Vec<Forward>,
}

impl GuestSettings {
    /// A new guest of the image that `make image` made in `checkout`, with its files in `target/image/NAME`, at 127.0.0.1.
    ///
    /// # Errors
    /// Nothing was built.
    pub fn new(checkout: &Path, name: &str) -> Result<Self, crate::GuestError> {
        Self::of_image(checkout, "out", name)
    }

    /// The same of the image that `image/build --out IMAGE` made.
    ///
    /// # Errors
    /// Nothing was built.
    pub fn of_image(checkout: &Path, image: &str, name: &str) -> Result<Self, crate::GuestError> {
        let target = checkout.join("target/image");
        let out = target.join(image);
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
            folder: target.join(name),
            keep: false,
            memory: 1024,
            processors: 2,
            disk_size: "4G".into(),
            clock: "utc".into(),
            address: Ipv4Addr::LOCALHOST,
            forwarded: FORWARDED.to_vec(),
        })
    }

    /// A file of the guest.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Runs `program` of the tools tree to its end, and gives what it printed. It sees the checkout and nothing else of this machine.
    ///
    /// # Errors
    /// It cannot be started, or failed.
    pub fn tool(&self, program: &str, arguments: &[&str]) -> Result<Vec<u8>, crate::GuestError> {
        crate::machine::tool(self, program, arguments)
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
    fn a_port_is_forwarded_from_one_address_alone_and_20000_higher() {
        assert_eq!(tcp(3804).rule(Ipv4Addr::LOCALHOST), "hostfwd=tcp:127.0.0.1:23804-:3804");
        assert_eq!(FORWARDED[0].rule(Ipv4Addr::new(127, 3, 2, 1)), "hostfwd=udp:127.3.2.1:20069-:69");
    }

    #[test]
    fn the_disk_is_told_from_its_partitions() {
        assert!(is_disk(Path::new("/o/casemate_0.1.0.raw")));
        assert!(!is_disk(Path::new("/o/casemate_0.1.0.root.raw")) && !is_disk(Path::new("/o/casemate_0.1.0.efi")));
    }
}
