//! Whole starts of a phone against a cluster of fakes.

use std::sync::atomic::{AtomicUsize, Ordering};

use casemate_phone::PhoneError;
use casemate_phone::capf::{AuthString, Command, Message};
use casemate_phone::play::{Expected, Question, Settings, Transcript, play};
use casemate_phone::state::State;
use casemate_phone::transfer::Via;

use crate::fake::Identity;
use crate::fake::capf::Script;
use crate::fake::cluster::{Cluster, DEVICE, valid};

fn start(settings: &Settings) -> Result<Transcript, PhoneError> {
    play(settings, &mut |_| {})
}

fn steps(transcript: &Transcript) -> Vec<&str> {
    transcript.steps.iter().map(|step| step.name).collect()
}

fn said<'a>(transcript: &'a Transcript, name: &str) -> &'a str {
    &transcript.steps.iter().find(|step| step.name == name).unwrap().said
}

#[test]
fn from_nothing_to_a_certificate_and_again() {
    let (cluster, folder) = (Cluster::start(), tempfile::tempdir().unwrap());
    let mut settings = cluster.settings(folder.path());
    let tomcat = Identity::rsa("tomcat").certificate;
    let known = tomcat.clone();
    *cluster.answer.lock().unwrap() = Box::new(move |der| if der == known { valid(7) } else { vec![7, 0, 1, 1] });
    settings.question = Some(Question { certificate: tomcat, expected: Expected::Valid });
    let first = start(&settings).unwrap();
    let all = ["trust list", "configuration", "trust verification", "key", "enrolment", "certificate"];
    assert_eq!(steps(&first), all);
    assert!(said(&first, "trust list").contains("taken on trust"));
    let certificate = first.certificate.clone().unwrap();
    assert_eq!(certificate.key, "rsa-2048");
    let state = State::open(&settings.state).unwrap();
    assert!(state.key().unwrap().is_some() && state.next_key().unwrap().is_none());

    cluster.publish_config(0);
    settings.string = None;
    let second = start(&settings).unwrap();
    assert_eq!(steps(&second), ["trust list", "configuration", "trust verification", "certificate"]);
    assert!(said(&second, "trust list").contains("unchanged"));
    assert_eq!(second.certificate.unwrap(), certificate);

    settings.question = Some(Question { certificate: Identity::rsa("x").certificate, expected: Expected::Valid });
    assert!(matches!(start(&settings), Err(PhoneError::TvsAnswer { .. })));
    settings.question.as_mut().unwrap().expected = Expected::Invalid;
    start(&settings).unwrap();
}

#[test]
fn a_later_list_needs_a_known_signer_or_tvs() {
    let (cluster, folder) = (Cluster::start(), tempfile::tempdir().unwrap());
    cluster.publish_config(0);
    let mut settings = cluster.settings(folder.path());
    settings.string = None;
    start(&settings).unwrap();
    let state = State::open(&settings.state).unwrap();
    let kept = state.list().unwrap();
    let stranger = Identity::rsa("sast");
    cluster.publish_list(&stranger);
    assert!(matches!(start(&settings), Err(PhoneError::UnknownListSigner { .. })));
    // Valid, but not as a SAST.
    *cluster.answer.lock().unwrap() = Box::new(|_| valid(2));
    assert!(matches!(start(&settings), Err(PhoneError::UnknownListSigner { .. })));
    assert_eq!(state.list().unwrap(), kept);
    let vouched = stranger.certificate.clone();
    *cluster.answer.lock().unwrap() = Box::new(move |der| if der == vouched { valid(0) } else { vec![7, 0, 1, 1] });
    assert!(said(&start(&settings).unwrap(), "trust list").contains("TVS vouches"));
    assert_ne!(state.list().unwrap(), kept);
}

#[test]
fn a_damaged_list_in_the_folder_is_no_reason_to_trust_a_new_one() {
    let (cluster, folder) = (Cluster::start(), tempfile::tempdir().unwrap());
    cluster.publish_config(0);
    let mut settings = cluster.settings(folder.path());
    settings.string = None;
    start(&settings).unwrap();
    let state = State::open(&settings.state).unwrap();
    state.keep_list(b"damaged").unwrap();
    assert!(matches!(start(&settings), Err(PhoneError::StateContent { .. })));
    assert_eq!(state.list().unwrap().unwrap(), b"damaged");
}

