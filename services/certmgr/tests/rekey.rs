//! A re-key is shown before it happens, goes on wherever it was stopped, and never takes from phones what they need to believe it.
#![allow(clippy::unwrap_used, clippy::panic)] // a step that fails is a test that fails

mod support;

use std::{fs, net::Ipv4Addr, path::PathBuf, sync::Arc};

use casemate_audit::{AuditSettings, Auditor};
use casemate_certmgr::{
    Folders, Identity, Manager, Records, RekeySettings, Request, Response,
    rekey::{RekeyPlan, Stage},
};
use casemate_hsm_api::KeyRole::{self, CallManager, CallManagerEcdsa, Capf, ItlRecovery, Tomcat, Tvs};
use casemate_keyring::{Client, ClientSettings};
use casemate_phonefile::{ITL_FILE_NAME, Limits, Record, Role, SignerId, SignerVersion, TrustList, Unsigned};
use casemate_pki::CertificateFacts;
use casemate_post::Passed;
use casemate_runtime::{config::NodeSection, peer::LocalServer, publish::write_atomically};
use casemate_store::StoreSettings;
use support::Broker;

struct Node {
    dir: tempfile::TempDir,
    broker: Broker,
}

impl Node {
    /// A node that is provisioned, and whose first list is published.
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["public", "lists"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let broker = Broker::start(&dir.path().join("keyd.sock"));
        let node = Self { dir, broker };
        let manager = node.manager().await;
        for role in KeyRole::ALL {
            manager.provision(role, 0).await.unwrap();
        }
        node.publish_list(ItlRecovery);
        node
    }

    /// A manager as after a restart of the daemon.
    async fn manager(&self) -> Manager {
        let path = self.dir.path();
        let audit = AuditSettings { journal_socket: path.join("none"), file: path.join("journal.jsonl") };
        let auditor = Arc::new(Auditor::open("casemate-certmgr", &audit).unwrap());
        let keyd = LocalServer::new(path.join("keyd.sock"), nix::unistd::geteuid().as_raw());
        let client = Client::new(&Passed::testing(), keyd, ClientSettings::default());
        let records = Records::open(&path.join("certmgr.db"), StoreSettings::default()).await.unwrap();
        let folders = Folders { certificates: path.join("public"), lists: path.join("lists") };
        let settings = RekeySettings { settle_ms: 1 };
        Manager::new(client, records, NodeSection::default(), folders, settings, auditor)
    }

    async fn ask(&self, request: Request) -> Response {
        let manager = self.manager().await;
        manager.republish().await.unwrap();
        manager.answer(request, 0).await
    }

    async fn plan(&self, role: KeyRole) -> RekeyPlan {
        match self.ask(Request::PlanRekey { role }).await {
            Response::Plan(plan) => *plan,
            other => panic!("{other:?}"),
        }
    }

    async fn rekey(&self, role: KeyRole) -> Result<Identity, String> {
        match self.ask(Request::Rekey { role }).await {
            Response::Rekeyed(identity) => Ok(identity),
            Response::Failed(reason) => Err(reason),
            other => panic!("{other:?}"),
        }
    }

    /// What is waited for, or the fingerprint of the key that is retired.
    async fn finish(&self, role: KeyRole) -> Result<String, String> {
        match self.ask(Request::FinishRekey { role }).await {
            Response::RekeyFinished(finished) => Ok(finished.retired),
            Response::RekeyWaits(reason) | Response::Failed(reason) => Err(reason),
            other => panic!("{other:?}"),
        }
    }

    /// What ctlprovider does: a list of what is published, signed by the key of `signer` that is certified.
    fn publish_list(&self, signer: KeyRole) {
        self.publish_list_with(signer, true);
    }

