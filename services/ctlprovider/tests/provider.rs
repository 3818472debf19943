//! The daemon's loop against certmgr's files, and a key broker and a CAPF that speak the real protocols.
#![allow(clippy::unwrap_used, clippy::panic)] // a step that fails is a test that fails
#![allow(dead_code)] // the support is shared

mod support;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{fs::MetadataExt, net::UnixListener},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, atomic::Ordering},
    thread,
};

use casemate_capf::{authentication::Mode, control};
use casemate_ctlprovider::{CtlproviderSettings, Identities, Provider, Sign};
use casemate_hsm_api::KeyRole;
use casemate_keyring::{Client, ClientSettings, FRAMING, Purpose, Request, Response, SignRequest};
use casemate_phonefile::{Limits, Role, TrustList};
use casemate_pki::CertificateFacts;
use casemate_post::Passed;
use casemate_runtime::config::Config;
use serde::{Serialize, de::DeserializeOwned};
use support::{Signer, auditor, folder, identities, rsa, trail};

fn answer<Q: DeserializeOwned, A: Serialize>(
    socket: &Path,
    framing: casemate_runtime::frame::Framing,
    respond: impl Fn(Q) -> A + Send + Sync + 'static,
) {
    let (listener, respond) = (UnixListener::bind(socket).unwrap(), Arc::new(respond));
    thread::spawn(move || {
        for connection in listener.incoming() {
            let (mut connection, respond) = (connection.unwrap(), Arc::clone(&respond));
            thread::spawn(move || {
                while let Ok(Some(request)) = framing.read(&mut connection) {
                    framing.write(&mut connection, &respond(request)).unwrap();
                }
            });
        }
    });
}

struct Node {
    root: tempfile::TempDir,
    config: Config,
    identities: Identities,
    list: Arc<Signer>,
    file: Arc<Signer>,
    /// Every key, by its fingerprint.
    keys: Arc<Mutex<BTreeMap<String, Arc<Signer>>>>,
    devices: Arc<Mutex<Vec<control::DeviceConfig>>>,
}

impl Node {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let path = root.path();
        let uid = nix::unistd::geteuid();
        let settings = format!(
            "[paths]\nrun = \"{0}\"\nstate = \"{0}/state\"\n[users]\nkeyd = {uid}\ncapf = {uid}\n",
            path.display()
        );
        fs::write(path.join("casemate.toml"), settings).unwrap();
        let config = Config::load(&path.join("casemate.toml")).unwrap();
        for daemon in ["certmgr", "ctlprovider"] {
            folder(path, &format!("state/{daemon}/public"));
        }
        let (identities, list, file) = identities();
        let (list, file, devices, keys) = (Arc::new(list), Arc::new(file), Arc::default(), Arc::default());
        let node = Self { root, config, identities, list, file, keys, devices };
        node.have(&node.identities.recovery, &node.list);
        node.have(&node.identities.call_manager, &node.file);
        node.serve();
        node
    }

    /// The broker has the key of this certificate.
    fn have(&self, certificate: &CertificateFacts, signer: &Arc<Signer>) {
        self.keys.lock().unwrap().insert(certificate.key_fingerprint(), Arc::clone(signer));
    }

    fn serve(&self) {
        let keys = Arc::clone(&self.keys);
        answer(&self.config.paths.socket("keyd"), FRAMING, move |request: Request| match request {
            Request::Sign(SignRequest { role, key, purpose, message, .. }) => {
                match (role, &purpose) {
                    (KeyRole::ItlRecovery | KeyRole::CallManager, Purpose::TrustList)
                    | (KeyRole::CallManager, Purpose::File { .. }) => {}
                    other => panic!("{other:?} was asked for"),
                }
                let signer = Arc::clone(&keys.lock().unwrap()[&key.expect("the key is named")]);
                match signer.sign(purpose, &message) {
                    Ok(signature) => Response::Signature(signature),
                    Err(casemate_keyring::KeyringError::Refused(refusal)) => Response::Refused(refusal),
                    Err(error) => panic!("{error}"),
                }
            }
            other => panic!("{other:?} was asked"),
        });
        let devices = Arc::clone(&self.devices);
        let framing = casemate_runtime::control::FRAMING;
        answer(&self.config.paths.socket("capf"), framing, move |request: control::Request| {
            let control::Request::DevicesSince { sequence, limit } = request else { panic!("{request:?}") };
            let all: Vec<control::DeviceConfig> = devices.lock().unwrap().clone();
            let later = all.into_iter().filter(|device| device.sequence > sequence);
            control::Response::Devices(later.take(limit as usize).collect())
        });
    }

    fn provider(&self) -> Provider {
        self.provider_with(CtlproviderSettings { page: 2, ..CtlproviderSettings::default() })
    }

    fn provider_with(&self, settings: CtlproviderSettings) -> Provider {
        let client = Client::new(&Passed::testing(), self.config.server("keyd").unwrap(), ClientSettings::default());
        Provider::new(&self.config, settings, client, auditor(self.root.path())).unwrap()
    }

    fn publish(&self, role: KeyRole, certificate: &CertificateFacts) {
        let pem = pem::encode(&pem::Pem::new("CERTIFICATE", certificate.der.as_slice()));
        let path = self.config.paths.public_of("certmgr").join(format!("{role}.pem"));
        casemate_runtime::publish::write_atomically(&path, pem.as_bytes(), 0o644).unwrap();
    }

    fn publish_all(&self) {
        let Identities { recovery, call_manager, call_manager_ecdsa, capf, tvs } = &self.identities;
        self.publish(KeyRole::ItlRecovery, recovery);
        self.publish(KeyRole::CallManager, call_manager);
        self.publish(KeyRole::CallManagerEcdsa, call_manager_ecdsa);
        self.publish(KeyRole::Capf, capf);
        self.publish(KeyRole::Tvs, tvs);
    }

    fn add(&self, name: &str, mode: Option<Mode>) {
        let mut devices = self.devices.lock().unwrap();
        let sequence = devices.iter().map(|device| device.sequence).max().unwrap_or(0) + 1;
        devices.retain(|device| device.name.as_str() != name);
        devices.push(control::DeviceConfig { name: name.parse().unwrap(), mode, sequence });
    }

    fn public(&self) -> PathBuf {
        self.config.paths.public_of("ctlprovider")
    }

    /// Inode of each published file: a file that was written again has another.
    fn files(&self) -> BTreeMap<String, u64> {
        fs::read_dir(self.public())
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().ino()))
            .collect()
    }

    fn signatures(&self) -> (usize, usize) {
        (self.list.count(), self.file.count())
    }
}

