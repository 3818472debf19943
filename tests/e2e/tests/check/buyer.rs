//! A buyer's token behind his own module, and a node's settings with no daemon.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use casemate_faults::Faulty;
use casemate_harness::programs;
use casemate_hsm_swtpm::ResourceManager;
use serde_json::Value;

pub(crate) const PIN: &str = "135790";
const OFFICER: [&str; 2] = ["--so-pin", "97531000"];
pub(crate) const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";
const TPM2_PKCS11: &str = "/usr/lib/x86_64-linux-gnu/libtpm2_pkcs11.so.1";

pub(crate) struct Buyer {
    folder: tempfile::TempDir,
    pub(crate) module: PathBuf,
    variables: Vec<(String, String)>,
}

/// What a check printed, and how it ended.
pub(crate) struct Checked {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Checked {
    pub(crate) fn report(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}{}", self.out, self.err))
    }

    /// The last line on standard error, where nothing was reported.
    pub(crate) fn failed(&self, code: i32) -> &str {
        assert_eq!((self.code, self.out.as_str()), (Some(code), ""), "{}", self.err);
        self.err.lines().last().unwrap()
    }
}

impl Buyer {
    fn new(module: impl Into<PathBuf>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let buyer = Self { folder, module: module.into(), variables: Vec::new() };
        for name in ["tokens", "etc", "state", "orders"] {
            fs::create_dir(buyer.path(name)).unwrap();
        }
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../services/keyd");
        for name in ["key-policy.toml", "role-tokens.toml"] {
            fs::copy(shipped.join(name), buyer.path("etc").join(name)).unwrap();
        }
        buyer.write_settings("");
        buyer.write_pin(PIN);
        buyer
    }

    pub(crate) fn softhsm() -> Self {
        let mut buyer = Self::new(SOFTHSM);
        let conf = format!("directories.tokendir = {}\nlog.level = ERROR\n", buyer.path("tokens").display());
        buyer.configure("SOFTHSM2_CONF", "softhsm2.conf", &conf);
        buyer.make_token();
        buyer
    }

    pub(crate) fn kryoptic() -> Self {
        let mut buyer = Self::new(programs().parent().unwrap().join("kryoptic/release/libkryoptic_pkcs11.so"));
        let base = buyer.path("tokens").join("token.sql");
        let conf = format!("[[slots]]\nslot = 1\ndbtype = 'sqlite'\ndbargs = '{}'\n", base.display());
        buyer.configure("KRYOPTIC_CONF", "kryoptic.conf", &conf);
        buyer.make_token();
        buyer
    }

    pub(crate) fn tpm2_pkcs11(manager: &ResourceManager) -> Self {
        let mut buyer = Self::new(TPM2_PKCS11);
        for (name, value) in manager.variables("TPM2_PKCS11_TCTI") {
            buyer.set(name, value);
        }
        buyer.set("TPM2_PKCS11_BACKEND", "esysdb");
        buyer.set("TPM2_PKCS11_STORE", &buyer.path("tokens").display().to_string());
        buyer.make_token();
        buyer
    }

    /// SoftHSM's token behind the module that breaks on demand.
    pub(crate) fn faulty() -> Self {
        let mut buyer = Self::softhsm();
        buyer.module = Faulty::MODULE.into();
        buyer.set("CASEMATE_FAULTY_REAL", SOFTHSM);
        buyer.set("CASEMATE_FAULTY_ORDERS", &buyer.path("orders").display().to_string());
        buyer
    }

    fn configure(&mut self, variable: &str, name: &str, text: &str) {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        self.set(variable, &path.display().to_string());
    }

    fn set(&mut self, variable: &str, value: &str) {
        self.variables.push((variable.to_owned(), value.to_owned()));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Tells the module to break.
    pub(crate) fn order(&self, name: &str, text: &str) {
        fs::write(self.path("orders").join(name), text).unwrap();
    }

    pub(crate) fn withdraw(&self, name: &str) {
        fs::remove_file(self.path("orders").join(name)).unwrap();
    }

    /// The settings, with these lines in `[console]`.
    pub(crate) fn write_settings(&self, lines: &str) {
        let (root, programs) = (self.folder.path().display(), programs());
        let text = format!(
            "[paths]\nstate = '{root}/state'\netc = '{root}/etc'\nbin = '{}'\n[console]\ncheck-rate-ms = 200\n{lines}",
            programs.display()
        );
        fs::write(self.path("casemate.toml"), text).unwrap();
    }

    /// Each role's load, as `load` says.
    pub(crate) fn write_loads(&self, load: impl Fn(&str) -> u32) {
        let path = self.path("etc/role-tokens.toml");
        let text = fs::read_to_string(&path).unwrap();
        let (head, loads) = text.split_once("[signatures-per-second]\n").unwrap();
        let line =
            |line: &str| line.split_once(" = ").map_or(line.to_owned(), |(role, _)| format!("{role} = {}", load(role)));
        let loads: Vec<_> = loads.lines().map(line).collect();
        fs::write(path, format!("{head}[signatures-per-second]\n{}\n", loads.join("\n"))).unwrap();
    }

    /// A new PIN file, as an editor writes one.
    pub(crate) fn write_pin(&self, pin: &str) {
        let path = self.path("pin");
        let _ = fs::remove_file(&path);
        fs::write(&path, format!("{pin}\n")).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
    }

    fn make_token(&self) {
        assert!(self.module.exists(), "{}: .ci/install or .ci/kryoptic brings it", self.module.display());
        let label = ["--init-token", "--slot-index", "0", "--label", "buyer"];
        self.tool(&[&label[..], &OFFICER].concat());
        let officer = ["--token-label", "buyer", "--login", "--login-type", "so", "--init-pin", "--pin", PIN];
        self.tool(&[&officer[..], &OFFICER].concat());
    }

    /// Another program's view of the token.
    fn tool(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("pkcs11-tool");
        command.arg("--module").arg(&self.module).args(arguments).envs(self.variables.clone());
        let output = command.output().expect("pkcs11-tool of the package opensc");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    /// Makes a key of the buyer's own.
    pub(crate) fn make_key(&self, label: &str) {
        self.as_user(&["--keypairgen", "--key-type", "EC:prime256v1", "--id", "07", "--label", label]);
    }

    fn as_user(&self, arguments: &[&str]) -> String {
        self.tool(&[&["--token-label", "buyer", "--login", "--pin", PIN], arguments].concat())
    }

    /// Labels of the keys on the token.
    pub(crate) fn keys(&self) -> Vec<String> {
        let listed = self.as_user(&["--list-objects"]);
        let labels = listed.lines().filter_map(|line| line.trim_start().strip_prefix("label:"));
        labels.map(|label| label.trim().to_owned()).collect()
    }

    /// What the token says of itself, such as `user PIN count low`.
    pub(crate) fn flags(&self) -> String {
        let slots = self.tool(&["--list-token-slots"]);
        slots.lines().find(|line| line.contains("token flags")).unwrap().to_owned()
    }

    /// The command, without the way to the PIN.
    pub(crate) fn casemate(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(programs().join("casemate"));
        command.arg("--config").arg(self.path("casemate.toml")).args(["hsm", "check"]).arg(&self.module);
        command.args(arguments).envs(self.variables.clone()).stdin(Stdio::null());
        command
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.casemate(arguments);
        command.arg("--pin-file").arg(self.path("pin"));
        command
    }

    pub(crate) fn check(&self, arguments: &[&str]) -> Checked {
        Self::ended(self.command(arguments).output().unwrap())
    }

    pub(crate) fn ended(output: std::process::Output) -> Checked {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Checked { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}
