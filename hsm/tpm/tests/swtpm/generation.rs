use std::{
    env,
    fs::{self, File},
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use casemate_hsm_api::{Backup, KeyAlgorithm, KeyId, KeySpec, KeyState, KeyStore, SignatureScheme};
use casemate_hsm_tpm::{TpmSettings, TpmStore};

use crate::lab::Lab;

const SPEC: KeySpec = KeySpec { algorithm: KeyAlgorithm::P256, backup: Backup::None };
const SCHEME: SignatureScheme = SignatureScheme::EcdsaP256Sha256;
const SETTINGS: &str = "CASEMATE_TPM_SETTINGS";
const KEY: &str = "CASEMATE_TPM_KEY";

/// What the child process does: the test calls itself again, by its name, with the settings in the environment.
fn child() -> bool {
    let (Some(settings), Ok(id)) = (env::var_os(SETTINGS), env::var(KEY)) else { return false };
    let settings: TpmSettings = serde_json::from_reader(File::open(settings).unwrap()).unwrap();
    let store = TpmStore::open(settings).unwrap();
    // Said before the generation begins, so that the parent knows when to kill.
    println!("\ngenerating");
    store.generate(KeyId::from_hex(&id).unwrap(), "probe", SPEC).unwrap();
    println!("generated");
    true
}

/// Starts a generation in another process and kills it `after` it began.
fn interrupt(lab: &Lab, id: KeyId, after: Duration) {
    let path = lab.path("settings.json");
    fs::write(&path, serde_json::to_vec(&lab.settings()).unwrap()).unwrap();
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["generation::a_generation_killed_anywhere_ends_with_one_key", "--exact", "--nocapture"])
        .env(SETTINGS, path)
        .env(KEY, id.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Kept to the end: the child must not die of a closed pipe instead.
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while line.trim() != "generating" {
        line.clear();
        assert_ne!(output.read_line(&mut line).unwrap(), 0, "the child did not begin");
    }
    thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Without a resource manager a killed process leaves its objects and sessions in the TPM, which holds three of each: that the
/// later children begin at all shows that they are flushed.
#[test]
fn a_generation_killed_anywhere_ends_with_one_key() {
    if child() {
        return;
    }
    let lab = Lab::new();
    let ids: Vec<KeyId> = (0..20).map(|number| KeyId([number; 16])).collect();
    for (number, id) in ids.iter().enumerate() {
        interrupt(&lab, *id, Duration::from_millis(number as u64 * 3));
    }
    let store = TpmStore::open(lab.settings()).unwrap();
    let mut found = [0, 0, 0];
    for id in &ids {
        match store.inspect(*id, Some(SPEC)).unwrap() {
            KeyState::Whole(_) => found[0] += 1,
            KeyState::Absent => {
                found[1] += 1;
                store.generate(*id, "probe", SPEC).unwrap();
            }
            KeyState::Half => {
                found[2] += 1;
                store.remove_half(*id).unwrap();
                store.generate(*id, "probe", SPEC).unwrap();
            }
        }
        store.sign(*id, SCHEME, b"m").unwrap();
    }
    println!("{} whole, {} absent, {} half", found[0], found[1], found[2]);
    assert!(found[0] > 0 && found[1] > 0, "the steps reach from before to after: {found:?}");
    assert_eq!(store.keys().unwrap().len(), ids.len());
    let files = fs::read_dir(lab.path("token")).unwrap().filter(|entry| {
        let name = entry.as_ref().unwrap().file_name().into_string().unwrap();
        !name.starts_with('.')
    });
    assert_eq!(files.count(), 2 * ids.len() + 1, "two files a key, and the token");
}

/// A crash between the two files of a key.
#[test]
fn a_key_that_lost_a_half_is_made_anew_and_the_loaded_one_signs_no_more() {
    let lab = Lab::new();
    let store = TpmStore::open(lab.settings()).unwrap();
    let id = KeyId([0x11; 16]);
    let first = store.generate(id, "k", SPEC).unwrap();
    store.sign(id, SCHEME, b"m").unwrap();
    fs::remove_file(lab.path("token").join(format!("{id}.public"))).unwrap();
    assert_eq!(store.inspect(id, Some(SPEC)).unwrap(), KeyState::Half);
    assert!(store.sign(id, SCHEME, b"m").is_err());
    store.remove_half(id).unwrap();
    let second = store.generate(id, "k", SPEC).unwrap();
    assert_ne!(first, second);
    let signature = store.sign(id, SCHEME, b"m").unwrap();
    assert!(casemate_hsm_conformance::verifies(&second, SCHEME, b"m", &signature));
}