#[test]
fn nothing_is_published_before_every_certificate_is_there() {
    let node = Node::new();
    let mut provider = node.provider();
    node.publish(KeyRole::ItlRecovery, &node.identities.recovery);
    node.publish(KeyRole::CallManager, &node.identities.call_manager);
    provider.look();
    assert!(node.files().is_empty());
    node.publish_all();
    provider.look();
    assert_eq!(node.files().into_keys().collect::<Vec<_>>(), ["ITLFile.tlv"]);
    assert!(trail(node.root.path()).contains("ITLFile.tlv rebuilt: 6 records"));
}

#[test]
fn looking_again_and_a_restart_sign_nothing() {
    let node = Node::new();
    node.publish_all();
    for number in 0..5 {
        node.add(&format!("SEP00112233445{number}"), None);
    }
    let mut provider = node.provider();
    provider.look();
    let files = node.files();
    assert_eq!(files.len(), 11);
    assert_eq!(node.signatures(), (1, 5));
    provider.look();
    // certmgr publishes the same certificates again.
    node.publish_all();
    provider.look();
    node.provider().look();
    assert_eq!(node.files(), files);
    assert_eq!(node.signatures(), (1, 5));
}

#[test]
fn a_changed_device_alone_is_signed_again() {
    let node = Node::new();
    node.publish_all();
    let mut provider = node.provider();
    node.add("SEP001122334450", None);
    node.add("SEP001122334451", None);
    provider.look();
    let before = node.files();
    node.add("SEP001122334451", Some(Mode::NullString));
    provider.look();
    let changed: Vec<_> = node.files().into_iter().filter(|(name, inode)| before.get(name) != Some(inode)).collect();
    assert_eq!(changed.len(), 2, "{changed:?}");
    assert!(changed.iter().all(|(name, _)| name.starts_with("SEP001122334451")));
    assert_eq!(node.signatures(), (1, 3));
}

#[test]
fn a_new_certificate_rebuilds_the_list_and_a_lost_list_comes_back() {
    let node = Node::new();
    node.publish_all();
    let mut provider = node.provider();
    provider.look();
    node.publish(KeyRole::Tvs, &rsa(KeyRole::Tvs).1);
    provider.look();
    assert_eq!(node.signatures(), (2, 0));
    fs::remove_file(node.public().join("ITLFile.tlv")).unwrap();
    provider.look();
    assert_eq!(node.signatures(), (3, 0));
    fs::write(node.public().join("ITLFile.tlv"), "tampered").unwrap();
    provider.look();
    assert_eq!(node.signatures(), (4, 0));
}

