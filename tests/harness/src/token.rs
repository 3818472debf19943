use std::{fs, path::Path, process::Command};

use crate::{LabError, Layout, program};

/// The token's label.
pub const LABEL: &str = "casemate-lab";

/// Where Debian puts SoftHSM's module.
pub const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// SoftHSM's own settings file.
pub(crate) fn softhsm_conf(layout: &Layout) -> std::path::PathBuf {
    layout.root.join("etc/softhsm2.conf")
}

/// Makes a SoftHSM token that belongs to keyd, with PINs of its own, and the file from which keyd reads the user PIN.
pub(crate) fn init(layout: &Layout) -> Result<(), LabError> {
    let conf = softhsm_conf(layout);
    let text =
        format!("directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n", layout.token().display());
    fs::write(&conf, text).map_err(LabError::file(&conf))?;
    let (user, officer) = (digits()?, digits()?);
    let init = ["--init-token", "--free", "--label", LABEL, "--pin", &user, "--so-pin", &officer];
    program::finish(beside_keyd(layout, "softhsm2-util", &init))?;
    fs::write(layout.pin(), &user).map_err(LabError::file(layout.pin()))?;
    layout.own(&layout.pin(), 0o400, Some(layout.owner.uid("keyd")))
}

/// A command under keyd's uid that finds the token.
pub(crate) fn beside_keyd(layout: &Layout, program: &str, arguments: &[&str]) -> Command {
    let mut command = program::under(layout.owner, layout.owner.uid("keyd"), &Path::new("/usr/bin").join(program));
    command.env("SOFTHSM2_CONF", softhsm_conf(layout)).args(arguments);
    command
}

/// Twelve random digits from the kernel.
fn digits() -> Result<String, LabError> {
    let path = Path::new("/dev/urandom");
    let mut random = [0; 12];
    let mut file = fs::File::open(path).map_err(LabError::file(path))?;
    std::io::Read::read_exact(&mut file, &mut random).map_err(LabError::file(path))?;
    Ok(random.iter().map(|byte| char::from(b'0' + byte % 10)).collect())
}

/// Looks for SoftHSM's tools, so that a machine without them says so before anything else fails.
pub(crate) fn check_installed() -> Result<(), LabError> {
    let mut command = Command::new("softhsm2-util");
    command.arg("--version");
    program::finish(command).map(drop)
}

/// How many private and how many public keys are on the token, as OpenSC's `pkcs11-tool` sees them.
pub(crate) fn count_objects(layout: &Layout) -> Result<(usize, usize), LabError> {
    let pin = fs::read_to_string(layout.pin()).map_err(LabError::file(layout.pin()))?;
    let list = ["--module", MODULE, "--token-label", LABEL, "--login", "--pin", "env:LAB_PIN", "--list-objects"];
    let mut command = beside_keyd(layout, "pkcs11-tool", &list);
    command.env("LAB_PIN", pin.trim());
    let output = program::finish(command)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let count = |what: &str| text.lines().filter(|line| line.starts_with(what)).count();
    Ok((count("Private Key Object"), count("Public Key Object")))
}
