//! `casemate-hsm-probe SETTINGS.json login`, `... generate ID` or `... change-pin PIN`: one short-lived process with a token, so that tests can see
//! what survives between processes, and kill one in the middle. The file holds the pair of [`Pkcs11Settings`] and
//! [`Pkcs11Files`]. Prints one line: `ok`, or the name of the error.
#![forbid(unsafe_code)]

use std::{env, error::Error, fs, process::ExitCode};

use casemate_hsm_api::{Backup, HsmError, KeyAlgorithm, KeyId, KeySpec, KeyStore, Pin};
use casemate_hsm_pkcs11::{Pkcs11Error, Pkcs11Files, Pkcs11Settings, Pkcs11Store};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (line, code) = match run(&arguments) {
        Ok(()) => ("ok".to_owned(), ExitCode::SUCCESS),
        Err(error) => (name(error.as_ref()), ExitCode::FAILURE),
    };
    println!("{line}");
    code
}

fn run(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let [settings, command, rest @ ..] = arguments else { return Err("SETTINGS.json COMMAND".into()) };
    let (settings, files): (Pkcs11Settings, Pkcs11Files) = serde_json::from_slice(&fs::read(settings)?)?;
    let store = Pkcs11Store::open(settings, files)?;
    match (command.as_str(), rest) {
        ("login", []) => Ok(()),
        ("generate", [id]) => {
            let id = KeyId::from_hex(id).ok_or("an identifier has 32 hexadecimal digits")?;
            // Said before the generation begins, so that the test knows when to kill.
            println!("generating");
            store.generate(id, "probe", KeySpec { algorithm: KeyAlgorithm::P256, backup: Backup::None })?;
            Ok(())
        }
        ("change-pin", [pin]) => {
            println!("changing");
            Ok(store.change_pin(&Pin::new(pin)?)?)
        }
        _ => Err("login, generate ID, or change-pin PIN".into()),
    }
}

/// The variant's name: what a test compares.
fn name(error: &(dyn Error + 'static)) -> String {
    let hsm =
        error.downcast_ref::<HsmError>().or_else(|| error.downcast_ref::<Pkcs11Error>().and_then(Pkcs11Error::hsm));
    let text = match (hsm, error.downcast_ref()) {
        (Some(error), _) => format!("{error:?}"),
        (None, Some(Pkcs11Error::Pin(error))) => format!("{error:?}"),
        (None, _) => format!("{error:?}"),
    };
    text.split([' ', '(', '{']).next().unwrap_or_default().to_owned()
}
