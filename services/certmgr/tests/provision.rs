//! Provisioning ends with one key and one certificate a role, wherever it was stopped, and never replaces a key.
#![allow(clippy::unwrap_used, clippy::panic)] // a step that fails is a test that fails

mod support;

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use casemate_audit::{AuditSettings, Auditor};
use casemate_certmgr::{CertmgrError, Folders, Identity, Manager, Records, RekeySettings};
use casemate_hsm_api::KeyRole;
use casemate_keyring::{Client, ClientSettings, KeyringError, Refusal};
use casemate_pki::CertificateFacts;
use casemate_post::Passed;
use casemate_runtime::{config::NodeSection, peer::LocalServer};
use casemate_store::StoreSettings;
use support::Broker;
use time::Duration;

/// The socket at `path`, served by this test itself.
fn own(path: std::path::PathBuf) -> LocalServer {
    LocalServer::new(path, nix::unistd::geteuid().as_raw())
}

struct Node {
    dir: tempfile::TempDir,
    broker: Broker,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("public")).unwrap();
        let broker = Broker::start(&dir.path().join("keyd.sock"));
        Self { dir, broker }
    }

    fn public(&self) -> std::path::PathBuf {
        self.dir.path().join("public")
    }

    /// A manager as after a restart of the daemon.
    async fn manager(&self) -> Manager {
        let path = self.dir.path();
        let audit = AuditSettings { journal_socket: path.join("none"), file: path.join("journal.jsonl") };
        let auditor = Arc::new(Auditor::open("casemate-certmgr", &audit).unwrap());
        let client = Client::new(&Passed::testing(), own(path.join("keyd.sock")), ClientSettings::default());
        let records = Records::open(&path.join("certmgr.db"), StoreSettings::default()).await.unwrap();
        let folders = Folders { certificates: self.public(), lists: path.join("lists") };
        Manager::new(client, records, NodeSection::default(), folders, RekeySettings::default(), auditor)
    }

    async fn provision(&self) -> Result<Vec<Identity>, CertmgrError> {
        let manager = self.manager().await;
        let mut identities = Vec::new();
        for role in KeyRole::ALL {
            identities.push(manager.provision(role, 0).await?.identity);
        }
        Ok(identities)
    }

    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        fs::read_dir(self.public())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap()))
            .collect()
    }

    fn trail(&self) -> String {
        fs::read_to_string(self.dir.path().join("journal.jsonl")).unwrap()
    }
}

fn facts(folder: &Path, role: KeyRole) -> CertificateFacts {
    let pem = fs::read_to_string(folder.join(format!("{role}.pem"))).unwrap();
    CertificateFacts::parse(pem::parse(pem).unwrap().contents()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn provisioning_twice_gives_the_same() {
    let node = Node::new();
    let first = node.provision().await.unwrap();
    let files = node.files();
    let second = node.provision().await.unwrap();
    assert_eq!(first, second);
    assert_eq!(files, node.files());
    assert_eq!(files.len(), KeyRole::ALL.len());
    let state = node.broker.0.lock().unwrap();
    assert_eq!((state.made, state.signed), (7, 7));
    let trail = node.trail();
    assert_eq!(trail.matches("\"IdentityIssued\"").count(), 7);
    assert!(trail.contains("7 identities, 7 made now") && trail.contains("7 identities, 0 made now"), "{trail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_says_what_its_role_is_for_and_how_long() {
    let node = Node::new();
    node.provision().await.unwrap();
    for role in KeyRole::ALL {
        let facts = facts(&node.public(), role);
        let years = if role == KeyRole::ItlRecovery { 20 } else { 5 };
        assert_eq!(facts.not_after - facts.not_before, Duration::days(365 * years), "{role}");
        assert_eq!(facts.is_ca, role == KeyRole::Capf, "{role}");
        assert_eq!(facts.subject_der, facts.issuer_der, "{role}");
    }
    assert!(facts(&node.public(), KeyRole::ItlRecovery).subject.contains("CN=ITLRECOVERY_casemate"));
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_after_any_request_it_ends_with_one_of_each() {
    // The client asks again over a new connection when a kept one ends, so one lost answer alone is not an error.
    for answers in 0..14 {
        let node = Node::new();
        node.broker.0.lock().unwrap().answers_left = Some(answers);
        assert!(node.provision().await.is_err(), "{answers} answers were enough");
        assert!(node.trail().contains("\"ProvisionFailed\""));
        node.broker.0.lock().unwrap().answers_left = None;
        let identities = node.provision().await.unwrap();
        assert_eq!(identities.len(), 7);
        assert_eq!(node.broker.0.lock().unwrap().made, 7, "after {answers} answers");
        for identity in identities {
            let published = facts(&node.public(), identity.role);
            assert_eq!(hex::encode(published.sha256), identity.fingerprint);
        }
        assert_eq!(node.files().len(), 7);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_key_is_reported_and_nothing_is_made() {
    let node = Node::new();
    node.provision().await.unwrap();
    let files = node.files();
    node.broker.0.lock().unwrap().missing.push(KeyRole::Capf);
    let error = node.manager().await.provision(KeyRole::Capf, 0).await.unwrap_err();
    assert!(matches!(error, CertmgrError::Keyring(KeyringError::Refused(Refusal::KeyMissing(_)))), "{error}");
    assert_eq!(node.broker.0.lock().unwrap().made, 7);
    assert_eq!(node.files(), files);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_lost_its_records_is_not_asked_for_new_keys() {
    let node = Node::new();
    node.provision().await.unwrap();
    node.broker.forget();
    let manager = node.manager().await;
    for role in KeyRole::ALL {
        let error = manager.provision(role, 0).await.unwrap_err();
        assert!(matches!(error, CertmgrError::Keyring(KeyringError::Refused(Refusal::KeyMissing(_)))), "{error}");
    }
    assert_eq!(node.broker.0.lock().unwrap().made, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_key_under_a_recorded_role_gets_no_certificate() {
    let node = Node::new();
    node.provision().await.unwrap();
    node.broker.forget();
    let keys = Client::new(&Passed::testing(), own(node.dir.path().join("keyd.sock")), ClientSettings::default());
    keys.generate(KeyRole::Tvs).unwrap();
    let error = node.manager().await.provision(KeyRole::Tvs, 0).await.unwrap_err();
    assert!(matches!(error, CertmgrError::KeyReplaced { role: KeyRole::Tvs, .. }), "{error}");
    assert_eq!(node.manager().await.identities().await.unwrap().len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_publishes_what_is_on_record_and_signs_nothing() {
    let node = Node::new();
    node.provision().await.unwrap();
    let files = node.files();
    fs::remove_file(node.public().join("TVS.pem")).unwrap();
    fs::write(node.public().join("CAPF.pem"), "another").unwrap();
    node.manager().await.republish().await.unwrap();
    assert_eq!(node.files(), files);
    assert_eq!(node.broker.0.lock().unwrap().signed, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_is_told_why_the_broker_did_not_sign() {
    let node = Node::new();
    node.broker.0.lock().unwrap().refusal = Some(Refusal::Policy("certmgr may not use TVS".into()));
    let error = node.manager().await.provision(KeyRole::Tvs, 0).await.unwrap_err();
    assert!(matches!(error, CertmgrError::Keyring(KeyringError::Refused(Refusal::Policy(_)))), "{error}");
    let told = "refused by the key policy: certmgr may not use TVS";
    assert!(node.trail().contains(told), "{}", node.trail());
    node.broker.0.lock().unwrap().refusal = None;
    node.manager().await.provision(KeyRole::Tvs, 0).await.unwrap();
}
