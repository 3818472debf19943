use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{LabError, Layout, program};

/// The token's label.
pub const LABEL: &str = "casemate-lab";

/// Where Debian puts SoftHSM's module.
pub const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// SoftHSM's own settings file.
pub(crate) fn softhsm_conf(layout: &Layout) -> PathBuf {
    layout.root.join("etc/softhsm2.conf")
}

/// Makes a SoftHSM token that belongs to keyd, with PINs of its own, and the file `pin` from which keyd reads the user PIN.
pub(crate) fn init(layout: &Layout, pin: &Path) -> Result<(), LabError> {
    let conf = softhsm_conf(layout);
    let text =
        format!("directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n", layout.token().display());
    fs::write(&conf, text).map_err(LabError::file(&conf))?;
    let (user, officer) = (digits()?, digits()?);
    let init = ["--init-token", "--free", "--label", LABEL, "--pin", &user, "--so-pin", &officer];
    program::finish(beside_keyd(layout, "softhsm2-util", &init))?;
    let object = token_object(layout)?;
    fs::copy(&object, safe_copy(layout)).map_err(LabError::file(&object))?;
    write_pin(layout, pin, &user)
}

/// Writes a PIN for keyd's eyes alone.
pub(crate) fn write_pin(layout: &Layout, path: &Path, pin: &str) -> Result<(), LabError> {
    fs::write(path, pin).map_err(LabError::file(path))?;
    layout.own(path, 0o400, Some(layout.owner.uid("keyd")))
}

/// More variables of this lab's token, a line each.
pub(crate) fn variables_file(layout: &Layout) -> PathBuf {
    layout.root.join("etc/token.env")
}

/// The variables by which a token's library finds its settings.
pub(crate) fn variables(layout: &Layout) -> Vec<(String, String)> {
    let path = |path: PathBuf| path.display().to_string();
    let mut all = vec![
        ("SOFTHSM2_CONF".to_owned(), path(softhsm_conf(layout))),
        ("KRYOPTIC_CONF".to_owned(), path(layout.root.join("etc/kryoptic.conf"))),
        ("TPM2_PKCS11_STORE".to_owned(), path(layout.token())),
        // The TPM's library would write its own lines beside the daemon's.
        ("TSS2_LOG".to_owned(), "all+none".to_owned()),
    ];
    // Most labs have no such file.
    let more = fs::read_to_string(variables_file(layout)).unwrap_or_default();
    all.extend(more.lines().filter_map(|line| line.split_once('=')).map(|(name, value)| (name.into(), value.into())));
    all
}

/// A command under keyd's uid that finds the token.
pub(crate) fn beside_keyd(layout: &Layout, program: &str, arguments: &[&str]) -> Command {
    let mut command = beside(layout, "keyd", &Path::new("/usr/bin").join(program));
    command.args(arguments);
    command
}

/// A command under the uid of `daemon` that finds the token, as far as that uid may.
pub(crate) fn beside(layout: &Layout, daemon: &str, program: &Path) -> Command {
    let mut command = program::under(layout.owner, layout.owner.uid(daemon), program);
    command.envs(variables(layout));
    command
}

/// The file in which SoftHSM keeps a token's label, flags and wrapped key.
fn token_object(layout: &Layout) -> Result<PathBuf, LabError> {
    let folders = fs::read_dir(layout.token()).map_err(LabError::file(layout.token()))?;
    let found =
        folders.filter_map(Result::ok).map(|folder| folder.path().join("token.object")).find(|path| path.exists());
    found.ok_or_else(|| LabError::Failed { program: "softhsm2-util".into(), output: "it made no token".into() })
}

fn safe_copy(layout: &Layout) -> PathBuf {
    layout.token().join("token.object.copy")
}

/// Puts the token's own file back where a kill emptied it, while nobody uses the token.
///
/// SoftHSM 2.6 writes that file in place at each login, so a process that is killed in that moment leaves it empty, and the
/// token with all its keys is gone: seen once in some 300 kills. A token in hardware has no such file; the lab plays its part.
pub(crate) fn mend(layout: &Layout) {
    let Ok(object) = token_object(layout) else { return };
    if object.metadata().is_ok_and(|data| data.len() == 0) {
        let mended = fs::read(safe_copy(layout)).and_then(|copy| fs::write(&object, copy));
        println!("lab: SoftHSM's {} was emptied by a kill; put back: {mended:?}", object.display());
    }
}

/// Twelve random digits from the kernel.
pub(crate) fn digits() -> Result<String, LabError> {
    let path = Path::new("/dev/urandom");
    let mut random = [0; 12];
    let mut file = fs::File::open(path).map_err(LabError::file(path))?;
    std::io::Read::read_exact(&mut file, &mut random).map_err(LabError::file(path))?;
    Ok(random.iter().map(|byte| char::from(b'0' + byte % 10)).collect())
}

/// How many private and how many public keys are on the token, as OpenSC's `pkcs11-tool` sees them.
pub(crate) fn count_objects(layout: &Layout, module: &Path, pin: &Path) -> Result<(usize, usize), LabError> {
    let pin = fs::read_to_string(pin).map_err(LabError::file(pin))?;
    let module = module.to_string_lossy();
    let list = ["--module", &*module, "--token-label", LABEL, "--login", "--pin", "env:LAB_PIN", "--list-objects"];
    let mut command = beside_keyd(layout, "pkcs11-tool", &list);
    command.env("LAB_PIN", pin.trim());
    let output = program::finish(command)?;
    Ok(count_keys(&String::from_utf8_lossy(&output.stdout)))
}

/// Counts private and public keys in what `pkcs11-tool --list-objects` prints. An object without an identifier is no key of
/// anybody's: a SoftHSM that is killed while it makes one leaves an empty file, which it shows as an RSA key of 0 bits.
fn count_keys(listed: &str) -> (usize, usize) {
    let (mut private, mut public, mut kind) = (0, 0, "");
    for line in listed.lines() {
        if line.contains("Key Object") {
            kind = line;
        }
        if line.trim_start().strip_prefix("ID:").is_some_and(|id| !id.trim().is_empty()) {
            private += usize::from(kind.starts_with("Private"));
            public += usize::from(kind.starts_with("Public"));
        }
    }
    (private, public)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_without_an_identifier_is_no_key() {
        let listed = "Private Key Object; RSA \n  label:      CAPF\n  ID:         27\n  Usage:      sign\n\
                      Private Key Object; RSA \n  label:      \n  Usage:      none\n\
                      Public Key Object; RSA 2048 bits\n  label:      CAPF\n  ID:         27\n\
                      Public Key Object; RSA 0 bits\n  label:      \n  ID:         \n";
        assert_eq!(count_keys(listed), (1, 1));
    }
}
