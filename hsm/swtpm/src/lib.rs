//! A TPM in software for tests and the lab: swtpm on TCP ports of 127.0.0.1, and the resource manager that a library without
//! one of its own needs before it.
#![forbid(unsafe_code)]

use std::{
    env, fs,
    io::{self, BufRead, BufReader},
    net::TcpListener,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long a program may take until it serves.
const PATIENCE: Duration = Duration::from_secs(20);

/// The settings of a message bus (dbus-daemon(1)) that asks nobody who he is. A session's bus looks up its clients' users in the
/// system's list and refuses those that are not there, as a lab's daemons are not; by the TPM's own port everybody comes too.
const OPEN_BUS: &str = "<busconfig><type>session</type><listen>unix:tmpdir=/tmp</listen><auth>ANONYMOUS</auth><allow_anonymous/>\
<policy context='default'><allow send_destination='*' eavesdrop='true'/><allow eavesdrop='true'/><allow own='*'/></policy>\
</busconfig>";

/// A running swtpm; killed when dropped.
#[derive(Debug)]
pub struct Swtpm {
    state: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Swtpm {
    /// Starts one whose state is in the folder `state`, new or as it was left.
    ///
    /// # Errors
    /// swtpm (package swtpm) is not installed or does not serve; its log is in the folder.
    pub fn start(state: &Path) -> io::Result<Self> {
        fs::create_dir_all(state)?;
        // Another program may take the ports between the search and the start.
        for _ in 0..20 {
            let mut swtpm = Self { state: state.to_owned(), port: free_ports()?, child: None };
            if swtpm.run()? {
                return Ok(swtpm);
            }
        }
        Err(io::Error::other(format!("swtpm does not serve; see {}", swtpm_log(state).display())))
    }

    /// Has a maker in the folder `maker` certify the endorsement key of a TPM that was never started, whose state is in the folder
    /// `state`, as a factory does. Gives the path of the maker's own certificate (PEM).
    ///
    /// # Errors
    /// swtpm_setup (package swtpm-tools) is not installed or does not do it.
    pub fn certify(state: &Path, maker: &Path) -> io::Result<PathBuf> {
        fs::create_dir_all(state)?;
        fs::create_dir_all(maker)?;
        let file = |name: &str| maker.join(name).display().to_string();
        let certificate = maker.join("cert.pem");
        fs::write(
            file("maker.conf"),
            format!(
                "statedir = {}\nsigningkey = {}\nissuercert = {}\ncertserial = {}\n",
                maker.display(),
                file("key.pem"),
                certificate.display(),
                file("serial")
            ),
        )?;
        fs::write(file("options"), "--platform-manufacturer Lab\n--platform-version 1\n--platform-model Lab\n")?;
        fs::write(
            file("setup.conf"),
            format!(
                "create_certs_tool = /usr/bin/swtpm_localca\ncreate_certs_tool_config = {}\ncreate_certs_tool_options = {}\n",
                file("maker.conf"),
                file("options")
            ),
        )?;
        let output = Command::new("swtpm_setup")
            .args(["--tpm2", "--create-ek-cert", "--config", &file("setup.conf"), "--tpmstate"])
            .arg(state)
            .output()
            .map_err(|error| io::Error::other(format!("swtpm_setup, of the package swtpm-tools: {error}")))?;
        if output.status.success() {
            return Ok(certificate);
        }
        Err(io::Error::other(format!("swtpm_setup: {}", String::from_utf8_lossy(&output.stdout))))
    }

    /// Where it takes commands, a TCP port of 127.0.0.1; the next one is its control channel.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// It as a TPM library of tpm2-tss is told of it.
    #[must_use]
    pub fn tcti(&self) -> String {
        format!("swtpm:host=127.0.0.1,port={}", self.port)
    }

    /// Its process, while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Starts it again on the same port, with the same state.
    ///
    /// # Errors
    /// As [`Swtpm::start`].
    pub fn restart(&mut self) -> io::Result<()> {
        self.kill();
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if self.run()? {
                return Ok(());
            }
        }
        Err(io::Error::other(format!("swtpm does not start again; see {}", swtpm_log(&self.state).display())))
    }

    /// Pulls the plug.
    pub fn kill(&mut self) {
        if let Some(child) = self.child.take() {
            end(child);
        }
    }

    fn run(&mut self) -> io::Result<bool> {
        let (port, control) = (self.port, self.port + 1);
        let mut child = quiet("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
            .args(["--tpmstate", &format!("dir={}", self.state.display())])
            .args(["--server", &format!("type=tcp,port={port},bindaddr=127.0.0.1")])
            .args(["--ctrl", &format!("type=tcp,port={control},bindaddr=127.0.0.1")])
            .args(["--log", &format!("file={}", swtpm_log(&self.state).display())])
            .spawn()?;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline && child.try_wait()?.is_none() {
            if listens(port)? && listens(control)? {
                self.child = Some(child);
                return Ok(true);
            }
            thread::sleep(Duration::from_millis(5));
        }
        end(child);
        Ok(false)
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        self.kill();
    }
}

/// tpm2-abrmd before an swtpm, on a message bus of its own that serves every user of the machine; both killed when dropped.
#[derive(Debug)]
pub struct ResourceManager {
    address: String,
    bus: Option<Child>,
    manager: Option<Child>,
}

impl ResourceManager {
    /// Starts one that alone uses `tpm`.
    ///
    /// # Errors
    /// A program is not installed (packages dbus and tpm2-abrmd), or does not serve.
    pub fn start(tpm: &Swtpm) -> io::Result<Self> {
        let path = tpm.state.join("bus.conf");
        fs::write(&path, OPEN_BUS)?;
        let mut bus = quiet("dbus-daemon");
        bus.arg("--config-file").arg(path).args(["--nofork", "--print-address"]).stdout(Stdio::piped());
        let mut bus = bus.spawn()?;
        let output = bus.stdout.take().ok_or_else(|| io::Error::other("dbus-daemon has no output"))?;
        let mut started = Self { address: String::new(), bus: Some(bus), manager: None };
        BufReader::new(output).read_line(&mut started.address)?;
        started.address.truncate(started.address.trim_end().len());
        started.restart(tpm)?;
        Ok(started)
    }

    /// Kills it; its bus stays.
    pub fn kill(&mut self) {
        if let Some(manager) = self.manager.take() {
            end(manager);
        }
    }

    /// Starts it again on the same bus, with nothing that it held for anybody.
    ///
    /// # Errors
    /// As [`ResourceManager::start`].
    pub fn restart(&mut self, tpm: &Swtpm) -> io::Result<()> {
        self.kill();
        let mut manager = quiet("tpm2-abrmd");
        manager.env("DBUS_SESSION_BUS_ADDRESS", &self.address);
        manager.args(["--session", "--allow-root", &format!("--tcti={}", tpm.tcti())]);
        self.manager = Some(manager.spawn()?);
        let deadline = Instant::now() + PATIENCE;
        while !self.serves()? {
            if Instant::now() > deadline {
                return Err(io::Error::other("tpm2-abrmd does not serve"));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Whether it runs.
    ///
    /// # Errors
    /// Linux does not say.
    pub fn runs(&mut self) -> io::Result<bool> {
        self.manager.as_mut().map_or(Ok(false), |manager| Ok(manager.try_wait()?.is_none()))
    }

    /// The variables by which a program finds it: its bus, and its name for a library of tpm2-tss in `tcti`.
    #[must_use]
    pub fn variables<'a>(&'a self, tcti: &'a str) -> [(&'a str, &'a str); 2] {
        [("DBUS_SESSION_BUS_ADDRESS", &self.address), (tcti, "tabrmd:bus_type=session")]
    }

    fn serves(&self) -> io::Result<bool> {
        let asked = quiet("dbus-send")
            .env("DBUS_SESSION_BUS_ADDRESS", &self.address)
            .args(["--session", "--dest=org.freedesktop.DBus", "--print-reply", "/org/freedesktop/DBus"])
            .args(["org.freedesktop.DBus.NameHasOwner", "string:com.intel.tss2.Tabrmd"])
            .stdout(Stdio::piped())
            .output()?;
        Ok(String::from_utf8_lossy(&asked.stdout).contains("boolean true"))
    }
}

impl Drop for ResourceManager {
    fn drop(&mut self) {
        for child in [self.manager.take(), self.bus.take()].into_iter().flatten() {
            end(child);
        }
    }
}

/// A command without input and output, out of reach of the terminal's Ctrl-C, that finds what lies in the administrator's path.
fn quiet(program: &str) -> Command {
    let mut command = Command::new(program);
    let path = env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin")).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn end(mut child: Child) {
    // It may have ended by itself, which is all that is wanted.
    let _ = child.kill();
    let _ = child.wait();
}

fn swtpm_log(state: &Path) -> PathBuf {
    state.join("log")
}

/// Two neighbouring ports of 127.0.0.1 that nobody has.
fn free_ports() -> io::Result<u16> {
    loop {
        let first = TcpListener::bind(("127.0.0.1", 0))?;
        let port = first.local_addr()?.port();
        if port < u16::MAX && TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
            return Ok(port);
        }
    }
}

/// Whether somebody listens there, without connecting: swtpm would serve that connection.
fn listens(port: u16) -> io::Result<bool> {
    // 127.0.0.1 and the state LISTEN, as proc(5) writes them.
    let local = format!("0100007F:{port:04X}");
    let table = fs::read_to_string("/proc/net/tcp")?;
    Ok(table.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(1) == Some(&local.as_str()) && fields.get(3) == Some(&"0A")
    }))
}