/// SHA-256 of the key that signed the published list, which is a list.
fn list_signer(node: &Node) -> String {
    let list = TrustList::verified(&fs::read(node.public().join("ITLFile.tlv")).unwrap()).unwrap();
    let (serial, issuer) = (&list.signer().serial, &list.signer().issuer);
    let mut records = list.records().iter().filter(|record| record.role == Role::Sast);
    let record = records.find(|record| (&record.serial, &record.issuer) == (serial, issuer)).unwrap();
    CertificateFacts::parse(&record.certificate).unwrap().key_fingerprint()
}

/// Each list is signed by a key that the one before names, and by no other as long as that key is certified.
#[test]
fn whoever_is_re_keyed_phones_know_the_signer_of_the_next_list_from_the_one_before() {
    let node = Node::new();
    node.publish_all();
    node.add("SEP001122334450", None);
    let mut provider = node.provider();
    provider.look();
    let first = fs::read(node.public().join("ITLFile.tlv")).unwrap();
    let re_key = |role| {
        let (signer, certificate) = rsa(role);
        let signer = Arc::new(signer);
        node.have(&certificate, &signer);
        node.publish(role, &certificate);
        (signer, certificate)
    };
    let (recovery, certificate) = re_key(KeyRole::ItlRecovery);
    provider.look();
    assert_eq!(list_signer(&node), node.identities.call_manager.key_fingerprint());
    assert_eq!((node.signatures(), recovery.count()), ((1, 2), 0), "files are signed by CallManager as before");
    provider.look();
    node.provider().look();
    assert_eq!((node.signatures(), recovery.count()), ((1, 2), 0), "and it stays so");
    node.publish(KeyRole::Tvs, &rsa(KeyRole::Tvs).1);
    provider.look();
    assert_eq!(list_signer(&node), node.identities.call_manager.key_fingerprint());
    let (call_manager, _) = re_key(KeyRole::CallManager);
    provider.look();
    assert_eq!(list_signer(&node), certificate.key_fingerprint(), "now the new ITLRecovery");
    assert_eq!((recovery.count(), call_manager.count()), (1, 1), "and the file anew");
    let told = trail(node.root.path());
    assert!(told.contains("signed by CallManager,") && told.contains("\"CASEMATE_SIGNER\":\"CallManager\""), "{told}");

    // Phones that hold the first list know nobody any more: no list is better than one that they refuse.
    fs::write(node.public().join("ITLFile.tlv"), &first).unwrap();
    for _ in 0..3 {
        provider.look();
    }
    assert_eq!(fs::read(node.public().join("ITLFile.tlv")).unwrap(), first);
    let refused = trail(node.root.path());
    assert_eq!(refused.matches("\"TrustListRefused\"").count(), 1);
    assert!(refused.contains("know neither the ITLRecovery nor the CallManager certificate"), "{refused}");
    fs::remove_file(node.public().join("ITLFile.tlv")).unwrap();
    provider.look();
    assert_eq!(list_signer(&node), certificate.key_fingerprint());
}

/// The operator chooses a key that phones know. The next key of its role is not chosen by that, nor by a restart.
#[test]
fn the_key_that_is_chosen_signs_and_its_successor_does_not_before_it_is_chosen_itself() {
    let node = Node::new();
    node.publish_all();
    let choose = |text: &str| {
        let path = node.config.paths.public_of("certmgr").join("list-signer");
        casemate_runtime::publish::write_atomically(&path, text.as_bytes(), 0o644).unwrap();
    };
    let mut provider = node.provider();
    provider.look();
    let (recovery, call_manager) = (&node.identities.recovery, &node.identities.call_manager);
    assert_eq!(list_signer(&node), recovery.key_fingerprint());
    choose(&format!("{}\n", call_manager.key_fingerprint()));
    provider.look();
    assert_eq!(list_signer(&node), call_manager.key_fingerprint());
    node.provider().look();
    assert_eq!(node.signatures(), (1, 1), "a restart signs nothing");
    for nobody in [&*node.identities.tvs.key_fingerprint(), "nobody", "\u{0}", &"a".repeat(1000)] {
        choose(nobody);
        provider.look();
        assert_eq!(list_signer(&node), call_manager.key_fingerprint(), "{nobody:?}");
    }
    choose(&recovery.key_fingerprint());
    provider.look();
    assert_eq!(list_signer(&node), recovery.key_fingerprint());
    // The chosen key is followed by another, whom phones learn from the next list and do not know before.
    let (signer, certificate) = rsa(KeyRole::ItlRecovery);
    node.have(&certificate, &Arc::new(signer));
    node.publish(KeyRole::ItlRecovery, &certificate);
    provider.look();
    assert_eq!(list_signer(&node), call_manager.key_fingerprint());
    node.provider().look();
    assert_eq!(list_signer(&node), call_manager.key_fingerprint());
    choose(&certificate.key_fingerprint());
    provider.look();
    assert_eq!(list_signer(&node), certificate.key_fingerprint());
}

