use std::{
    env, fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use casemate_hsm_pkcs11::{Pkcs11Files, Pkcs11Settings, TokenName};
use casemate_hsm_swtpm::{ResourceManager, Swtpm};

pub(crate) const LABEL: &str = "conformance";
pub(crate) const PIN: &str = "135790";
pub(crate) const SO_PIN: &str = "97531000";
const FOLDER: &str = "CASEMATE_CONFORMANCE_FOLDER";

/// A module under test.
#[derive(Clone, Copy)]
pub(crate) enum Module {
    SoftHsm,
    Kryoptic,
    /// tpm2-pkcs11 on an swtpm with a resource manager.
    Tpm2Pkcs11,
}

impl Module {
    fn path(self) -> PathBuf {
        match self {
            Self::SoftHsm => "/usr/lib/softhsm/libsofthsm2.so".into(),
            // .ci/kryoptic builds it beside `debug` and `release`.
            Self::Kryoptic => {
                let target = env::current_exe().unwrap().ancestors().nth(3).unwrap().to_owned();
                target.join("kryoptic/release/libkryoptic_pkcs11.so")
            }
            Self::Tpm2Pkcs11 => "/usr/lib/x86_64-linux-gnu/libtpm2_pkcs11.so.1".into(),
        }
    }

    /// The variable by which the module finds its configuration or tokens, and the path in the lab.
    const fn configuration(self) -> (&'static str, &'static str) {
        match self {
            Self::SoftHsm => ("SOFTHSM2_CONF", "softhsm2.conf"),
            Self::Kryoptic => ("KRYOPTIC_CONF", "kryoptic.conf"),
            Self::Tpm2Pkcs11 => ("TPM2_PKCS11_STORE", "tokens"),
        }
    }
}

/// A folder with a token, its PIN file and the state folder.
pub(crate) struct Lab {
    pub(crate) module: Module,
    pub(crate) folder: PathBuf,
    tpm: Option<Tpm>,
}

/// What stands behind tpm2-pkcs11.
struct Tpm {
    // Dropped first, for it is connected to the TPM.
    manager: ResourceManager,
    _tpm: Swtpm,
}

impl Lab {
    pub(crate) fn settings(&self) -> Pkcs11Settings {
        let token = TokenName::Label(LABEL.to_owned());
        let sign_only = !matches!(self.module, Module::Tpm2Pkcs11);
        Pkcs11Settings { sign_only, ..Pkcs11Settings::new(self.module.path(), token) }
    }

    pub(crate) fn files(&self) -> Pkcs11Files {
        Pkcs11Files { pin: self.folder.join("pin"), state: self.folder.join("state") }
    }

    pub(crate) fn tokens(&self) -> PathBuf {
        self.folder.join("tokens")
    }

    pub(crate) fn write_pin(&self, pin: &str) {
        let path = self.folder.join("pin");
        let _ = fs::remove_file(&path);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o400).open(path).unwrap();
        writeln!(file, "{pin}").unwrap();
    }

    /// A command that uses this lab's token.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let (variable, file) = self.module.configuration();
        command.env(variable, self.folder.join(file)).env(FOLDER, &self.folder);
        if let Some(tpm) = &self.tpm {
            command.env("TPM2_PKCS11_BACKEND", "esysdb").envs(tpm.manager.variables("TPM2_PKCS11_TCTI"));
        }
        command
    }

    /// Another program's view of the token.
    pub(crate) fn pkcs11_tool(&self, arguments: &[&str]) -> Result<String, String> {
        self.tool(&[&["--token-label", LABEL], arguments].concat())
    }

    pub(crate) fn tool(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = self.command("pkcs11-tool");
        command.arg("--module").arg(self.module.path()).args(arguments);
        let output = command.output().map_err(|error| format!("pkcs11-tool (package opensc): {error}"))?;
        checked("pkcs11-tool", &output)
    }

    pub(crate) fn as_user(&self, arguments: &[&str]) -> Result<String, String> {
        self.pkcs11_tool(&[&["--login", "--pin", PIN], arguments].concat())
    }

    /// Runs the probe as a process of its own; its last line.
    pub(crate) fn probe(&self, settings: &Pkcs11Settings, arguments: &[&str]) -> String {
        let output = self.probe_command(settings, arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().last().unwrap_or_default().to_owned()
    }

    pub(crate) fn probe_command(&self, settings: &Pkcs11Settings, arguments: &[&str]) -> Command {
        let path = self.folder.join("settings.json");
        fs::write(&path, serde_json::to_vec(&(settings, self.files())).unwrap()).unwrap();
        let mut command = self.command(env!("CARGO_BIN_EXE_casemate-hsm-probe"));
        command.arg(path).args(arguments);
        command
    }
}

