//! The broker on a real PKCS#11 module. SoftHSM finds its settings by an environment variable that is read once a process, so
//! each test runs itself again in a process of its own with the variable set.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy.toml allows them in test functions; these are their own helpers

mod rig;

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    thread,
    time::Duration,
};

use aws_lc_rs::signature::{ECDSA_P384_SHA384_ASN1, UnparsedPublicKey};
use casemate_audit::{AuditSettings, Auditor};
use casemate_hsm_api::{HsmError, KeyRole, KeyStore, Pin};
use casemate_hsm_pkcs11::{Pkcs11Files, Pkcs11Settings, Pkcs11Store, TokenName};
use casemate_keyring::{BrokerState, Client, ClientSettings, NewPin, Refusal, Request, Response};
use casemate_post::Passed;
use casemate_runtime::{config::Config, daemon::Daemon, peer::LocalServer};
use nix::sys::{
    resource::{Resource, getrlimit},
    signal::{Signal, raise},
};
use rig::{CERTMGR, Caller, Node, ROOT, TFTP, tls13};

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
const FOLDER: &str = "CASEMATE_TEST_SOFTHSM";
const USERS: &str = "certmgr = 1001\ntftp = 1004\n";

/// The folder of this process's SoftHSM; nothing in the process that only runs the other one.
fn in_own_process(test: &str) -> Option<PathBuf> {
    if let Some(folder) = env::var_os(FOLDER) {
        return Some(folder.into());
    }
    assert!(Path::new(MODULE).exists(), "{MODULE} is missing: install the package softhsm2");
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    fs::create_dir(&tokens).unwrap();
    let conf = folder.path().join("softhsm2.conf");
    fs::write(&conf, format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display())).unwrap();
    let status = Command::new(env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(FOLDER, folder.path())
        .env("SOFTHSM2_CONF", &conf)
        .status()
        .unwrap();
    assert!(status.success());
    None
}

