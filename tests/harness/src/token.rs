use std::{fs, path::Path, process::Command};

use crate::{LabError, Layout, program};

/// The token's label.
pub(crate) const LABEL: &str = "casemate-lab";

/// Where Debian puts SoftHSM's module.
pub(crate) const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";

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
    let uid = layout.owner.uid("keyd");
    let mut command = program::under(layout.owner, uid, Path::new("/usr/bin/softhsm2-util"));
    command.env("SOFTHSM2_CONF", &conf);
    command.args(["--init-token", "--free", "--label", LABEL, "--pin", &user, "--so-pin", &officer]);
    program::finish(command)?;
    fs::write(layout.pin(), &user).map_err(LabError::file(layout.pin()))?;
    layout.own(&layout.pin(), 0o400, Some(uid))
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
    let mut command = program::under(layout.owner, layout.owner.uid("keyd"), Path::new("/usr/bin/pkcs11-tool"));
    command.env("SOFTHSM2_CONF", softhsm_conf(layout)).env("LAB_PIN", pin.trim());
    command.args(["--module", MODULE, "--token-label", LABEL, "--login", "--pin", "env:LAB_PIN", "--list-objects"]);
    let output = program::finish(command)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let count = |what: &str| text.lines().filter(|line| line.starts_with(what)).count();
    Ok((count("Private Key Object"), count("Public Key Object")))
}
