//! No private key lies in any file of the lab but the phone's own and the token's store, and no PIN or authentication string in
//! any but the one that keyd reads it from.
#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use casemate_harness::{Lab, LabSettings, Owner, programs};
use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    signal::{Signal, kill},
};

const PHONE: &str = "SEP001122334455";
const STRING: &str = "9081726354";

/// The kind of private key that lies in `content` as it is, or in base64 or hexadecimal digits in it.
fn private_key_in(content: &[u8]) -> Option<&'static str> {
    let holds = |text: &[u8]| content.windows(text.len()).any(|window| window == text);
    if holds(b"PRIVATE KEY-----") || holds(b"PRIVATE KEY BLOCK-----") {
        return Some("PEM");
    }
    if holds(b"\"kty\"") && holds(b"\"d\"") {
        return Some("JSON Web Key");
    }
    let coded = |digits: &'static [u8], bits, shortest| {
        let texts = runs(content, digits, shortest);
        // Where in the run the key begins is not known: any digit may be the first of its byte.
        texts.iter().any(|text| {
            (0..4).any(|first| der_key(&decoded(text.get(first..).unwrap_or_default(), digits, bits)).is_some())
        })
    };
    if let Some(kind) = der_key(content) {
        return Some(kind);
    }
    let is_coded = coded(BASE64, 6, 40) || coded(BASE64URL, 6, 40) || coded(HEX, 4, 60) || coded(UPPER_HEX, 4, 60);
    is_coded.then_some("in base64 or hexadecimal digits")
}

const BASE64: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const BASE64URL: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const HEX: &[u8] = b"0123456789abcdef";
const UPPER_HEX: &[u8] = b"0123456789ABCDEF";

/// Runs of `digits` of at least `shortest`, over the ends of lines.
fn runs(content: &[u8], digits: &[u8], shortest: usize) -> Vec<Vec<u8>> {
    let (mut found, mut run) = (Vec::new(), Vec::new());
    for byte in content.iter().chain(b"\0") {
        if digits.contains(byte) {
            run.push(*byte);
        } else if !b"\r\n".contains(byte) {
            if run.len() >= shortest {
                found.push(std::mem::take(&mut run));
            }
            run.clear();
        }
    }
    found
}

fn decoded(text: &[u8], digits: &[u8], bits: u32) -> Vec<u8> {
    let (mut bytes, mut left, mut count) = (Vec::with_capacity(text.len()), 0_u32, 0);
    for digit in text {
        left = left << bits | digits.iter().position(|known| known == digit).unwrap() as u32;
        count += bits;
        if count >= 8 {
            count -= 8;
            bytes.push((left >> count) as u8);
        }
        left &= (1 << count) - 1;
    }
    bytes
}

/// The structure of a private key in DER that begins anywhere in `bytes`.
fn der_key(bytes: &[u8]) -> Option<&'static str> {
    (0..bytes.len()).filter(|at| bytes[*at] == 2).find_map(|at| der_key_at(bytes, at))
}

/// The same, with its version at `at`.
fn der_key_at(bytes: &[u8], at: usize) -> Option<&'static str> {
    let (before, from) = bytes.split_at(at);
    match from {
        // PrivateKeyInfo, version 0 or 1: version, algorithm, OCTET STRING (RFC 5208, 5; RFC 5958, 2). In a certificate of that
        // serial number a SEQUENCE follows the algorithm.
        [2, 1, 0 | 1, 0x30, length @ 1..=0x7f, 6, ..] if from.get(5 + usize::from(*length)) == Some(&4) => {
            Some("PKCS#8")
        }
        // RSAPrivateKey, version 0, of 1024, 2048, 3072 or 4096 bits (RFC 8017, A.1.2).
        [2, 1, 0, 2, 0x81, 0x81, 0, ..] | [2, 1, 0, 2, 0x82, 1 | 2, 1 | 0x81, 0, ..] => Some("PKCS#1"),
        // ECPrivateKey, version 1, of P-256, P-384 or P-521 (RFC 5915, 3).
        [2, 1, 1, 4, 0x20 | 0x30 | 0x42, ..] if matches!(before, [.., 0x30, _] | [.., 0x30, 0x81, _]) => Some("SEC 1"),
        // PFX, version 3, with data (RFC 7292, 4).
        [2, 1, 3, 0x30, rest @ ..] => {
            let data = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01";
            rest.get(..16)?.windows(data.len()).any(|window| window == data).then_some("PKCS#12")
        }
        _ => None,
    }
}

/// Every regular file under `folder`.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    // What a daemon replaces meanwhile is looked at under its new name or not at all.
    for entry in fs::read_dir(folder).into_iter().flatten().map(Result::unwrap) {
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => found.extend(files(&entry.path())),
            kind if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    found
}