fn make_token() {
    let arguments = ["--init-token", "--free", "--label", "test", "--pin", "123456", "--so-pin", "12345678"];
    let output = Command::new("softhsm2-util").args(arguments).output().expect("the package softhsm2 is missing");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn write_pin(node: &Node, pin: &str) {
    let path = node.dir.path().join("pin");
    // It may be one that the broker wrote, which nobody may write.
    let _ = fs::remove_file(&path);
    fs::write(&path, pin).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn broker(node: &Node) -> Caller {
    let path = node.dir.path();
    let settings = Pkcs11Settings::new(MODULE, TokenName::Label("test".into()));
    let files = Pkcs11Files { pin: path.join("pin"), state: path.to_owned() };
    let store: Arc<dyn KeyStore> = Arc::new(Pkcs11Store::prepare(settings, files).unwrap());
    node.untested(store, node.record(), USERS)
}

#[test]
fn a_token_that_comes_late_is_waited_for_and_holds_every_key() {
    let Some(_) = in_own_process("a_token_that_comes_late_is_waited_for_and_holds_every_key") else { return };
    let node = Node::new();
    write_pin(&node, "123456");
    let late = broker(&node);
    assert!(matches!(late.attempt(), Err(HsmError::TokenAbsent { .. })));
    assert!(matches!(late.generate(CERTMGR, KeyRole::Tvs), Err(Refusal::Unavailable(_))));
    make_token();
    late.bring_back().unwrap();
    for role in KeyRole::ALL {
        assert!(late.generate(CERTMGR, role).unwrap().1, "{role}");
    }
    drop(late);
    let again = broker(&node);
    again.bring_back().unwrap();
    for role in KeyRole::ALL {
        assert!(!again.generate(CERTMGR, role).unwrap().1, "{role}");
    }
    let status = again.status(ROOT).unwrap();
    assert_eq!(status.keys.iter().filter(|(_, there)| *there == Some(true)).count(), 7);
    let spki = again.key(TFTP, KeyRole::CallManagerEcdsa).unwrap().spki_der;
    UnparsedPublicKey::new(&ECDSA_P384_SHA384_ASN1, spki).verify(&tls13(48), &again.handshake().unwrap()).unwrap();
    again.identity(KeyRole::Capf);
}

#[test]
fn a_wrong_pin_is_tried_once_in_the_life_of_the_token() {
    let Some(_) = in_own_process("a_wrong_pin_is_tried_once_in_the_life_of_the_token") else { return };
    make_token();
    let node = Node::new();
    write_pin(&node, "999999");
    // The first attempt tries it; those after it, of this process and of the next, do not.
    for process in 0..2 {
        let broker = broker(&node);
        let first = broker.attempt();
        match process {
            0 => assert!(matches!(first, Err(HsmError::PinIncorrect { .. })), "{first:?}"),
            _ => assert!(matches!(first, Err(HsmError::PinRefusedBefore { .. })), "{first:?}"),
        }
        assert!(matches!(broker.attempt(), Err(HsmError::PinRefusedBefore { .. })));
        assert!(matches!(broker.status(ROOT).unwrap().state, BrokerState::OutOfService(_)));
    }
    assert_eq!(node.audited("TokenRefused"), 2, "once a process");
    write_pin(&node, "123456");
    let broker = broker(&node);
    broker.bring_back().unwrap();
    assert!(broker.generate(CERTMGR, KeyRole::CallManagerEcdsa).unwrap().1);
}

fn change(broker: &Caller, pin: &str) -> Response {
    broker.ask(ROOT, Request::ChangePin { token: None, pin: NewPin(Pin::new(pin).unwrap()) })
}

fn refusal(answer: Response) -> String {
    match answer {
        Response::Refused(Refusal::Failed(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_pin_is_changed_while_the_token_serves_and_what_is_refused_ends_no_service() {
    const TEST: &str = "a_pin_is_changed_while_the_token_serves_and_what_is_refused_ends_no_service";
    let Some(_) = in_own_process(TEST) else { return };
    make_token();
    let node = Node::new();
    write_pin(&node, "123456");
    let held = || fs::read_to_string(node.dir.path().join("pin")).unwrap();
    let first = broker(&node);
    first.bring_back().unwrap();
    assert!(first.generate(CERTMGR, KeyRole::CallManagerEcdsa).unwrap().1);
    let short = refusal(change(&first, "12"));
    assert!(short.contains("4 to 255"), "{short}");
    let changed = change(&first, "864209");
    assert!(matches!(changed, Response::PinChanged { .. }), "{changed:?}");
    first.handshake().unwrap();
    assert_eq!(held(), "864209");
    // Somebody spoils the PIN file: it is tried once, and the login that holds is not given up for it.
    write_pin(&node, "000000");
    for expected in ["refused the PIN", "refused by token", "refused by token"] {
        let wrong = refusal(change(&first, "975310"));
        assert!(wrong.contains(expected), "{wrong}");
        first.handshake().unwrap();
    }
    assert!(matches!(first.status(ROOT).unwrap().state, BrokerState::Serving));
    drop(first);
    write_pin(&node, "864209");
    let again = broker(&node);
    again.bring_back().unwrap();
    again.handshake().unwrap();
    assert_eq!((node.audited("PinChanged"), node.audited("PinNotChanged"), node.audited("TokenRefused")), (1, 4, 0));
    for pin in ["123456", "864209", "975310", "000000"] {
        assert!(!node.journal().contains(pin), "{pin} is in the trail");
    }
}

/// Of a whole process, whose variable it is.
#[test]
fn a_pin_that_systemd_gave_is_not_changed_and_the_cure_is_said() {
    const TEST: &str = "a_pin_that_systemd_gave_is_not_changed_and_the_cure_is_said";
    const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";
    let Some(folder) = in_own_process(TEST) else { return };
    if env::var_os(CREDENTIALS).is_none() {
        let status = Command::new(env::current_exe().unwrap())
            .args([TEST, "--exact", "--nocapture"])
            .env(CREDENTIALS, &folder)
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    make_token();
    let node = Node::new();
    let path = folder.join("pin");
    fs::write(&path, "123456").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    let settings = Pkcs11Settings::new(MODULE, TokenName::Label("test".into()));
    let files = Pkcs11Files { pin: path.clone(), state: node.dir.path().to_owned() };
    let store: Arc<dyn KeyStore> = Arc::new(Pkcs11Store::prepare(settings, files).unwrap());
    let broker = node.untested(store, node.record(), USERS);
    broker.bring_back().unwrap();
    let refused = refusal(change(&broker, "864209"));
    assert!(refused.contains("systemd-creds") && refused.contains("pin-file"), "{refused}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "123456");
    assert!(
        !fs::read_dir(node.dir.path())
            .unwrap()
            .any(|entry| { entry.unwrap().file_name().to_string_lossy().contains("refused") })
    );
    broker.attempt().unwrap();
}

#[test]
fn the_daemon_listens_once_its_token_is_there_and_stops_when_told() {
    let Some(folder) = in_own_process("the_daemon_listens_once_its_token_is_there_and_stops_when_told") else { return };
    let node = Node::new();
    write_pin(&node, "123456");
    let root = node.dir.path().display();
    let uid = nix::unistd::geteuid().as_raw();
    let etc = folder.join("etc");
    fs::create_dir(&etc).unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::copy(shipped.join("key-policy.toml"), etc.join("key-policy.toml")).unwrap();
    let roles = fs::read_to_string(shipped.join("role-tokens.toml")).unwrap();
    fs::write(etc.join("role-tokens.toml"), roles.replace("token=casemate", "token=test")).unwrap();
    let text = format!(
        "[paths]\nrun = '{root}'\nstate = '{root}/state'\netc = '{}'\n[users]\ncertmgr = {uid}\n\
         [keyd]\npin-file = '{root}/pin'\npkcs11 = {{ module = '{MODULE}' }}\nbackoff = {{ limit-ms = 50 }}\n",
        etc.display()
    );
    fs::write(folder.join("casemate.toml"), text).unwrap();
    let config = Config::load(&folder.join("casemate.toml")).unwrap();
    let trail = AuditSettings { journal_socket: folder.join("none"), file: node.dir.path().join("journal.jsonl") };
    let daemon = Daemon {
        name: "keyd",
        settings: config.section("keyd").unwrap(),
        auditor: Arc::new(Auditor::open("casemate-keyd", &trail).unwrap()),
        passed: Passed::testing(),
        config,
    };
    let socket = node.dir.path().join("keyd.sock");
    let serving = thread::spawn(move || casemate_keyd::serve(daemon).map_err(|error| error.to_string()));
    while node.audited("TokenAbsent") == 0 {
        assert!(!serving.is_finished(), "{:?}", serving.join());
        thread::sleep(Duration::from_millis(10));
    }
    assert!(!socket.exists(), "nobody is served before the token was tested");
    make_token();
    let client = Client::new(
        &Passed::testing(),
        LocalServer::new(socket.clone(), nix::unistd::geteuid().as_raw()),
        ClientSettings::default(),
    );
    while client.status().is_err() {
        assert!(!serving.is_finished(), "{:?}", serving.join());
        thread::sleep(Duration::from_millis(10));
    }
    assert!(client.generate(KeyRole::TomcatEcdsa).unwrap().1);
    assert_eq!(nix::sys::prctl::get_dumpable(), Ok(false), "no dump of this process");
    assert_eq!(getrlimit(Resource::RLIMIT_CORE), Ok((0, 0)), "nor a core file");
    raise(Signal::SIGTERM).unwrap();
    serving.join().unwrap().unwrap();
}
