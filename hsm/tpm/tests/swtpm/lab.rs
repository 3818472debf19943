use std::{
    fs,
    io::Write,
    net::TcpListener,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use casemate_hsm_tpm::{TpmAddress, TpmSettings, TpmStore};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tempfile::TempDir;

pub(crate) const LABEL: &str = "conformance";
pub(crate) const PIN: &str = "135790";

/// A running swtpm; killed when dropped.
pub(crate) struct Swtpm {
    state: PathBuf,
    pub(crate) port: u16,
    child: Option<Child>,
    /// Of its log: 20 holds every byte on the bus.
    level: u8,
}

impl Swtpm {
    /// Starts one whose state is in this folder, new or as it was left.
    pub(crate) fn start(state: &Path) -> Self {
        Self::start_logging(state, 1)
    }

    fn start_logging(state: &Path, level: u8) -> Self {
        fs::create_dir_all(state).unwrap();
        // Another test may take the ports between the search and the start.
        for _ in 0..20 {
            let mut swtpm = Self { state: state.to_owned(), port: free_ports(), child: None, level };
            if swtpm.run() {
                return swtpm;
            }
        }
        panic!("swtpm (package swtpm) does not start; its log is in {}", state.display());
    }

    /// Starts it again on the same port, with the same state.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.run() {
            assert!(Instant::now() < deadline, "swtpm does not start again");
        }
    }

    /// Pulls the plug.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Its process.
    pub(crate) fn id(&self) -> i32 {
        i32::try_from(self.child.as_ref().unwrap().id()).unwrap()
    }

    fn run(&mut self) -> bool {
        let (port, control) = (self.port, self.port + 1);
        let mut child = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
            .args(["--tpmstate", &format!("dir={}", self.state.display())])
            .args(["--server", &format!("type=tcp,port={port},bindaddr=127.0.0.1")])
            .args(["--ctrl", &format!("type=tcp,port={control},bindaddr=127.0.0.1")])
            .args(["--log", &format!("file={},level={}", self.state.join("log").display(), self.level)])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("swtpm, of the package swtpm, is installed");
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline && child.try_wait().unwrap().is_none() {
            if listens(port) && listens(control) {
                self.child = Some(child);
                return true;
            }
            thread::sleep(Duration::from_millis(5));
        }
        let _ = child.kill();
        let _ = child.wait();
        false
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Two neighbouring ports of 127.0.0.1 that nobody has.
fn free_ports() -> u16 {
    loop {
        let first = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = first.local_addr().unwrap().port();
        if port < u16::MAX && TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
            return port;
        }
    }
}

/// Whether somebody listens there, without connecting: swtpm would serve that connection.
fn listens(port: u16) -> bool {
    let local = format!("0100007F:{port:04X}");
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    table.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(1) == Some(&local.as_str()) && fields.get(3) == Some(&"0A")
    })
}

/// An swtpm, a token in it, and the files that belong to both.
pub(crate) struct Lab {
    pub(crate) folder: TempDir,
    pub(crate) tpm: Swtpm,
}

impl Lab {
    /// With a token.
    pub(crate) fn new() -> Self {
        let lab = Self::bare();
        TpmStore::initialize(&lab.settings(), LABEL).unwrap();
        lab
    }

    /// With a token, in a TPM that left a factory: its endorsement key has a certificate, of the maker whose own is returned
    /// (DER). The programs are of the package swtpm-tools.
    pub(crate) fn certified() -> (Self, Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        fs::create_dir(path("swtpm")).unwrap();
        fs::create_dir(path("maker")).unwrap();
        let maker = format!(
            "statedir = {0}\nsigningkey = {0}/key.pem\nissuercert = {0}/cert.pem\ncertserial = {0}/serial\n",
            path("maker")
        );
        fs::write(path("maker.conf"), maker).unwrap();
        fs::write(path("options"), "--platform-manufacturer Lab\n--platform-version 1\n--platform-model Lab\n")
            .unwrap();
        let setup = format!(
            "create_certs_tool = /usr/bin/swtpm_localca\ncreate_certs_tool_config = {}\ncreate_certs_tool_options = {}\n",
            path("maker.conf"),
            path("options")
        );
        fs::write(path("setup.conf"), setup).unwrap();
        let output = Command::new("swtpm_setup")
            .args(["--tpm2", "--create-ek-cert", "--tpmstate", &path("swtpm"), "--config", &path("setup.conf")])
            .output()
            .expect("swtpm_setup, of the package swtpm-tools, is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        let pem = fs::read(path("maker/cert.pem")).unwrap();
        let der = CertificateDer::from_pem_slice(&pem).unwrap().to_vec();
        let lab = Self::over(folder);
        TpmStore::initialize(&lab.settings(), LABEL).unwrap();
        (lab, der)
    }

    /// Without a token.
    pub(crate) fn bare() -> Self {
        Self::over(tempfile::tempdir().unwrap())
    }

    /// Without a token, in a TPM that logs what crosses its bus.
    pub(crate) fn logging() -> Self {
        let mut lab = Self::bare();
        lab.tpm.kill();
        lab.tpm = Swtpm::start_logging(&lab.path("swtpm"), 20);
        lab
    }

    /// All bytes that crossed the bus of a TPM that logs.
    pub(crate) fn traffic(&self) -> Vec<u8> {
        let log = fs::read_to_string(self.path("swtpm").join("log")).unwrap();
        let bytes = |line: &str| -> Option<Vec<u8>> {
            let words: Vec<&str> = line.split_whitespace().collect();
            let hexadecimal = !words.is_empty() && words.iter().all(|word| word.len() == 2);
            if hexadecimal { hex::decode(words.concat()).ok() } else { None }
        };
        log.lines().filter_map(bytes).flatten().collect()
    }

    fn over(folder: TempDir) -> Self {
        fs::create_dir(folder.path().join("state")).unwrap();
        let tpm = Swtpm::start(&folder.path().join("swtpm"));
        let lab = Self { folder, tpm };
        lab.write_pin(PIN);
        lab
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn settings(&self) -> TpmSettings {
        let address = TpmAddress::Swtpm(self.tpm.port);
        let mut settings = TpmSettings::new(address, self.path("token"), self.path("pin"), self.path("state"));
        // Other tests' TPMs make RSA keys on the same processors; only a test of the limit sets one that they could reach.
        settings.call_timeout_ms = 60_000;
        settings
    }

    pub(crate) fn write_pin(&self, pin: &str) {
        let path = self.path("pin");
        let _ = fs::remove_file(&path);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o400).open(path).unwrap();
        writeln!(file, "{pin}").unwrap();
    }

    /// Another program's view of the TPM, of the package tpm2-tools. No store may be connected meanwhile.
    pub(crate) fn tool(&self, program: &str, arguments: &[&str]) -> String {
        let output = Command::new(program)
            .args(["-T", &format!("swtpm:host=127.0.0.1,port={}", self.tpm.port)])
            .args(arguments)
            .output()
            .unwrap_or_else(|error| panic!("{program} (package tpm2-tools): {error}"));
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}
