//! No private key lies in any file of the lab but the phone's own and the token's store.
#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use std::{fs, path::Path};

use casemate_harness::{Lab, LabSettings};

/// What a private key in a file looks like: PEM labels, and the start of PKCS#8, PKCS#1 and SEC 1 structures in DER.
fn looks_like_a_private_key(content: &[u8]) -> bool {
    let markers: [&[u8]; 5] = [
        b"PRIVATE KEY-----",
        // PrivateKeyInfo, version 0, rsaEncryption (RFC 5208, 5; RFC 8017, A.1).
        b"\x02\x01\x00\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01",
        // PrivateKeyInfo, version 0, id-ecPublicKey (RFC 5915).
        b"\x02\x01\x00\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01",
        // RSAPrivateKey of 2048 bits, version 0.
        b"\x02\x01\x00\x02\x82\x01\x01\x00",
        // ECPrivateKey of P-384, version 1.
        b"\x02\x01\x01\x04\x30",
    ];
    markers.iter().any(|marker| content.windows(marker.len()).any(|window| window == *marker))
}

fn search(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let (path, kind) = entry.map(|entry| (entry.path(), entry.file_type().unwrap())).unwrap();
        if kind.is_dir() {
            search(&path, found);
        } else if kind.is_file() && looks_like_a_private_key(&fs::read(&path).unwrap()) {
            found.push(path.display().to_string());
        }
    }
}

#[test]
fn no_file_but_the_phones_own_holds_a_private_key() {
    let lab = Lab::start(LabSettings::for_test("secrets")).unwrap();
    lab.add_phone("SEP001122334455", &["--null-string"]).unwrap();
    lab.phone("SEP001122334455").play(&[]).unwrap();
    let mut found = Vec::new();
    for folder in ["etc", "run", "state", "log", "token", "phones"] {
        search(&lab.layout.root.join(folder), &mut found);
    }
    // The search works: it finds the phone's own key. Programs are left out, for they hold the markers of this search.
    let own = lab.phone("SEP001122334455").folder().display().to_string();
    assert!(!found.is_empty() && found.iter().all(|path| path.starts_with(&own)), "{found:?}");
}

#[test]
fn the_pin_and_the_authentication_string_are_in_no_log_and_no_record() {
    let lab = Lab::start(LabSettings::for_test("secrets-strings")).unwrap();
    lab.add_phone("SEP001122334455", &["--string", "9081726354"]).unwrap();
    lab.phone("SEP001122334455").play(&["--string", "9081726354"]).unwrap();
    let pin = fs::read(lab.layout.pin()).unwrap();
    let mut searched = 0;
    for folder in ["run", "state", "log", "token"] {
        let mut folders = vec![lab.layout.root.join(folder)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
                let kind = entry.file_type().unwrap();
                if kind.is_dir() {
                    folders.push(entry.path());
                } else if kind.is_file() {
                    let content = fs::read(entry.path()).unwrap();
                    for secret in [pin.as_slice(), b"9081726354"] {
                        assert!(!content.windows(secret.len()).any(|w| w == secret), "{}", entry.path().display());
                    }
                    searched += 1;
                }
            }
        }
    }
    let journal = fs::read_to_string(lab.layout.journal()).unwrap();
    assert!(!journal.contains("9081726354") && searched > 10);
}