/// Files of the lab that hold a private key, each with the kind of it. Programs are not searched, for they hold the markers and the
/// vectors of the self-tests: they must be what was built.
fn with_private_keys(lab: &Lab) -> Vec<(PathBuf, &'static str)> {
    let (programs, all) = (programs(), files(&lab.layout.root));
    assert!(all.len() > 30, "{all:?}");
    all.into_iter()
        .filter_map(|path| {
            let content = fs::read(&path).ok()?;
            let name = path.file_name()?;
            if name.to_str()?.starts_with("casemate") && name != "casemate.toml" {
                assert!(fs::read(programs.join(name)).unwrap() == content, "{} is not as built", path.display());
                return None;
            }
            private_key_in(&content).map(|kind| (path, kind))
        })
        .collect()
}

/// That no file holds a private key; those in the phone's folder are its own.
fn nothing_but_the_phones_own(lab: &Lab, when: &str) -> usize {
    let own = lab.phone(PHONE).folder();
    let (own, other): (Vec<_>, Vec<_>) =
        with_private_keys(lab).into_iter().partition(|(path, _)| path.starts_with(&own));
    assert!(other.is_empty(), "{when}: {other:?}");
    own.len()
}

fn openssl(folder: &Path, arguments: &[&str]) {
    let output = Command::new("openssl").current_dir(folder).args(arguments).output().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Keys of `kind` (arguments of `openssl genpkey`) in `folder`, in every form that OpenSSL writes.
fn key_files(folder: &Path, kind: &[&str], own_form: Option<&str>) {
    openssl(folder, &[&["genpkey", "-out", "key.pem"], kind].concat());
    openssl(folder, &["pkcs8", "-topk8", "-nocrypt", "-in", "key.pem", "-outform", "DER", "-out", "pkcs8.der"]);
    openssl(folder, &["pkcs8", "-topk8", "-passout", "pass:x", "-in", "key.pem", "-out", "encrypted.pem"]);
    openssl(folder, &["base64", "-in", "pkcs8.der", "-out", "pkcs8.base64"]);
    if let Some(own_form) = own_form {
        let traditional = ["pkey", "-traditional", "-in", "key.pem"];
        openssl(folder, &[&traditional[..], &["-out", "own.pem"]].concat());
        assert!(fs::read_to_string(folder.join("own.pem")).unwrap().contains(own_form));
        openssl(folder, &[&traditional[..], &["-outform", "DER", "-out", "own.der"]].concat());
        openssl(folder, &["base64", "-A", "-in", "own.der", "-out", "own.base64"]);
    }
    openssl(folder, &["req", "-x509", "-new", "-key", "key.pem", "-subj", "/CN=key", "-out", "public.crt"]);
    let bag = ["pkcs12", "-export", "-inkey", "key.pem", "-in", "public.crt", "-passout", "pass:", "-out", "bag.p12"];
    openssl(folder, &bag);
    for form in ["pkcs8.der", "own.der"].map(|name| folder.join(name)).iter().filter(|path| path.exists()) {
        let der = fs::read(form).unwrap();
        let text = format!("{{\"b\":\"x{}\"}}", hex::encode(&der));
        fs::write(form.with_extension("hex"), text).unwrap();
        fs::write(form.with_extension("page"), [&[0xaa; 1000][..], &der[..der.len().min(60)], &[0; 50]].concat())
            .unwrap();
    }
    // What is no secret and looks most like one.
    openssl(folder, &["pkey", "-in", "key.pem", "-pubout", "-out", "public.pem"]);
    openssl(folder, &["pkey", "-in", "key.pem", "-pubout", "-outform", "DER", "-out", "public.der"]);
    openssl(folder, &["x509", "-in", "public.crt", "-outform", "DER", "-out", "public.crt.der"]);
    let serial = ["req", "-x509", "-new", "-key", "key.pem", "-subj", "/CN=key", "-set_serial", "1", "-outform", "DER"];
    openssl(folder, &[&serial[..], &["-out", "public.serial-1.der"]].concat());
    openssl(folder, &["req", "-new", "-key", "key.pem", "-subj", "/CN=key", "-outform", "DER", "-out", "public.csr"]);
}

#[test]
fn the_search_knows_a_private_key_in_every_form_and_takes_nothing_else_for_one() {
    let kinds: [(&[&str], Option<&str>); 7] = [
        (&["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"], Some("BEGIN RSA PRIVATE KEY")),
        (&["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"], Some("BEGIN RSA PRIVATE KEY")),
        (&["-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048"], None),
        (&["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"], Some("BEGIN EC PRIVATE KEY")),
        (&["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"], Some("BEGIN EC PRIVATE KEY")),
        (&["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"], Some("BEGIN EC PRIVATE KEY")),
        (&["-algorithm", "ED25519"], None),
    ];
    for (kind, own_form) in kinds {
        let folder = tempfile::tempdir().unwrap();
        key_files(folder.path(), kind, own_form);
        let (mut keys, mut others) = (0, 0);
        for path in files(folder.path()) {
            let found = private_key_in(&fs::read(&path).unwrap());
            let is_public = path.file_name().unwrap().to_str().unwrap().starts_with("public");
            assert_eq!(found.is_none(), is_public, "{kind:?}: {}: {found:?}", path.display());
            *if is_public { &mut others } else { &mut keys } += 1;
        }
        assert!(keys >= 7 && others == 6, "{keys}, {others}");
    }
}

#[test]
fn no_file_but_the_phones_own_holds_a_private_key() {
    // If keyd left a core, it would: every limit that this test can lift is lifted.
    let (_, most) = getrlimit(Resource::RLIMIT_CORE).unwrap();
    setrlimit(Resource::RLIMIT_CORE, most, most).unwrap();
    let lab = Lab::start(LabSettings::for_test("secrets")).unwrap();
    assert_eq!(nothing_but_the_phones_own(&lab, "provisioned"), 0);
    lab.add_phone(PHONE, &["--string", STRING]).unwrap();
    assert_eq!(nothing_but_the_phones_own(&lab, "while the phone is awaited"), 0);
    lab.phone(PHONE).play(&["--string", STRING]).unwrap();
    assert!(nothing_but_the_phones_own(&lab, "enrolled") > 0, "the phone's own key is not found");

    // keyd's memory holds the PIN and, with SoftHSM, the keys.
    let keyd = lab.pid("keyd").unwrap();
    let proc = PathBuf::from(format!("/proc/{keyd}"));
    let limits = fs::read_to_string(proc.join("limits")).unwrap();
    let core: Vec<_> =
        limits.lines().find(|line| line.starts_with("Max core file size")).unwrap().split_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"], "{core:?}");
    if lab.layout.owner == Owner::Each {
        // The files of a process that may not be dumped or attached to are root's (proc(5)).
        assert_eq!(
            fs::metadata(proc.join("environ")).unwrap().uid(),
            0,
            "another process of its uid may read its memory"
        );
    }
    let stands = fs::read_link(proc.join("cwd")).unwrap();
    let starts = lab.starts("keyd");
    kill(keyd, Signal::SIGABRT).unwrap();
    lab.wait_for("another keyd", Duration::from_secs(20), || lab.starts("keyd") > starts).unwrap();
    let is_core = |path: &Path| path.file_name().unwrap().to_string_lossy().starts_with("core");
    let cores: Vec<_> = files(&lab.layout.root).into_iter().filter(|path| is_core(path)).collect();
    let beside = fs::read_dir(stands).unwrap().map(|entry| entry.unwrap().path()).find(|path| is_core(path));
    assert!(cores.is_empty() && beside.is_none(), "{cores:?} {beside:?}");
    nothing_but_the_phones_own(&lab, "after keyd aborted");

    // And the search finds what should not be there, where a daemon would leave it.
    let planted = lab.layout.state().join("capf/public.new");
    fs::write(&planted, phones_key(&lab)).unwrap();
    assert!(with_private_keys(&lab).iter().any(|(path, _)| *path == planted), "a planted key is not found");
}

/// What the phone keeps its key in.
fn phones_key(lab: &Lab) -> Vec<u8> {
    let own = lab.phone(PHONE).folder();
    let (path, _) = with_private_keys(lab).into_iter().find(|(path, _)| path.starts_with(&own)).unwrap();
    fs::read(path).unwrap()
}

/// Files under the lab that hold `secret`.
fn holding(lab: &Lab, secret: &[u8]) -> Vec<PathBuf> {
    let holds = |path: &PathBuf| fs::read(path).is_ok_and(|content| content.windows(secret.len()).any(|w| w == secret));
    files(&lab.layout.root).into_iter().filter(holds).collect()
}

#[test]
fn the_pin_and_the_authentication_string_are_in_no_log_and_no_record() {
    let lab = Lab::start(LabSettings::for_test("secrets-strings")).unwrap();
    let pin = fs::read_to_string(lab.layout.pin()).unwrap();
    let nowhere = |when: &str| {
        assert_eq!(holding(&lab, pin.trim().as_bytes()), [lab.layout.pin()], "the PIN, {when}");
        let held = holding(&lab, STRING.as_bytes());
        assert!(held.is_empty(), "the string, {when}: {held:?}");
    };
    lab.add_phone(PHONE, &["--string", STRING]).unwrap();
    nowhere("while it pends");
    // A wrong one that is nearly right is as good as half of the right one.
    let wrong = "9081726355";
    assert!(lab.phone(PHONE).play(&["--string", wrong]).is_err());
    lab.wait_for_events("EnrolmentRefused", 1).unwrap();
    assert!(holding(&lab, wrong.as_bytes()).is_empty());
    nowhere("after a wrong one");
    lab.phone(PHONE).play(&["--string", STRING]).unwrap();
    nowhere("used");
    // A daemon that is told to end writes its records together.
    for (daemon, _) in casemate_harness::DAEMONS {
        lab.stop_daemon(daemon).unwrap();
    }
    thread::sleep(Duration::from_millis(100));
    nowhere("after the end");
    // The search finds a string where one is.
    fs::write(lab.layout.log("capf"), format!("string {STRING}\n")).unwrap();
    assert_eq!(holding(&lab, STRING.as_bytes()), [lab.layout.log("capf")]);
}
