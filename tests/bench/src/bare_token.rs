//! How fast the token signs with nothing around it: the peer beside which every number of the table stands.
//!
//! A module is initialised once a process and the lab's token is keyd's alone, so this is a token of its own, measured in a
//! process of its own: this program again, with [`ARGUMENT`].

use std::{
    env, fs,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use casemate_hsm_api::{Backup, HsmError, KeyAlgorithm, KeyId, KeySpec, KeyState, KeyStore, SignatureScheme};
use casemate_hsm_pkcs11::{Pkcs11Error, Pkcs11Files, Pkcs11Settings, Pkcs11Store, TokenName};

use crate::{BenchError, finish};

/// First argument of the measuring process.
pub(crate) const ARGUMENT: &str = "bare-token";

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
const LABEL: &str = "casemate-bench";
/// The token lives for one run and its key signs nothing of worth.
const PIN: &str = "24681357";
const KEY: KeyId = KeyId([0xb; 16]);

/// A SoftHSM token that nobody else uses.
pub(crate) struct BareToken {
    folder: PathBuf,
}

impl BareToken {
    /// Makes the token in `folder`, which is made anew.
    pub(crate) fn create(folder: PathBuf) -> Result<Self, BenchError> {
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(BenchError::file(&folder))?;
        }
        for path in [folder.join("tokens"), folder.join("state")] {
            fs::create_dir_all(&path).map_err(BenchError::file(path))?;
        }
        let (conf, pin) = (folder.join("softhsm2.conf"), folder.join("pin"));
        let tokens = folder.join("tokens");
        let text =
            format!("directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n", tokens.display());
        fs::write(&conf, text).map_err(BenchError::file(conf))?;
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o400)
            .open(&pin)
            .map_err(BenchError::file(&pin))?;
        std::io::Write::write_all(&mut file, PIN.as_bytes()).map_err(BenchError::file(pin))?;
        let token = Self { folder };
        let mut command = token.command(Path::new("softhsm2-util"));
        command.args(["--init-token", "--free", "--label", LABEL, "--pin", PIN, "--so-pin", PIN]);
        finish(command)?;
        Ok(token)
    }

    /// RSA-2048 signatures a second in one session, measured for `duration`.
    pub(crate) fn rate(&self, duration: Duration) -> Result<f64, BenchError> {
        let program = env::current_exe().map_err(BenchError::file("/proc/self/exe"))?;
        let mut command = self.command(&program);
        command.arg(ARGUMENT).arg(&self.folder).arg(duration.as_millis().to_string());
        let output = finish(command)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.trim().parse().map_err(|_| BenchError::Program { program: program.display().to_string(), output: text })
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("SOFTHSM2_CONF", self.folder.join("softhsm2.conf"));
        command
    }
}

/// The measuring process: opens the token in `folder`, makes the key at its first call, and prints the rate.
pub(crate) fn measure(folder: &Path, duration: Duration) -> Result<(), BenchError> {
    let token = TokenName::Label(LABEL.to_owned());
    let files = Pkcs11Files { pin: folder.join("pin"), state: folder.join("state") };
    let store = Pkcs11Store::open(Pkcs11Settings::new(MODULE, token), files)?;
    let rate = sign(&store, duration).map_err(Pkcs11Error::from)?;
    println!("{rate}");
    Ok(())
}

fn sign(store: &Pkcs11Store, duration: Duration) -> Result<f64, HsmError> {
    let spec = KeySpec { algorithm: KeyAlgorithm::Rsa2048, backup: Backup::None };
    if matches!(store.inspect(KEY, Some(spec))?, KeyState::Absent) {
        store.generate(KEY, LABEL, spec)?;
    }
    // Processor and token are warm when it counts.
    store.raw_rate(KEY, SignatureScheme::RsaPkcs1Sha256, duration / 10)?;
    Ok(store.raw_rate(KEY, SignatureScheme::RsaPkcs1Sha256, duration)?.per_second())
}
