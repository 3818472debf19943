use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

use casemate_hsm_swtpm::{ResourceManager, Swtpm};
use nix::{
    fcntl::{Flock, FlockArg},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    DAEMONS, LabError, LabSettings, Layout, Owner, Ports, config, program,
    supervisor::Supervisor,
    token,
    tokens::{self, Hardware},
};

/// A running lab. Dropping it ends every daemon; its folder stays, to be looked at, unless it is temporary and no test failed.
pub struct Lab {
    /// Its folders.
    pub layout: Layout,
    settings: LabSettings,
    // Dropped in this order: the daemons end, then what stands behind their tokens, their files go, another lab may have the folder.
    supervisor: Supervisor,
    hardware: Hardware,
    _folder: Option<TemporaryFolder>,
    _lock: Flock<File>,
}

/// A folder that goes when it is dropped, unless the test that made it fails.
struct TemporaryFolder(PathBuf);

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        if !thread::panicking() {
            // What cannot be removed is emptied by the next lab of that name, or stops it with the reason.
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

impl Lab {
    /// Makes folders, token, settings and manifest; starts nothing.
    ///
    /// # Errors
    /// As [`LabError`] says.
    pub fn prepare(settings: LabSettings) -> Result<Self, LabError> {
        settings.tokens.check_installed()?;
        let layout = Layout { root: settings.folder.clone(), owner: Owner::One("not decided yet") };
        fs::create_dir_all(&layout.root).map_err(LabError::file(&layout.root))?;
        let lock = lock(&layout.root)?;
        let layout = Layout { owner: Owner::here(&layout.root), root: absolute(&layout.root)? };
        layout.create()?;
        program::install(&layout)?;
        let hardware = tokens::make(&layout, settings.tokens)?;
        config::write(&layout, &settings, &hardware.settings)?;
        let supervisor = Supervisor::new(&layout, settings.restart);
        let folder = settings.temporary.then(|| TemporaryFolder(layout.root.clone()));
        let lab = Self { layout, settings, supervisor, hardware, _folder: folder, _lock: lock };
        lab.postd(&["--write-manifest"])?;
        Ok(lab)
    }

    /// [`Lab::prepare`], the power-on self-test, every daemon, and provisioning.
    ///
    /// # Errors
    /// As [`LabError`] says.
    pub fn start(settings: LabSettings) -> Result<Self, LabError> {
        let lab = Self::prepare(settings)?;
        lab.postd(&[])?;
        lab.start_daemons()?;
        lab.casemate(&["provision"])?;
        lab.wait_for_trust_list()?;
        Ok(lab)
    }

    /// Runs `casemate-postd` with `arguments` to its end and gives what it printed.
    ///
    /// # Errors
    /// A test failed.
    pub fn postd(&self, arguments: &[&str]) -> Result<String, LabError> {
        let mut command = Command::new(self.layout.bin().join("casemate-postd"));
        command.arg("--config").arg(self.layout.config()).args(arguments);
        program::finish(command).map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Starts every daemon, each after the one before it serves.
    ///
    /// # Errors
    /// One does not serve in time.
    pub fn start_daemons(&self) -> Result<(), LabError> {
        DAEMONS.iter().try_for_each(|(daemon, _)| self.supervisor.start(daemon))
    }

    /// Starts one daemon and waits until it serves.
    ///
    /// # Errors
    /// It does not serve in time.
    pub fn start_daemon(&self, daemon: &'static str) -> Result<(), LabError> {
        self.supervisor.start(daemon)
    }

    /// Ends one daemon by SIGTERM and leaves it ended.
    ///
    /// # Errors
    /// It cannot be ended.
    pub fn stop_daemon(&self, daemon: &'static str) -> Result<(), LabError> {
        self.supervisor.stop(daemon)
    }

    /// Kills `daemon` by SIGKILL; the supervisor starts it again. `false` if it was not running.
    ///
    /// # Errors
    /// Linux refuses.
    pub fn kill(&self, daemon: &str) -> Result<bool, LabError> {
        let Some(pid) = self.pid(daemon) else { return Ok(false) };
        match kill(pid, Signal::SIGKILL) {
            Ok(()) => Ok(true),
            Err(nix::Error::ESRCH) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The process of `daemon` while it runs.
    #[must_use]
    pub fn pid(&self, daemon: &str) -> Option<Pid> {
        self.supervisor.pid(daemon).and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw)
    }

    /// How often `daemon` was started.
    #[must_use]
    pub fn starts(&self, daemon: &str) -> u32 {
        self.supervisor.starts(daemon)
    }

    /// Resident memory of `daemon` in bytes (`VmRSS` of proc(5)).
    #[must_use]
    pub fn memory(&self, daemon: &str) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid(daemon)?)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
    }

    /// Runs the operator's console with `arguments` and gives what it printed on standard output.
    ///
    /// # Errors
    /// The command failed; the text is what it printed.
    pub fn casemate(&self, arguments: &[&str]) -> Result<String, LabError> {
        let mut command = self.console();
        command.args(arguments);
        program::finish(command).map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The operator's console, pointed at this lab.
    #[must_use]
    pub fn console(&self) -> Command {
        let mut command = Command::new(self.layout.bin().join("casemate"));
        command.env("CASEMATE_LAB", &self.layout.root);
        command
    }

    /// The address of a service at `port`.
    #[must_use]
    pub fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.settings.address, port)
    }

    /// What `daemon` publishes under `name`.
    #[must_use]
    pub fn published(&self, daemon: &str, name: &str) -> PathBuf {
        self.layout.state().join(daemon).join("public").join(name)
    }

    /// Whether audit events go to this machine's journald, and not to the lab's own file.
    #[must_use]
    pub fn uses_journald(&self) -> bool {
        self.settings.journald && Path::new("/run/systemd/journal/socket").exists()
    }

    /// Every audit event of this lab, oldest first.
    ///
    /// # Errors
    /// The trail cannot be read.
    pub fn audit(&self) -> Result<Vec<serde_json::Value>, LabError> {
        let path = self.layout.journal();
        let text = fs::read_to_string(&path).map_err(LabError::file(&path))?;
        // The last line may be in the middle of being written; any other that is no event is a broken trail.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let event = |line| {
            serde_json::from_str(line)
                .map_err(|_| LabError::Failed { program: "the audit trail".into(), output: format!("{line:?}") })
        };
        whole.lines().map(event).collect()
    }

    /// Audit events named `event`.
    ///
    /// # Errors
    /// The trail cannot be read.
    pub fn audited(&self, event: &str) -> Result<Vec<serde_json::Value>, LabError> {
        Ok(self.audit()?.into_iter().filter(|record| record["CASEMATE_EVENT"] == event).collect())
    }

    /// Adds the phone `name` as an operator would (`arguments` after the name), and waits until its configuration is signed
    /// and published.
    ///
    /// # Errors
    /// The console refuses, or there is no file within ten seconds.
    pub fn add_phone(&self, name: &str, arguments: &[&str]) -> Result<(), LabError> {
        self.casemate(&[&["phone", "add", name], arguments].concat())?;
        let file = self.published("ctlprovider", &format!("{name}.cnf.xml.sgn"));
        self.wait_for("the phone's signed configuration", Duration::from_secs(10), || program::present(&file))
    }

    /// Waits for `count` audit events named `event`: a daemon tells its peer first and the trail a moment later.
    ///
    /// # Errors
    /// There are fewer after ten seconds.
    pub fn wait_for_events(&self, event: &str, count: usize) -> Result<Vec<serde_json::Value>, LabError> {
        let told = || self.audited(event).is_ok_and(|events| events.len() >= count);
        self.wait_for(&format!("{count} events {event}"), Duration::from_secs(10), told)?;
        self.audited(event)
    }

    /// Waits until ctlprovider has published the trust list, and every daemon had time to look at what certmgr published last:
    /// they look four times a second, and TVS calls a certificate invalid until it has.
    ///
    /// # Errors
    /// There is no list within half a minute.
    pub fn wait_for_trust_list(&self) -> Result<(), LabError> {
        self.wait_for("a published ITLFile.tlv", Duration::from_secs(30), || {
            program::present(&self.published("ctlprovider", "ITLFile.tlv"))
        })?;
        let folder = self.layout.state().join("certmgr/public");
        let settled = || fs::read_dir(&folder).is_ok_and(|mut files| files.all(|file| file.is_ok_and(|f| is_seen(&f))));
        self.wait_for("that every daemon has seen the certificates", Duration::from_secs(30), settled)
    }

    /// Waits until `holds`.
    ///
    /// # Errors
    /// It does not within `limit`.
    pub fn wait_for(&self, what: &str, limit: Duration, mut holds: impl FnMut() -> bool) -> Result<(), LabError> {
        let end = Instant::now() + limit;
        while Instant::now() < end {
            if holds() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Err(LabError::Waited { what: what.into(), limit })
    }

    /// A copy of the test program `name` that every user can reach, as they cannot where the checkout is root's alone.
    ///
    /// # Errors
    /// It was not built, or cannot be copied.
    pub fn reachable_copy(&self, name: &str) -> Result<PathBuf, LabError> {
        let (from, to) = (program::programs().join(name), self.layout.root.join(name));
        // One that runs already cannot be written to.
        if !program::present(&to) {
            fs::copy(&from, &to).map_err(LabError::file(&from))?;
            self.layout.own(&to, 0o755, None)?;
        }
        Ok(to)
    }

    /// How many private and how many public keys are on the PKCS#11 tokens, counted by a program that is not ours.
    ///
    /// # Errors
    /// A token cannot be read.
    pub fn token_objects(&self) -> Result<(usize, usize), LabError> {
        let (mut private, mut public) = (0, 0);
        for (module, pin) in self.settings.tokens.pkcs11(&self.layout) {
            let counted = token::count_objects(&self.layout, &module, &pin)?;
            (private, public) = (private + counted.0, public + counted.1);
        }
        Ok((private, public))
    }

    /// The PKCS#11 module of the lab's tokens.
    #[must_use]
    pub fn module(&self) -> PathBuf {
        self.settings.tokens.module()
    }

    /// Has the lab's TPM stand still in the middle of whatever it does, or go on.
    ///
    /// # Errors
    /// It has none, or none that runs.
    pub fn hold_tpm(&self, still: bool) -> Result<(), LabError> {
        let signal = if still { Signal::SIGSTOP } else { Signal::SIGCONT };
        self.hardware.tpm(|tpm| {
            let pid = tpm.id().and_then(|pid| i32::try_from(pid).ok()).ok_or(std::io::ErrorKind::NotFound)?;
            kill(Pid::from_raw(pid), signal).map_err(Into::into)
        })
    }

    /// Pulls the plug of the lab's TPM.
    ///
    /// # Errors
    /// It has none.
    pub fn pull_tpm(&self) -> Result<(), LabError> {
        self.hardware.tpm(|tpm| {
            tpm.kill();
            Ok(())
        })
    }

    /// Starts the lab's TPM again, with what it holds.
    ///
    /// # Errors
    /// It has none, or it does not start.
    pub fn put_tpm_back(&self) -> Result<(), LabError> {
        self.hardware.tpm(Swtpm::restart)
    }

    /// Kills the resource manager before the lab's TPM.
    ///
    /// # Errors
    /// It has none.
    pub fn kill_resource_manager(&self) -> Result<(), LabError> {
        self.hardware.manager(|manager, _| {
            manager.kill();
            Ok(())
        })
    }

    /// Starts the resource manager before the lab's TPM again, with nothing that it held for anybody.
    ///
    /// # Errors
    /// It has none, or it does not start.
    pub fn restart_resource_manager(&self) -> Result<(), LabError> {
        self.hardware.manager(ResourceManager::restart)
    }

    /// Whether the resource manager before the lab's TPM runs.
    ///
    /// # Errors
    /// It has none.
    pub fn resource_manager_runs(&self) -> Result<bool, LabError> {
        self.hardware.manager(|manager, _| manager.runs())
    }

    /// The file that says where each role's key lives.
    #[must_use]
    pub fn role_tokens(&self) -> PathBuf {
        self.layout.root.join("etc/role-tokens.toml")
    }

    /// Runs `program` to its end under keyd's uid and with the token's settings file, and gives its standard output: for tools
    /// that handle the token as whoever stands beside the machine could.
    ///
    /// # Errors
    /// The program failed; the text is what it printed.
    pub fn beside_keyd(&self, program: &str, arguments: &[&str]) -> Result<String, LabError> {
        let output = program::finish(token::beside_keyd(&self.layout, program, arguments))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A command of `program` under the uid of `daemon` and with the variables by which a token's library finds its settings. It is
    /// killed with the thread that starts it.
    #[must_use]
    pub fn beside(&self, daemon: &str, program: &Path) -> Command {
        token::beside(&self.layout, daemon, program)
    }

    /// A phone named `name`, with a folder of its own in the lab.
    #[must_use]
    pub fn phone(&self, name: &str) -> Phone<'_> {
        Phone { lab: self, name: name.to_owned() }
    }
}