    /// With a certificate for HTTPS 6971, or without.
    fn publish_list_with(&self, signer: KeyRole, https: bool) {
        let record = |role, of| Record::of(role, &self.certificate(of), "casemate", Ipv4Addr::LOCALHOST);
        let mut records = vec![
            record(Role::Sast, ItlRecovery),
            record(Role::Sast, CallManager),
            record(Role::CcmTftp, CallManager),
            record(Role::Tftp, CallManagerEcdsa),
            record(Role::Capf, Capf),
            record(Role::Tvs, Tvs),
        ];
        records.retain(|record| https || record.role != Role::Tftp);
        let certificate = self.certificate(signer);
        let id = SignerId::of(&certificate);
        let list = TrustList::new(ITL_FILE_NAME, 1, Some(SignerVersion::V1_1), id, records).unwrap();
        let unsigned = Unsigned::trust_list(&list, &Limits::default()).unwrap();
        let signature = self.broker.sign_list(signer, &certificate.key_fingerprint(), unsigned.to_be_signed());
        write_atomically(&self.list(), &unsigned.with_signature(&signature).unwrap(), 0o644).unwrap();
    }

    fn list(&self) -> PathBuf {
        self.dir.path().join("lists").join(ITL_FILE_NAME)
    }

    fn certificate(&self, role: KeyRole) -> CertificateFacts {
        let pem = fs::read(self.dir.path().join(format!("public/{role}.pem"))).unwrap();
        CertificateFacts::parse(pem::parse(pem).unwrap().contents()).unwrap()
    }

    fn away(&self, roles: &[KeyRole]) {
        self.broker.0.lock().unwrap().away = roles.to_vec();
    }

