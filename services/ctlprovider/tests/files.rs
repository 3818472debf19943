//! Device files are signed when their content or their signer changes, never otherwise, and are whole at every moment.
#![allow(clippy::unwrap_used, clippy::panic)] // a step that fails is a test that fails
#![allow(dead_code)] // the support is shared

mod support;

use std::{fs, path::Path, sync::atomic::Ordering};

use casemate_audit::Auditor;
use casemate_capf::authentication::Mode;
use casemate_ctlprovider::{Built, CtlproviderError, CtlproviderSettings, DeviceFiles, Wanted, device_config};
use casemate_hsm_api::KeyRole;
use casemate_phonefile::{CapfAuthMode, Content, DeviceConfig, Limits, Sha1, SignedFile, SignerKey};
use casemate_pki::CertificateFacts;
use casemate_runtime::config::NodeSection;
use support::{auditor, folder, rsa, trail};

fn wanted(count: usize, mode: Option<Mode>) -> Vec<Wanted> {
    let body = device_config(mode, &NodeSection::default(), &CtlproviderSettings::default()).to_xml().unwrap();
    (0..count).map(|number| Wanted { name: format!("SEP{number:012X}.cnf.xml"), body: body.clone() }).collect()
}

fn files<'a>(folder: &'a Path, signer: &'a CertificateFacts, auditor: &'a Auditor) -> DeviceFiles<'a> {
    DeviceFiles { folder, signer, threads: 4, batch: 8, limits: Limits::default(), auditor }
}

fn check(folder: &Path, signer: &CertificateFacts, wanted: &Wanted) {
    assert_eq!(fs::read(folder.join(&wanted.name)).unwrap(), wanted.body);
    let bytes = fs::read(folder.join(format!("{}.sgn", wanted.name))).unwrap();
    let file = SignedFile::parse(&bytes, &Limits::default()).unwrap();
    file.verify(&[SignerKey::of_certificate(signer)], Sha1::Refused).unwrap();
    assert_eq!(file.file_name(), format!("{}.sgn", wanted.name));
    let Content::File(content) = &file.content else { panic!("no file") };
    assert_eq!(content.body, wanted.body);
}

#[test]
fn each_file_is_signed_once_until_its_content_changes() {
    let root = tempfile::tempdir().unwrap();
    let (public, auditor) = (folder(root.path(), "public"), auditor(root.path()));
    let (signer, certificate) = rsa(KeyRole::CallManager);
    let files = files(&public, &certificate, &auditor);
    let first = wanted(50, Some(Mode::AuthenticationString));
    assert_eq!(files.build(&signer, first.clone(), 1).unwrap(), Built { signed: 50, unchanged: 0 });
    first.iter().for_each(|wanted| check(&public, &certificate, wanted));
    assert_eq!(trail(root.path()).matches("\"FileSigned\"").count(), 50);
    // A restart, seconds later.
    assert_eq!(files.build(&signer, first, 9).unwrap(), Built { signed: 0, unchanged: 50 });
    assert_eq!(signer.count(), 50);
    let mut next = wanted(50, Some(Mode::AuthenticationString));
    next[7] = wanted(8, None).pop().unwrap();
    assert_eq!(files.build(&signer, next.clone(), 9).unwrap(), Built { signed: 1, unchanged: 49 });
    next.iter().for_each(|wanted| check(&public, &certificate, wanted));
    assert_eq!(fs::read_dir(&public).unwrap().count(), 100, "nothing is left beside");
}

#[test]
fn a_new_signer_signs_all_again_and_a_lost_or_damaged_file_is_made_again() {
    let root = tempfile::tempdir().unwrap();
    let (public, auditor) = (folder(root.path(), "public"), auditor(root.path()));
    let (old, old_certificate) = rsa(KeyRole::CallManager);
    let all = wanted(10, None);
    files(&public, &old_certificate, &auditor).build(&old, all.clone(), 1).unwrap();
    let (new, certificate) = rsa(KeyRole::CallManager);
    let files = files(&public, &certificate, &auditor);
    assert_eq!(files.build(&new, all.clone(), 1).unwrap(), Built { signed: 10, unchanged: 0 });
    fs::remove_file(public.join("SEP000000000003.cnf.xml")).unwrap();
    let damaged = public.join("SEP000000000004.cnf.xml.sgn");
    let mut bytes = fs::read(&damaged).unwrap();
    bytes[400] ^= 1;
    fs::write(&damaged, bytes).unwrap();
    assert_eq!(files.build(&new, all.clone(), 1).unwrap(), Built { signed: 2, unchanged: 8 });
    all.iter().for_each(|wanted| check(&public, &certificate, wanted));
}

#[test]
fn a_token_that_goes_away_leaves_whole_files_and_the_next_building_goes_on() {
    let root = tempfile::tempdir().unwrap();
    let (public, auditor) = (folder(root.path(), "public"), auditor(root.path()));
    let (signer, certificate) = rsa(KeyRole::CallManager);
    let files = files(&public, &certificate, &auditor);
    let all = wanted(60, None);
    signer.left.store(25, Ordering::Relaxed);
    let error = files.build(&signer, all.clone(), 1).unwrap_err();
    assert!(matches!(error, CtlproviderError::Sign { .. }), "{error}");
    let in_place = all.iter().filter(|wanted| public.join(format!("{}.sgn", wanted.name)).exists()).count();
    assert_eq!(in_place, 25, "what was signed is in place");
    signer.left.store(usize::MAX, Ordering::Relaxed);
    assert_eq!(files.build(&signer, all.clone(), 1).unwrap(), Built { signed: 35, unchanged: 25 });
    all.iter().for_each(|wanted| check(&public, &certificate, wanted));
}

#[test]
fn what_a_killed_building_left_beside_is_removed_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let (public, auditor) = (folder(root.path(), "public"), auditor(root.path()));
    let (signer, certificate) = rsa(KeyRole::CallManager);
    let files = files(&public, &certificate, &auditor);
    files.build(&signer, wanted(1, None), 1).unwrap();
    fs::write(public.join(".SEP000000000009.cnf.xml.new"), "half").unwrap();
    files.clean().unwrap();
    let mut names: Vec<_> = fs::read_dir(&public).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["SEP000000000000.cnf.xml", "SEP000000000000.cnf.xml.sgn"]);
}

#[test]
fn a_configuration_names_this_nodes_services_and_what_pends() {
    let node = NodeSection { address: [127, 0, 0, 1].into(), ..NodeSection::default() };
    let settings = CtlproviderSettings { capf_port: 23804, tvs_port: 22445, ..CtlproviderSettings::default() };
    for (pending, mode) in [
        (None, CapfAuthMode::NoOperation),
        (Some(Mode::AuthenticationString), CapfAuthMode::AuthenticationString),
        (Some(Mode::NullString), CapfAuthMode::NullString),
    ] {
        let xml = device_config(pending, &node, &settings).to_xml().unwrap();
        let read = DeviceConfig::parse(&xml).unwrap();
        assert_eq!(read.capf_auth_mode, Some(mode));
        assert_eq!((read.capf[0].phone_port, read.capf[0].process_node_name.as_deref()), (23804, Some("127.0.0.1")));
        assert_eq!((read.tvs[0].port, &*read.tvs[0].address), (22445, "127.0.0.1"));
    }
}

#[test]
fn a_node_that_listens_everywhere_is_named_by_its_host() {
    let node = NodeSection::default();
    assert!(node.address.is_unspecified());
    assert_eq!(device_config(None, &node, &CtlproviderSettings::default()).tvs[0].address, node.host);
}
