use std::{
    fs::{self, OpenOptions},
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use casemate_hsm_api::{Backup, HsmError, KeyAlgorithm, KeyId, KeySpec, KeyState, KeyStore, SignatureScheme};
use casemate_hsm_pin::PinError;
use casemate_hsm_pkcs11::{Pkcs11Error, Pkcs11Files, Pkcs11Settings, Pkcs11Store, TokenName};

use crate::lab::{LABEL, Lab, PIN, SO_PIN, in_lab, init_token};

const SPEC: KeySpec = KeySpec { algorithm: KeyAlgorithm::P256, backup: Backup::None };
const SCHEME: SignatureScheme = SignatureScheme::EcdsaP256Sha256;
const ID: KeyId = KeyId([9; 16]);

fn pull(lab: &Lab) {
    fs::rename(lab.tokens(), lab.folder.join("drawer")).unwrap();
    fs::create_dir(lab.tokens()).unwrap();
}

fn put_back(lab: &Lab) {
    fs::remove_dir(lab.tokens()).unwrap();
    fs::rename(lab.folder.join("drawer"), lab.tokens()).unwrap();
}

#[test]
fn a_pulled_token_is_absent_and_never_empty() {
    in_lab("absence::a_pulled_token_is_absent_and_never_empty", |lab| {
        let store = Pkcs11Store::open(lab.settings(), lab.files()).unwrap();
        store.generate(ID, "k", SPEC).unwrap();
        store.sign(ID, SCHEME, b"m").unwrap();
        pull(lab);
        let signed = store.sign(ID, SCHEME, b"m");
        println!("signed: {signed:?}");
        let unknown = store.inspect(KeyId([8; 16]), Some(SPEC));
        assert!(matches!(unknown, Err(HsmError::TokenAbsent { .. })), "{unknown:?}");
        let known = store.inspect(ID, Some(SPEC));
        assert!(matches!(known, Err(HsmError::TokenAbsent { .. })), "{known:?}");
        let listed = store.keys();
        assert!(matches!(listed, Err(HsmError::TokenAbsent { .. })), "{listed:?}");
        let made = store.generate(KeyId([8; 16]), "k", SPEC);
        assert!(made.is_err(), "{made:?}");
        let still = store.reconnect();
        assert!(matches!(still, Err(HsmError::TokenAbsent { .. })), "{still:?}");
        let signed = store.sign(ID, SCHEME, b"m");
        assert!(matches!(signed, Err(HsmError::TokenAbsent { .. })), "{signed:?}");
        put_back(lab);
        store.reconnect().unwrap();
        assert!(matches!(store.inspect(ID, Some(SPEC)).unwrap(), KeyState::Whole(_)));
        store.sign(ID, SCHEME, b"m").unwrap();
        store.reconnect().unwrap();
        assert_eq!(store.keys().unwrap().len(), 1);
        assert_eq!(fs::read_dir(lab.folder.join("state")).unwrap().count(), 0, "no PIN was left marked");
    });
}

/// Until the store has connected again, a token that is back may hide its private keys: that must not look like a half.
#[test]
fn a_token_that_is_back_is_not_taken_for_one_with_half_a_key() {
    in_lab("absence::a_token_that_is_back_is_not_taken_for_one_with_half_a_key", |lab| {
        let store = Pkcs11Store::open(lab.settings(), lab.files()).unwrap();
        store.generate(ID, "k", SPEC).unwrap();
        pull(lab);
        let away = store.inspect(ID, Some(SPEC));
        assert!(matches!(away, Err(HsmError::TokenAbsent { .. })), "{away:?}");
        put_back(lab);
        match store.inspect(ID, Some(SPEC)) {
            Ok(KeyState::Whole(_)) | Err(HsmError::TokenAbsent { .. }) => {}
            other => panic!("{other:?}"),
        }
        store.reconnect().unwrap();
        assert!(matches!(store.inspect(ID, Some(SPEC)).unwrap(), KeyState::Whole(_)));
    });
}

#[test]
fn a_token_that_comes_late_is_absent_until_it_is_there() {
    in_lab("absence::a_token_that_comes_late_is_absent_until_it_is_there", |lab| {
        pull(lab);
        let store = Pkcs11Store::prepare(lab.settings(), lab.files()).unwrap();
        assert!(matches!(store.token(), Err(HsmError::TokenAbsent { .. })), "nobody looked for it");
        for _ in 0..2 {
            assert!(matches!(store.reconnect(), Err(HsmError::TokenAbsent { .. })));
        }
        put_back(lab);
        assert!(matches!(store.keys(), Err(HsmError::TokenAbsent { .. })), "nobody logged in");
        store.reconnect().unwrap();
        assert!(store.keys().unwrap().is_empty());
    });
}

/// Whoever makes a token by `C_InitToken` sets its PIN by a second call. SoftHSM that is started in between says for ever that there
/// is no PIN, so it has to be started again.
#[test]
fn a_token_that_is_found_before_its_pin_is_set_is_used_when_it_is() {
    in_lab("absence::a_token_that_is_found_before_its_pin_is_set_is_used_when_it_is", |lab| {
        pull(lab);
        let store = Pkcs11Store::prepare(lab.settings(), lab.files()).unwrap();
        assert!(matches!(store.reconnect(), Err(HsmError::TokenAbsent { .. })));
        lab.tool(&["--init-token", "--slot-index", "0", "--label", LABEL, "--so-pin", SO_PIN]).unwrap();
        let found = store.reconnect();
        assert!(
            matches!(&found, Err(HsmError::Device { detail, .. }) if detail == "UserPinNotInitialized"),
            "{found:?}"
        );
        lab.pkcs11_tool(&["--login", "--login-type", "so", "--so-pin", SO_PIN, "--init-pin", "--pin", PIN]).unwrap();
        store.reconnect().unwrap();
        assert!(store.keys().unwrap().is_empty());
        assert_eq!(fs::read_dir(lab.files().state).unwrap().count(), 0, "no refused PIN is remembered");
    });
}

#[test]
fn what_waiting_does_not_help_is_told_at_once() {
    in_lab("absence::what_waiting_does_not_help_is_told_at_once", |lab| {
        pull(lab);
        let no_pin = Pkcs11Files { pin: lab.folder.join("no-pin"), ..lab.files() };
        let unreadable = Pkcs11Store::prepare(lab.settings(), no_pin).map(|_| ());
        assert!(matches!(unreadable, Err(Pkcs11Error::Pin(PinError::Unreadable { .. }))), "{unreadable:?}");
        let settings = Pkcs11Settings { module: "/dev/null".into(), ..lab.settings() };
        let no_module = Pkcs11Store::prepare(settings, lab.files()).map(|_| ());
        assert!(matches!(no_module, Err(Pkcs11Error::Module { .. })), "{no_module:?}");
    });
}

/// Has the next login hang as long as a FIFO in the place of the record of refused PINs has no writer.
struct Hang(PathBuf);

impl Hang {
    fn new(lab: &Lab) -> Self {
        let store = Pkcs11Store::open(lab.settings(), lab.files()).unwrap();
        let serial = store.token().unwrap().serial;
        drop(store);
        let path = lab.folder.join("state").join(format!("pin-refused-{serial}"));
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        Self(path)
    }

    /// Lets the login go on; it finds a damaged record, and fails.
    fn end(self) {
        drop(OpenOptions::new().write(true).open(&self.0).unwrap());
        fs::remove_file(self.0).unwrap();
    }
}

fn in_time<T>(mut attempt: impl FnMut() -> Result<T, Pkcs11Error>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match attempt() {
            Ok(done) => return done,
            Err(error) => assert!(Instant::now() < deadline, "{error:?}"),
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Time for one login, whose PBKDF2 alone takes a quarter of a second.
const PATIENCE_MS: u64 = 3_000;

#[test]
fn a_token_that_hangs_at_its_first_login_is_connected_by_the_same_store_later() {
    in_lab("absence::a_token_that_hangs_at_its_first_login_is_connected_by_the_same_store_later", |lab| {
        let hang = Hang::new(lab);
        let mut settings = lab.settings();
        settings.call_timeout_ms = PATIENCE_MS;
        let store = Pkcs11Store::prepare(settings, lab.files()).unwrap();
        for _ in 0..2 {
            let slow = store.reconnect();
            assert!(matches!(slow, Err(HsmError::Timeout { .. })), "{slow:?}");
        }
        hang.end();
        in_time(|| store.connect());
        assert!(store.keys().unwrap().is_empty());
    });
}

#[test]
fn a_store_that_was_given_up_while_a_call_hung_leaves_the_module_to_the_next() {
    in_lab("absence::a_store_that_was_given_up_while_a_call_hung_leaves_the_module_to_the_next", |lab| {
        let hang = Hang::new(lab);
        let mut settings = lab.settings();
        settings.call_timeout_ms = PATIENCE_MS;
        let slow = Pkcs11Store::open(settings.clone(), lab.files()).map(|_| ());
        assert!(matches!(slow, Err(Pkcs11Error::Hsm(HsmError::Timeout { .. }))), "{slow:?}");
        let meanwhile = Pkcs11Store::open(settings.clone(), lab.files()).map(|_| ());
        assert!(matches!(meanwhile, Err(Pkcs11Error::AlreadyOpen { .. })), "{meanwhile:?}");
        hang.end();
        let store = in_time(|| Pkcs11Store::open(settings.clone(), lab.files()));
        let second = Pkcs11Store::open(settings.clone(), lab.files()).map(|_| ());
        assert!(matches!(second, Err(Pkcs11Error::AlreadyOpen { .. })), "one at a time all the same: {second:?}");
        assert!(store.keys().unwrap().is_empty());
    });
}

#[test]
fn a_label_on_two_tokens_names_neither_and_a_serial_names_one() {
    in_lab("absence::a_label_on_two_tokens_names_neither_and_a_serial_names_one", |lab| {
        init_token(lab, crate::lab::LABEL);
        let opened = Pkcs11Store::open(lab.settings(), lab.files()).map(|_| ());
        assert!(matches!(opened, Err(Pkcs11Error::Hsm(HsmError::Device { .. }))), "{opened:?}");
        let folder = crate::lab::token_folder(&lab.tokens());
        let name = folder.file_name().unwrap().to_str().unwrap().replace('-', "");
        // SoftHSM names the folder by the token's UUID, of which the serial number is the last part.
        let serial = name[name.len() - 16..].to_owned();
        let mut settings = lab.settings();
        settings.token = TokenName::Serial(serial.clone());
        assert_eq!(Pkcs11Store::open(settings, lab.files()).unwrap().token().unwrap().serial, serial);
    });
}