/// Holds the folder for one lab: a second one would remove the files under the first one's daemons.
fn lock(folder: &Path) -> Result<Flock<File>, LabError> {
    let path = folder.with_extension("lock");
    let file = File::create(&path).map_err(LabError::file(&path))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| LabError::Occupied { folder: folder.to_owned() })
}

/// Whether the file is older than two looks of a daemon.
fn is_seen(file: &fs::DirEntry) -> bool {
    let age = file.metadata().and_then(|data| data.modified()).map(|time| time.elapsed().unwrap_or_default());
    age.is_ok_and(|age| age > Duration::from_millis(500))
}

fn absolute(path: &Path) -> Result<PathBuf, LabError> {
    path.canonicalize().map_err(LabError::file(path))
}

/// A simulated phone at the door of a lab.
pub struct Phone<'a> {
    lab: &'a Lab,
    name: String,
}

impl Phone<'_> {
    /// The folder of its state.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.lab.layout.root.join("phones").join(&self.name)
    }

    /// `casemate-phone` with this phone's name and folder and the lab's address and ports.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(program::programs().join("casemate-phone"));
        command.args(["--name", &self.name, "--host", &self.lab.settings.address.to_string()]);
        command.arg("--state").arg(self.folder());
        let ports = [
            ("--tftp-port", Ports::TFTP),
            ("--http-port", Ports::HTTP),
            ("--https-port", Ports::HTTPS),
            ("--capf-port", Ports::CAPF),
            ("--tvs-port", Ports::TVS),
        ];
        for (flag, port) in ports {
            command.args([flag, &port.to_string()]);
        }
        command
    }

    /// Plays the phone's start with `arguments` and gives what it printed.
    ///
    /// # Errors
    /// Something that the phone checks does not hold.
    pub fn play(&self, arguments: &[&str]) -> Result<String, LabError> {
        let mut command = self.command();
        command.args(arguments);
        program::finish(command).map(|output: Output| String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