fn checked(program: &str, output: &Output) -> Result<String, String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        Ok(text)
    } else {
        Err(format!("{program}: {text}{}", String::from_utf8_lossy(&output.stderr)))
    }
}

/// Runs `body` in a process of its own with a fresh token of SoftHSM.
pub(crate) fn in_lab(name: &str, body: impl FnOnce(&Lab)) {
    in_lab_of(Module::SoftHsm, name, body);
}

/// Runs `body` in a process of its own with a fresh token. A module finds its configuration by an environment variable when it
/// is initialised, which happens once a process; so each test calls itself again, by `name`, with the variable set.
pub(crate) fn in_lab_of(module: Module, name: &str, body: impl FnOnce(&Lab)) {
    if let Some(folder) = env::var_os(FOLDER) {
        // The TPM, if there is one, is the parent's, and known by the environment.
        body(&Lab { module, folder: folder.into(), tpm: None });
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let tpm = matches!(module, Module::Tpm2Pkcs11).then(|| {
        let tpm = Swtpm::start(&folder.path().join("swtpm")).unwrap();
        Tpm { manager: ResourceManager::start(&tpm).unwrap(), _tpm: tpm }
    });
    let lab = Lab { module, folder: folder.path().to_owned(), tpm };
    set_up(&lab);
    let output = lab.command(env::current_exe().unwrap()).args([name, "--exact", "--nocapture"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{name} failed in its own process ({}):\n{text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    println!("{text}");
}

fn set_up(lab: &Lab) {
    for folder in ["tokens", "state"] {
        fs::create_dir(lab.folder.join(folder)).unwrap();
    }
    let tokens = lab.tokens();
    let tokens = tokens.display();
    let configuration = match lab.module {
        Module::SoftHsm => {
            Some(format!("directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n"))
        }
        Module::Kryoptic => Some(format!("[[slots]]\nslot = 1\ndbtype = 'sqlite'\ndbargs = '{tokens}/token.sql'\n")),
        Module::Tpm2Pkcs11 => None,
    };
    if let Some(text) = configuration {
        fs::write(lab.folder.join(lab.module.configuration().1), text).unwrap();
    }
    lab.write_pin(PIN);
    init_token(lab, LABEL);
}

pub(crate) fn init_token(lab: &Lab, label: &str) {
    match lab.module {
        Module::SoftHsm => {
            let output = lab
                .command("softhsm2-util")
                .args(["--init-token", "--free", "--label", label, "--so-pin", SO_PIN, "--pin", PIN])
                .output()
                .expect("softhsm2-util, of the package softhsm2, is installed");
            checked("softhsm2-util", &output).unwrap();
        }
        Module::Kryoptic | Module::Tpm2Pkcs11 => {
            let module = lab.module.path();
            assert!(
                module.exists(),
                "{} is missing: .ci/install installs it or .ci/kryoptic builds it",
                module.display()
            );
            lab.tool(&["--init-token", "--slot-index", "0", "--label", label, "--so-pin", SO_PIN]).unwrap();
            let officer = ["--token-label", label, "--login", "--login-type", "so", "--so-pin", SO_PIN];
            lab.tool(&[&officer[..], &["--init-pin", "--pin", PIN]].concat()).unwrap();
        }
    }
}

/// The one token folder.
pub(crate) fn token_folder(tokens: &Path) -> PathBuf {
    fs::read_dir(tokens).unwrap().next().unwrap().unwrap().path()
}