#[test]
fn without_the_token_what_is_published_stays_and_is_refused_once() {
    let node = Node::new();
    node.publish_all();
    let mut provider = node.provider();
    provider.look();
    let files = node.files();
    node.list.left.store(0, Ordering::Relaxed);
    node.publish(KeyRole::Tvs, &rsa(KeyRole::Tvs).1);
    for _ in 0..3 {
        provider.look();
    }
    assert_eq!(node.files(), files);
    assert_eq!(trail(node.root.path()).matches("\"TrustListRefused\"").count(), 1);
    node.list.left.store(usize::MAX, Ordering::Relaxed);
    provider.look();
    assert_ne!(node.files(), files);
}

#[test]
fn a_certificate_that_is_none_leaves_the_one_before_in_use() {
    let node = Node::new();
    node.publish_all();
    let mut provider = node.provider();
    provider.look();
    fs::write(node.config.paths.public_of("certmgr").join("CAPF.pem"), "no certificate").unwrap();
    node.add("SEP001122334450", None);
    provider.look();
    assert_eq!(node.signatures(), (1, 1));
    assert_eq!(node.files().len(), 3);
}

#[test]
fn a_certificate_that_is_none_is_complained_of_until_it_is_one_and_audited_once_a_change() {
    let node = Node::new();
    node.publish_all();
    let settings = CtlproviderSettings { poll_ms: 1, retry_ms: 2, ..CtlproviderSettings::default() };
    let mut provider = node.provider_with(settings);
    let mut look = || provider.look().as_millis();
    assert_eq!(look(), 1);
    let refused = || trail(node.root.path()).matches("\"TrustListRefused\"").count();
    let path = node.config.paths.public_of("certmgr").join("CAPF.pem");
    for (changes, bad) in ["no certificate", "neither is this"].into_iter().enumerate() {
        casemate_runtime::publish::write_atomically(&path, bad.as_bytes(), 0o644).unwrap();
        for _ in 0..3 {
            assert_eq!(look(), 2, "no longer complained of");
            assert_eq!(refused(), changes + 1);
        }
    }
    node.publish_all();
    assert_eq!(look(), 1);
    assert_eq!((refused(), node.signatures()), (2, (1, 0)));
}

#[test]
fn a_capf_that_was_restored_from_a_backup_is_noticed_and_what_stayed_is_not_signed() {
    let node = Node::new();
    node.publish_all();
    node.add("SEP001122334450", None);
    let backup = node.devices.lock().unwrap().clone();
    let settings = CtlproviderSettings { compare_ms: 0, page: 1, ..CtlproviderSettings::default() };
    let (mut often, mut rarely) = (node.provider_with(settings), node.provider());
    for number in 1..4 {
        node.add(&format!("SEP00112233445{number}"), None);
    }
    often.look();
    rarely.look();
    assert_eq!(node.signatures(), (1, 4));
    *node.devices.lock().unwrap() = backup;
    node.add("SEP001122334452", Some(Mode::NullString));
    // Between two comparisons the earlier number hides the change.
    rarely.look();
    assert_eq!(node.signatures(), (1, 4));
    often.look();
    assert_eq!(node.signatures(), (1, 5));
    often.look();
    assert_eq!(node.signatures(), (1, 5));
    let body = fs::read_to_string(node.public().join("SEP001122334452.cnf.xml")).unwrap();
    assert!(body.contains("<capfAuthMode>2</capfAuthMode>"), "{body}");
}

#[test]
fn a_list_that_some_phones_cannot_hold_is_published_and_warned_of() {
    let node = Node::new();
    node.publish_all();
    let settings = |list_certificates| CtlproviderSettings {
        limits: Limits { list_certificates, ..Limits::default() },
        ..CtlproviderSettings::default()
    };
    node.provider_with(settings(5)).look();
    assert!(!trail(node.root.path()).contains("TrustListTooLarge"));
    fs::remove_file(node.public().join("ITLFile.tlv")).unwrap();
    node.provider_with(settings(4)).look();
    assert_eq!(trail(node.root.path()).matches("\"TrustListTooLarge\"").count(), 1);
    assert!(node.public().join("ITLFile.tlv").exists());
}