#[test]
fn an_interrupted_enrolment_goes_on_with_the_same_key() {
    let (cluster, folder) = (Cluster::start(), tempfile::tempdir().unwrap());
    let settings = cluster.settings(folder.path());
    let count = AtomicUsize::new(0);
    cluster.script(move || Script {
        dies_after_delivery: count.fetch_add(1, Ordering::SeqCst) == 0,
        ..Script::new(DEVICE)
    });
    assert!(start(&settings).is_err());
    let state = State::open(&settings.state).unwrap();
    let next = state.next_key().unwrap().unwrap();
    assert!(said(&start(&settings).unwrap(), "key").contains("unfinished"));
    assert_eq!(state.key().unwrap().unwrap().spki(), next.spki());
    let keys: Vec<Message> =
        cluster.heard.try_iter().filter(|message| message.command == Command::KeyGenResponse).collect();
    assert_eq!(keys.len(), 2);
    assert_eq!(keys[0].get(9), keys[1].get(9));
}

#[test]
fn a_certificate_whose_end_was_not_heard_is_kept_when_nothing_more_is_wanted() {
    let (cluster, folder) = (Cluster::start(), tempfile::tempdir().unwrap());
    let mut settings = cluster.settings(folder.path());
    cluster.script(|| Script { dies_after_delivery: true, ..Script::new(DEVICE) });
    assert!(start(&settings).is_err());
    cluster.publish_config(0);
    settings.string = None;
    assert!(start(&settings).unwrap().certificate.is_some());
    assert!(State::open(&settings.state).unwrap().next_key().unwrap().is_none());
}

#[test]
fn the_configuration_decides_about_enrolment() {
    let (cluster, folder) = (Cluster::start(), tempfile::tempdir().unwrap());
    let mut settings = cluster.settings(folder.path());
    settings.string = None;
    assert!(matches!(start(&settings), Err(PhoneError::Config(_))), "a string is wanted");
    settings.string = Some(AuthString::new("1"));
    cluster.publish_config(0);
    assert!(matches!(start(&settings), Err(PhoneError::Config(_))), "no operation, but a string was typed");
    cluster.publish_config(4);
    assert!(matches!(start(&settings), Err(PhoneError::Config(_))), "MIC is not played");
    cluster.publish_config(2);
    start(&settings).unwrap();
    let hello = cluster.heard.try_iter().find(|message| message.command == Command::AuthResponse).unwrap();
    assert_eq!(hello.get(11), None, "no string goes out in null string mode");
    cluster.publish_config(1);
    settings.string = None;
    assert!(start(&settings).unwrap().certificate.is_some(), "a valid certificate waits for its user");
}

#[test]
fn files_that_do_not_hold_stop_the_start() {
    let (cluster, folder) = (Cluster::start(), tempfile::tempdir().unwrap());
    let mut settings = cluster.settings(folder.path());
    settings.via = Via::Http;
    let name = format!("{DEVICE}.cnf.xml.sgn");
    let mut file = cluster.files.lock().unwrap()[&name].clone();
    *file.last_mut().unwrap() ^= 1;
    cluster.put(&name, file);
    assert!(matches!(start(&settings), Err(PhoneError::WrongSignature { .. })));
    cluster.files.lock().unwrap().remove(&name);
    assert!(matches!(start(&settings), Err(PhoneError::NotFound { .. })));
    let mut list = cluster.files.lock().unwrap()["ITLFile.tlv"].clone();
    *list.last_mut().unwrap() ^= 1;
    // The device's own list comes before the common one.
    cluster.put(&format!("ITL{DEVICE}.tlv"), list);
    assert!(start(&settings).is_err());
    cluster.put(&format!("CTL{DEVICE}.tlv"), Vec::new());
    assert!(matches!(start(&settings), Err(PhoneError::List(_))));
}

#[test]
fn another_key_than_expected_is_refused_and_none_is_made() {
    let (cluster, folder) = (Cluster::start(), tempfile::tempdir().unwrap());
    let mut settings = cluster.settings(folder.path());
    settings.key = Some("p-384".parse().unwrap());
    assert!(matches!(start(&settings), Err(PhoneError::KeyRequest(_))));
    assert!(State::open(&settings.state).unwrap().next_key().unwrap().is_none());
}

#[test]
fn settings_that_cannot_be_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let good = Settings::new(DEVICE, "127.0.0.1", folder.path().join("phone"));
    for bad in [
        Settings { device: "SEP/../x".to_owned(), ..good.clone() },
        Settings { device: String::new(), ..good.clone() },
        Settings { capf_version: 4, ..good.clone() },
        Settings { limit: std::time::Duration::ZERO, ..good },
    ] {
        assert!(matches!(start(&bad), Err(PhoneError::Setting(_))));
        assert!(!bad.state.exists(), "nothing is touched before the settings are checked");
    }
}
