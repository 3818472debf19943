use std::{
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use crate::Tokens;

/// The ports of the phones' protocols: the real ones plus 20000.
#[derive(Clone, Copy, Debug)]
pub struct Ports;

impl Ports {
    /// TFTP over UDP.
    pub const TFTP: u16 = 20069;
    /// Phone files over HTTP.
    pub const HTTP: u16 = 26970;
    /// Phone files over HTTPS.
    pub const HTTPS: u16 = 26971;
    /// Enrolment.
    pub const CAPF: u16 = 23804;
    /// Trust verification.
    pub const TVS: u16 = 22445;
}

/// What a lab is made from.
#[derive(Clone, Debug)]
pub struct LabSettings {
    /// Its folder, emptied at the start.
    pub folder: PathBuf,
    /// A loopback address of its own, so that several labs use the same ports side by side.
    pub address: IpAddr,
    /// Where the keys live.
    pub tokens: Tokens,
    /// `fips` or `non-fips`.
    pub mode: &'static str,
    /// More lines for sections of the settings file: (section, lines of TOML).
    pub extra: Vec<(&'static str, String)>,
    /// Whether a daemon that ends is started again, as systemd would.
    pub restart: bool,
    /// Whether audit events go to this machine's journald where it has one. A test reads them from the lab's own file.
    pub journald: bool,
    /// Whether the folder goes with the lab, unless a test failed in it.
    pub temporary: bool,
}

impl LabSettings {
    /// `make lab`: `target/lab` on 127.0.0.1.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            tokens: Tokens::default(),
            mode: "fips",
            extra: Vec::new(),
            restart: true,
            journald: true,
            temporary: false,
        }
    }

    /// A lab for one test: a folder of its own under `target/labs` (or, where the daemons' users cannot reach that, under
    /// `/tmp`), and a loopback address that no other test's lab has, nor the same test's in another checkout.
    #[must_use]
    pub fn for_test(name: &str) -> Self {
        let target = crate::program::target_folder();
        let reachable = !nix::unistd::geteuid().is_root() || crate::layout::reachable(&target);
        let labs = if reachable { target.join("labs") } else { PathBuf::from("/tmp/casemate-labs") };
        let address = loopback(&target, name);
        Self { address: IpAddr::V4(address), journald: false, temporary: true, ..Self::new(labs.join(name)) }
    }
}

/// An address in 127.0.0.0/8 by FNV-1a over the checkout's target folder and the lab's name.
fn loopback(target: &Path, name: &str) -> Ipv4Addr {
    let bytes = target.as_os_str().as_encoded_bytes().iter().chain(b"\0").chain(name.as_bytes());
    let digest = bytes
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let [a, b, c, ..] = digest.to_le_bytes();
    Ipv4Addr::new(127, a.clamp(1, 254), b, c.clamp(1, 254))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_test_and_another_checkout_have_another_address() {
        let here = loopback(Path::new("/one/target"), "lab");
        assert_eq!(here, loopback(Path::new("/one/target"), "lab"));
        assert_ne!(here, loopback(Path::new("/two/target"), "lab"));
        assert_ne!(here, loopback(Path::new("/one/target"), "other"));
        assert!(here.is_loopback() && here != Ipv4Addr::LOCALHOST);
    }
}