    fn trail(&self) -> String {
        fs::read_to_string(self.dir.path().join("journal.jsonl")).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_key_is_retired_when_phones_are_offered_the_new_certificate_and_not_before() {
    let node = Node::new().await;
    let before = node.certificate(ItlRecovery);
    let identity = node.rekey(ItlRecovery).await.unwrap();
    let now = node.certificate(ItlRecovery);
    assert_eq!((identity.key_fingerprint, identity.serial), (now.key_fingerprint(), hex::encode(&now.serial)));
    assert_ne!(now.key_fingerprint(), before.key_fingerprint());
    let waits = node.finish(ItlRecovery).await.unwrap_err();
    assert!(waits.contains("has not published a list with the new ITLRecovery certificate"), "{waits}");
    assert!(node.broker.0.lock().unwrap().retired.is_empty());
    // Nobody provisions a third key meanwhile.
    let provisioned = node.manager().await.provision(ItlRecovery, 0).await.unwrap();
    assert!(!provisioned.key_made && !provisioned.certificate_made);
    node.publish_list(CallManager);
    assert_eq!(node.finish(ItlRecovery).await.unwrap(), before.key_fingerprint());
    assert_eq!(node.finish(ItlRecovery).await.unwrap(), before.key_fingerprint(), "asked again");
    assert_eq!(node.broker.0.lock().unwrap().retired.len(), 1);
    let provisioned = node.manager().await.provision(ItlRecovery, 0).await.unwrap();
    assert_eq!(provisioned.identity.key_fingerprint, now.key_fingerprint());
    assert_eq!(node.broker.0.lock().unwrap().made, 8);
    assert!(node.finish(Tvs).await.unwrap_err().contains("no re-key of TVS is under way"));
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_after_any_request_it_goes_on_with_the_same_key_and_certificate() {
    // Of the re-key: status, next key, its certificate. Of its end: the two keys, the retirement.
    for answers in 0..3 {
        let node = Node::new().await;
        let before = node.certificate(Capf);
        node.broker.0.lock().unwrap().answers_left = Some(answers);
        node.rekey(Capf).await.unwrap_err();
        assert_eq!(node.certificate(Capf), before, "after {answers} answers the old key serves");
        node.broker.0.lock().unwrap().answers_left = None;
        node.rekey(Capf).await.unwrap();
        let now = node.certificate(Capf);
        assert_eq!(node.rekey(Capf).await.unwrap().serial, hex::encode(&now.serial), "and not a second certificate");
        node.publish_list(ItlRecovery);
        node.broker.0.lock().unwrap().answers_left = Some(answers);
        node.finish(Capf).await.unwrap_err();
        node.broker.0.lock().unwrap().answers_left = None;
        assert_eq!(node.finish(Capf).await.unwrap(), before.key_fingerprint());
        let counts = |state: &support::State| (state.made, state.retired.len());
        assert_eq!(counts(&node.broker.0.lock().unwrap()), (8, 1), "after {answers} answers");
        assert_eq!(node.trail().matches("\"RekeyRefused\"").count(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_was_recorded_and_not_published_is_published_by_the_next_start() {
    let node = Node::new().await;
    let before = fs::read(node.dir.path().join("public/TVS.pem")).unwrap();
    node.rekey(Tvs).await.unwrap();
    let now = node.certificate(Tvs);
    // As a kill between the two leaves it.
    fs::write(node.dir.path().join("public/TVS.pem"), before).unwrap();
    assert!(node.finish(Tvs).await.is_err());
    assert_eq!(node.certificate(Tvs), now);
    node.publish_list(ItlRecovery);
    node.finish(Tvs).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn both_signers_are_never_re_keyed_at_once() {
    let node = Node::new().await;
    node.rekey(ItlRecovery).await.unwrap();
    for role in [CallManager, Capf] {
        let refused = node.rekey(role).await.unwrap_err();
        assert!(refused.contains("the re-key of ITLRecovery is under way"), "{refused}");
    }
    // Its list is there, and says who signs next.
    node.publish_list(CallManager);
    node.finish(ItlRecovery).await.unwrap();
    let plan = node.plan(CallManager).await;
    assert_eq!((plan.refused, plan.list_signer), (None, Some(ItlRecovery)));
    // A list that does not name the new ITLRecovery, as from a backup: phones would not know who signs.
    let named = fs::read(node.list()).unwrap();
    node.rekey(CallManager).await.unwrap();
    node.publish_list(ItlRecovery);
    node.finish(CallManager).await.unwrap();
    fs::write(node.list(), named).unwrap();
    let refused = node.rekey(ItlRecovery).await.unwrap_err();
    assert!(refused.contains("CallManager has to sign it") && refused.contains("wait until"), "{refused}");
    assert_eq!(node.broker.0.lock().unwrap().made, 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_token_hinders_a_re_key_only_if_nobody_is_left_whom_phones_know() {
    let node = Node::new().await;
    node.away(&[ItlRecovery]);
    let refused = node.rekey(Capf).await.unwrap_err();
    assert!(refused.contains("signed by ITLRecovery") && refused.contains("re-key ITLRecovery first"), "{refused}");
    let plan = node.plan(ItlRecovery).await;
    assert_eq!((plan.refused, plan.list_signer, plan.from.on_token), (None, Some(CallManager), None));
    assert!(plan.effects[0].contains("not there now"), "{}", plan.effects[0]);
    assert_eq!(node.plan(Tomcat).await.refused, None, "no list tells of it");

    node.away(&[ItlRecovery, CallManager]);
    let refused = node.rekey(ItlRecovery).await.unwrap_err();
    assert!(refused.contains("signed by CallManager") && refused.contains("bring that token back"), "{refused}");
    fs::remove_file(node.list()).unwrap();
    node.away(&[]);
    assert!(node.rekey(ItlRecovery).await.unwrap_err().contains("no trust list is published"));
    assert_eq!(node.broker.0.lock().unwrap().made, 7, "nothing was made");

    // One whose list nobody can sign any more waits, and does not keep the signer from being re-keyed.
    node.publish_list(ItlRecovery);
    node.rekey(Capf).await.unwrap();
    node.away(&[ItlRecovery]);
    node.rekey(ItlRecovery).await.unwrap();
    node.publish_list(CallManager);
    node.away(&[]);
    node.finish(ItlRecovery).await.unwrap();
    node.finish(Capf).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_changes_nothing_and_says_how_far_a_re_key_is() {
    let node = Node::new().await;
    for name in ["SEP001122334455", "SEP001122334456"] {
        fs::write(node.dir.path().join(format!("lists/{name}.cnf.xml.sgn")), "a file").unwrap();
    }
    let signed = node.broker.0.lock().unwrap().signed;
    for role in KeyRole::ALL {
        let (plan, listed) = (node.plan(role).await, !matches!(role, Tomcat | KeyRole::TomcatEcdsa));
        let expected = match role {
            ItlRecovery => Some(CallManager),
            _ => listed.then_some(ItlRecovery),
        };
        assert_eq!((plan.list_signer, plan.phones), (expected, if listed { 2 } else { 0 }), "{role}");
        assert_eq!(plan.files, if role == CallManager { 2 } else { 0 }, "{role}");
        assert_eq!((plan.stage, plan.refused), (Stage::NotBegun, None), "{role}");
        let certificate = node.certificate(role);
        assert_eq!(plan.from.fingerprint, certificate.key_fingerprint(), "{role}");
        assert_eq!(plan.from.certificate, Some(hex::encode(certificate.serial)), "{role}");
        assert_eq!((&*plan.to.name, plan.restarts.len()), ("pkcs11:token=second", 0), "{role}");
    }
    let counts = |state: &support::State| (state.made, state.signed);
    assert_eq!(counts(&node.broker.0.lock().unwrap()), (7, signed));
    let client = {
        let keyd = LocalServer::new(node.dir.path().join("keyd.sock"), nix::unistd::geteuid().as_raw());
        Client::new(&Passed::testing(), keyd, ClientSettings::default())
    };
    let next = client.rekey(Tvs).unwrap().0;
    let plan = node.plan(Tvs).await;
    assert_eq!((plan.stage, plan.to.fingerprint), (Stage::KeyMade, Some(next.fingerprint)));
    node.rekey(Tvs).await.unwrap();
    assert_eq!(node.plan(Tvs).await.stage, Stage::Certified);
    node.publish_list(ItlRecovery);
    node.finish(Tvs).await.unwrap();
    assert_eq!(node.plan(Tvs).await.stage, Stage::NotBegun);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signer_of_lists_is_chosen_of_those_that_phones_know_and_a_re_key_takes_the_other_one() {
    let node = Node::new().await;
    let choose = async |role| match node.ask(Request::SignLists { role }).await {
        Response::ListSigner(chosen) => Ok(chosen),
        Response::Failed(reason) => Err(reason),
        other => panic!("{other:?}"),
    };
    let chosen =
        || fs::read_to_string(node.dir.path().join("public/list-signer")).unwrap_or_default().trim().to_owned();
    assert!(choose(Tvs).await.unwrap_err().contains("only ITLRecovery and CallManager"));
    let of = |role| node.certificate(role).key_fingerprint();
    let before = of(CallManager);
    assert_eq!((choose(CallManager).await, chosen()), (Ok(CallManager), before.clone()));
    assert!(node.trail().contains("\"ListSignerChosen\""));
    // Whoever is re-keyed does not sign before phones know it.
    node.rekey(CallManager).await.unwrap();
    assert_eq!(chosen(), of(ItlRecovery));
    assert!(choose(CallManager).await.unwrap_err().contains("does not name its certificate as a signer yet"));
    node.publish_list(ItlRecovery);
    node.finish(CallManager).await.unwrap();
    node.away(&[CallManager]);
    assert!(choose(CallManager).await.unwrap_err().contains("not on its token"));
    node.away(&[]);
    choose(CallManager).await.unwrap();
    assert!(chosen() == of(CallManager) && chosen() != before);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_list_names_no_certificate_for_https_nobody_waits_for_one_that_does() {
    let node = Node::new().await;
    node.publish_list_with(ItlRecovery, false);
    let plan = node.plan(CallManagerEcdsa).await;
    assert_eq!((plan.list_signer, plan.phones, plan.refused), (None, 0, None));
    node.rekey(CallManagerEcdsa).await.unwrap();
    std::thread::sleep(std::time::Duration::from_millis(5));
    node.finish(CallManagerEcdsa).await.unwrap();
}
