//! What is signed, for whom, and in which order.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy.toml allows them in test functions; these are their own helpers

mod rig;

use std::{
    fs, io,
    os::unix::fs::symlink,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use aws_lc_rs::signature::{
    ECDSA_P384_SHA384_ASN1, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey,
};
use casemate_hsm_api::{KeyId, KeyRole, SignatureScheme};
use casemate_hsm_fake::FakeToken;
use casemate_keyd::{RecordFile, Sink, Spent};
use casemate_keyring::{Purpose, Refusal};
use casemate_phonefile::{
    ITL_FILE_NAME, Limits, PhoneFile, Record, Role, SignerId, SignerVersion, TrustList, Unsigned,
};
use casemate_pki::{
    CertificateFacts, DeviceProfile, IdentityProfile, PkiError, SubjectSettings, issue_device_certificate,
    random_serial, self_signed,
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PublicKeyData, SigningKey};
use rig::{
    Bounds, CAPF, CERTMGR, CTLPROVIDER, Caller, LOADS, Node, PLACE, ROOT, STRANGER, TFTP, TVS, USERS, identity_profile,
    identity_profile_from, tls13,
};
use time::{Duration, OffsetDateTime};

const DEVICE: &str = "SEP001122334455";
const RSA_CERTIFICATE: SignatureScheme = SignatureScheme::RsaPkcs1Sha256;
const LIST: SignatureScheme = SignatureScheme::RsaPkcs1Sha512;
const PSS: SignatureScheme = SignatureScheme::RsaPssSha256;

fn device_purpose(device: &str) -> Purpose {
    Purpose::DeviceCertificate { device: device.to_owned(), operation: 7 }
}

/// Has CAPF's key sign a certificate for [`DEVICE`], as capf asks for it, and says what the broker answered.
fn issue(broker: &Caller, capf: &CertificateFacts, spki: &[u8], purpose: Purpose) -> Result<Vec<u8>, Refusal> {
    let now = OffsetDateTime::now_utc();
    issue_for(broker, capf, spki, purpose, (now, now + Duration::days(365)))
}

/// The same with this validity.
fn issue_for(
    broker: &Caller,
    capf: &CertificateFacts,
    spki: &[u8],
    purpose: Purpose,
    (not_before, not_after): (OffsetDateTime, OffsetDateTime),
) -> Result<Vec<u8>, Refusal> {
    let signer = broker.signer(CAPF, broker.key(CAPF, KeyRole::Capf).unwrap(), purpose);
    let profile = DeviceProfile {
        device: DEVICE,
        spki_der: spki,
        issuer: capf,
        serial: random_serial().unwrap(),
        not_before,
        not_after,
    };
    issue_device_certificate(&profile, &signer)
        .map_err(|error: PkiError| signer.refusal().unwrap_or_else(|| panic!("not refused by the broker: {error}")))
}

fn phone() -> Vec<u8> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().subject_public_key_info()
}

/// Refused by policy or judge, and audited as such; with the reason.
fn refused<T: std::fmt::Debug>(node: &Node, outcome: Result<T, Refusal>) -> String {
    let Err(Refusal::Policy(reason)) = outcome else { panic!("{outcome:?}") };
    assert!(node.journal().lines().last().unwrap().contains("KeyUseRefused"), "{reason}");
    reason
}

#[test]
fn a_phones_certificate_is_signed_and_recorded() {
    let node = Node::new();
    let broker = node.broker();
    let capf = broker.identity(KeyRole::Capf);
    let der = issue(&broker, &capf, &phone(), device_purpose(DEVICE)).unwrap();
    let certificate = CertificateFacts::parse(&der).unwrap();
    assert_eq!(certificate.issuer_der, capf.subject_der);
    let recorded = node.recorded();
    let lines: Vec<serde_json::Value> = recorded.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let events: Vec<_> = lines.iter().map(|line| line["CASEMATE_EVENT"].as_str().unwrap()).collect();
    assert_eq!(events, ["KeyGenerated", "KeyUsed", "KeyUsed"], "the key, CAPF's own certificate and the phone's");
    let object = lines[2]["CASEMATE_OBJECT"].as_str().unwrap();
    assert!(object.contains(DEVICE) && object.contains(&hex::encode(&certificate.serial)), "{object}");
    assert_eq!(node.audited("KeyUsed"), 2, "and in the audit trail");
    // The next process knows the issuer as well.
    drop(broker);
    issue(&node.broker(), &capf, &phone(), device_purpose(DEVICE)).unwrap();
}

#[test]
fn a_certificate_that_is_not_the_operations_is_refused() {
    let node = Node::new();
    let broker = node.broker();
    let (record, _) = broker.generate(CERTMGR, KeyRole::Capf).unwrap();
    // A certificate of the CAPF key under another subject, which nobody had signed.
    let unsigned = Uncertified(broker.signer(CERTMGR, record, Purpose::SelfSigned));
    let other = self_signed(&identity_profile(KeyRole::Capf, "Mallory"), &unsigned).unwrap();
    let other = CertificateFacts::parse(&other).unwrap();
    let reason = refused(&node, issue(&broker, &other, &phone(), device_purpose(DEVICE)));
    assert!(reason.contains("no certificate of its own"), "{reason}");

    let capf = broker.identity(KeyRole::Capf);
    let signatures = node.token.signatures();
    let reason = refused(&node, issue(&broker, &other, &phone(), device_purpose(DEVICE)));
    assert!(reason.contains("issuer"), "{reason}");
    let reason = refused(&node, issue(&broker, &capf, &phone(), device_purpose("SEPAAAAAAAAAAAA")));
    assert!(reason.contains("common names"), "{reason}");
    let reason = refused(&node, issue(&broker, &capf, &capf.spki_der, device_purpose(DEVICE)));
    assert!(reason.contains("own"), "{reason}");
    let reason = refused(&node, authority(&broker, &capf));
    assert!(reason.contains("CA:TRUE"), "{reason}");
    assert_eq!(node.token.signatures(), signatures, "the token was not even asked");
}

/// No verifier would take it longer, and a taken-over capf gains nothing by it.
#[test]
fn a_phones_certificate_ends_with_the_issuers_at_the_latest() {
    let node = Node::new();
    let broker = node.broker();
    let capf = broker.identity(KeyRole::Capf);
    let later = OffsetDateTime::now_utc() + Duration::HOUR;
    let until = |end| issue_for(&broker, &capf, &phone(), device_purpose(DEVICE), (later, end));
    until(capf.not_after).unwrap();
    let signatures = node.token.signatures();
    let reason = refused(&node, until(capf.not_after + Duration::SECOND));
    assert!(reason.contains("longer than that of the issuer's certificate"), "{reason}");
    assert_eq!(node.token.signatures(), signatures, "the token was not even asked");
    // A newer certificate that ends sooner: either may be the one that is published.
    let profile = identity_profile_from(KeyRole::Capf, "casemate", later - Duration::HOUR * 12);
    let signer = broker.signer(CERTMGR, broker.key(CERTMGR, KeyRole::Capf).unwrap(), Purpose::SelfSigned);
    let newer = CertificateFacts::parse(&self_signed(&profile, &signer).unwrap()).unwrap();
    assert!(newer.not_after < capf.not_after && newer.subject_der == capf.subject_der);
    until(capf.not_after).unwrap();
}

/// A certificate for the device that says CA:TRUE.
fn authority(broker: &Caller, capf: &CertificateFacts) -> Result<Vec<u8>, Refusal> {
    let signer = broker.signer(CAPF, broker.key(CAPF, KeyRole::Capf).unwrap(), device_purpose(DEVICE));
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, DEVICE);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = Issuer::from_ca_cert_der(&capf.der.as_slice().into(), &signer).unwrap();
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    parameters.signed_by(&key, &issuer).map(|made| made.der().to_vec()).map_err(|_| signer.refusal().unwrap())
}

/// A public key of the broker's with an empty signature: for certificates that nobody signed.
struct Uncertified(rig::BrokerSigner);

impl PublicKeyData for Uncertified {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.0.algorithm()
    }
}

impl SigningKey for Uncertified {
    fn sign(&self, _message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(vec![0; 256])
    }
}

#[test]
fn an_identity_certifies_its_own_key_and_no_other() {
    let node = Node::new();
    let broker = node.broker();
    let tvs = broker.generate(CERTMGR, KeyRole::Tvs).unwrap().0;
    broker.generate(CERTMGR, KeyRole::Capf).unwrap();
    let profile = identity_profile(KeyRole::Tvs, "casemate");
    let signer = broker.signer(CERTMGR, tvs.clone(), Purpose::SelfSigned);
    let tbs = signed_part(&self_signed(&profile, &signer).unwrap());
    let sign = |peer, role, purpose| broker.sign(peer, role, RSA_CERTIFICATE, purpose, &tbs);
    let reason = refused(&node, sign(CERTMGR, KeyRole::Capf, Purpose::SelfSigned));
    assert!(reason.contains("CAPF"), "{reason}");
    refused(&node, sign(CERTMGR, KeyRole::Tvs, Purpose::CertificateRequest));
    refused(&node, sign(CERTMGR, KeyRole::Tvs, device_purpose(DEVICE)));
    refused(&node, sign(TVS, KeyRole::Tvs, Purpose::SelfSigned));
    let request = broker.signer(CERTMGR, tvs, Purpose::CertificateRequest);
    casemate_pki::certificate_request(&profile, &request).unwrap();
}

/// The content of the first SEQUENCE in a SEQUENCE whose length takes three bytes: what was signed of a certificate.
fn signed_part(der: &[u8]) -> Vec<u8> {
    let length = usize::from(u16::from_be_bytes([der[6], der[7]]));
    der[4..8 + length].to_vec()
}

struct Identities {
    recovery: CertificateFacts,
    call_manager: CertificateFacts,
    capf: CertificateFacts,
}

fn identities(broker: &Caller) -> Identities {
    Identities {
        recovery: broker.identity(KeyRole::ItlRecovery),
        call_manager: broker.identity(KeyRole::CallManager),
        capf: broker.identity(KeyRole::Capf),
    }
}

fn record(role: Role, certificate: &CertificateFacts) -> Record {
    Record::of(role, certificate, "cm.example.net", [192, 0, 2, 1].into())
}

fn list(signer: &CertificateFacts, records: Vec<Record>) -> Vec<u8> {
    let list = TrustList::new(ITL_FILE_NAME, 1, Some(SignerVersion::V1_1), SignerId::of(signer), records).unwrap();
    Unsigned::trust_list(&list, &Limits::default()).unwrap().to_be_signed().to_vec()
}

fn file(signer: &CertificateFacts, name: &str) -> Vec<u8> {
    let file = PhoneFile { name: name.to_owned(), timestamp: 1, signer: SignerId::of(signer), body: b"<device/>" };
    Unsigned::file(&file, &Limits::default()).unwrap().to_be_signed().to_vec()
}

fn good_list(known: &Identities, signer: &CertificateFacts) -> Vec<u8> {
    let records = vec![
        record(Role::Sast, &known.recovery),
        record(Role::Sast, &known.call_manager),
        record(Role::CcmTftp, &known.call_manager),
        record(Role::Capf, &known.capf),
    ];
    list(signer, records)
}

#[test]
fn lists_and_files_are_signed_for_ctlprovider() {
    let node = Node::new();
    let broker = node.broker();
    let known = identities(&broker);
    for (role, certificate) in [(KeyRole::ItlRecovery, &known.recovery), (KeyRole::CallManager, &known.call_manager)] {
        let message = good_list(&known, certificate);
        let signature = broker.sign(CTLPROVIDER, role, LIST, Purpose::TrustList, &message).unwrap();
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA512, &certificate.public_key)
            .verify(&message, &signature)
            .unwrap();
    }
    let name = "SEP001122334455.cnf.xml.sgn";
    let message = file(&known.call_manager, name);
    broker.sign(CTLPROVIDER, KeyRole::CallManager, LIST, Purpose::File { name: name.into() }, &message).unwrap();
    assert!(node.recorded().contains("ITLFile.tlv with 4 records") && node.recorded().contains(name));
}

#[test]
fn a_list_that_would_make_phones_trust_a_stranger_is_refused() {
    let node = Node::new();
    let broker = node.broker();
    let known = identities(&broker);
    let stranger = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
    let stranger = self_signed(&identity_profile(KeyRole::ItlRecovery, "Mallory"), &stranger).unwrap();
    let stranger = CertificateFacts::parse(&stranger).unwrap();
    let sast = || record(Role::Sast, &known.recovery);
    let sign = |message: &[u8]| broker.sign(CTLPROVIDER, KeyRole::ItlRecovery, LIST, Purpose::TrustList, message);
    let cases = [
        ("a second signer of its own", list(&known.recovery, vec![sast(), record(Role::Sast, &stranger)])),
        ("a server", list(&known.recovery, vec![sast(), record(Role::CcmTftp, &stranger)])),
        ("CAPF as list signer", list(&known.recovery, vec![sast(), record(Role::Sast, &known.capf)])),
        ("another key's list", good_list(&known, &known.call_manager)),
    ];
    for (what, message) in &cases {
        let reason = refused(&node, sign(message));
        assert!(reason.contains("the list"), "{what}: {reason}");
    }
    refused(&node, sign(&file(&known.recovery, "a.sgn")));
    refused(&node, sign(&[good_list(&known, &known.recovery), vec![0]].concat()));
}

#[test]
fn a_file_is_signed_under_its_own_name_only() {
    let node = Node::new();
    let broker = node.broker();
    let known = identities(&broker);
    let named = |name: &str| Purpose::File { name: name.into() };
    let sign = |purpose, message: &[u8]| broker.sign(CTLPROVIDER, KeyRole::CallManager, LIST, purpose, message);
    let reason = refused(&node, sign(named("b.sgn"), &file(&known.call_manager, "a.sgn")));
    assert!(reason.contains("a.sgn") && reason.contains("b.sgn"), "{reason}");
    refused(&node, sign(named(ITL_FILE_NAME), &good_list(&known, &known.call_manager)));
}

#[test]
fn a_file_is_signed_under_its_signers_own_certificate_only() {
    let node = Node::new();
    let broker = node.broker();
    let known = identities(&broker);
    let sign = |signer: &CertificateFacts| {
        let purpose = Purpose::File { name: "a.sgn".into() };
        broker.sign(CTLPROVIDER, KeyRole::CallManager, LIST, purpose, &file(signer, "a.sgn"))
    };
    sign(&known.call_manager).unwrap();
    let stranger = CertificateFacts { serial: vec![7; 16], ..known.call_manager.clone() };
    for signer in [&known.recovery, &stranger] {
        let reason = refused(&node, sign(signer));
        assert!(reason.contains("no certificate of the CallManager key"), "{reason}");
    }
    // A certificate of the same subject is made, and the one before it stays published for a while.
    let renewed = broker.identity(KeyRole::CallManager);
    assert_eq!(renewed.subject, known.call_manager.subject);
    for signer in [&known.call_manager, &renewed] {
        sign(signer).unwrap();
    }
}

#[test]
fn an_identity_that_is_not_valid_from_now_is_refused() {
    let node = Node::new();
    let broker = node.broker();
    let (record, _) = broker.generate(CERTMGR, KeyRole::TomcatEcdsa).unwrap();
    let signer = broker.signer(CERTMGR, record, Purpose::SelfSigned);
    for away in [Duration::days(2), -Duration::days(365)] {
        let start = OffsetDateTime::now_utc() + away;
        let profile =
            IdentityProfile::new(KeyRole::TomcatEcdsa, "cm.example.net", SubjectSettings::default(), start).unwrap();
        assert!(self_signed(&profile, &signer).is_err());
        let reason = refused(&node, Err::<(), _>(signer.refusal().unwrap()));
        assert!(reason.contains("validity starts"), "{reason}");
    }
}

#[test]
fn nobody_has_signed_what_is_not_theirs() {
    let node = Node::new();
    let broker = node.broker();
    let known = identities(&broker);
    let list = good_list(&known, &known.call_manager);
    let file_message = file(&known.call_manager, "a.sgn");
    let file_purpose = || Purpose::File { name: "a.sgn".into() };
    let handshake = tls13(32);
    let signatures = node.token.signatures();
    let cases = [
        (CAPF, KeyRole::CallManager, LIST, Purpose::TrustList, &list),
        (CAPF, KeyRole::Capf, LIST, Purpose::TrustList, &list),
        (TFTP, KeyRole::CallManager, LIST, file_purpose(), &file_message),
        (TFTP, KeyRole::CallManager, LIST, Purpose::TrustList, &list),
        (TVS, KeyRole::CallManager, PSS, Purpose::TlsHandshake, &handshake),
        (CTLPROVIDER, KeyRole::CallManager, PSS, Purpose::TlsHandshake, &handshake),
        (CTLPROVIDER, KeyRole::ItlRecovery, LIST, file_purpose(), &file_message),
        (CERTMGR, KeyRole::ItlRecovery, LIST, Purpose::TrustList, &list),
        (CERTMGR, KeyRole::Capf, PSS, Purpose::TlsHandshake, &handshake),
        (ROOT, KeyRole::Capf, PSS, Purpose::TlsHandshake, &handshake),
    ];
    for (peer, role, scheme, purpose, message) in cases {
        let name = purpose.name();
        let reason = refused(&node, broker.sign(peer, role, scheme, purpose, message));
        assert!(reason.contains("may not"), "{name}: {reason}");
    }
    // Their own key and purpose, and another purpose's scheme or message.
    let scheme = refused(&node, broker.sign(TFTP, KeyRole::CallManager, LIST, Purpose::TlsHandshake, &handshake));
    assert!(scheme.contains("SHA-512"), "{scheme}");
    refused(&node, broker.sign(TFTP, KeyRole::CallManager, RSA_CERTIFICATE, Purpose::TlsHandshake, &handshake));
    refused(&node, broker.sign(CTLPROVIDER, KeyRole::CallManager, PSS, Purpose::TrustList, &list));
    refused(&node, broker.sign(TFTP, KeyRole::CallManager, PSS, Purpose::TlsHandshake, &list));
    refused(&node, broker.sign(TFTP, KeyRole::CallManager, PSS, Purpose::TlsHandshake, b"digest"));
    assert_eq!(node.token.signatures(), signatures);
}

#[test]
fn handshakes_are_signed_and_audited_and_cost_no_disk() {
    let node = Node::new();
    let broker = node.broker();
    let known = identities(&broker);
    broker.generate(CERTMGR, KeyRole::CallManagerEcdsa).unwrap();
    let recorded = node.recorded();
    let message = tls13(32);
    let signature = broker.sign(TFTP, KeyRole::CallManager, PSS, Purpose::TlsHandshake, &message).unwrap();
    UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, &known.call_manager.public_key)
        .verify(&message, &signature)
        .unwrap();
    let signature = broker.handshake().unwrap();
    let spki = broker.key(TFTP, KeyRole::CallManagerEcdsa).unwrap().spki_der;
    UnparsedPublicKey::new(&ECDSA_P384_SHA384_ASN1, &spki).verify(&tls13(48), &signature).unwrap();
    broker.sign(CAPF, KeyRole::Capf, PSS, Purpose::TlsHandshake, &message).unwrap();
    assert_eq!(node.recorded(), recorded);
    assert_eq!(node.journal().matches("TLS 1.3").count(), 6, "object and message of three events");
}

#[test]
fn strangers_are_told_nothing_and_root_only_how_it_stands() {
    let node = Node::new();
    let broker = node.broker();
    broker.generate(CERTMGR, KeyRole::Tvs).unwrap();
    assert!(matches!(broker.status(STRANGER), Err(Refusal::Policy(_))));
    assert!(!broker.0.knows(STRANGER));
    assert_eq!(node.audited("CallerRefused"), 1);
    assert_eq!(broker.status(ROOT).unwrap().keys.len(), 1);
    assert_eq!(broker.status(TFTP).unwrap().keys.len(), 1);
    for peer in [ROOT, CAPF] {
        let reason = refused(&node, broker.key(peer, KeyRole::Tvs));
        assert!(reason.contains("no use for the TVS key"), "{reason}");
    }
    assert_eq!(node.audited("KeyUseRefused"), 2);
    broker.key(TVS, KeyRole::Tvs).unwrap();
}

#[test]
fn several_daemons_under_one_user_may_what_any_of_them_may() {
    let node = Node::new();
    let broker = node.untested(node.store(), node.record(), "certmgr = 500\ntvs = 500\n");
    broker.attempt().unwrap();
    let user = casemate_runtime::peer::Peer { uid: 500, pid: 1 };
    broker.generate(user, KeyRole::Tvs).unwrap();
    broker.sign(user, KeyRole::Tvs, PSS, Purpose::TlsHandshake, &tls13(32)).unwrap();
    refused(&node, broker.sign(user, KeyRole::Capf, PSS, Purpose::TlsHandshake, &tls13(32)));
}

#[test]
fn a_key_that_was_never_made_is_missing() {
    let node = Node::new();
    let broker = node.broker();
    assert!(matches!(broker.handshake(), Err(Refusal::KeyMissing(_))));
    assert!(matches!(broker.key(TVS, KeyRole::Tvs), Err(Refusal::KeyMissing(_))));
}

/// Notes how many signatures the token had made when each batch was written, and fails when the test says so.
struct Watching {
    file: RecordFile,
    token: FakeToken,
    seen: Arc<Mutex<Vec<u64>>>,
    full: Arc<AtomicBool>,
}

impl Sink for Watching {
    fn write_durably(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.seen.lock().unwrap().push(self.token.signatures());
        self.file.write_durably(lines)
    }

    fn spent(&self, now: SystemTime) -> io::Result<Spent> {
        self.file.spent(now)
    }

    fn last(&self) -> io::Result<u64> {
        self.file.last()
    }
}

#[test]
fn a_signature_is_on_record_before_it_exists_and_without_a_record_there_is_none() {
    let node = Node::new();
    let (seen, full) = (Arc::default(), Arc::new(AtomicBool::new(false)));
    let watching =
        Watching { file: node.record(), token: node.token.clone(), seen: Arc::clone(&seen), full: Arc::clone(&full) };
    let broker = node.untested(node.store(), watching, "certmgr = 1001\ncapf = 1002\n");
    broker.attempt().unwrap();
    let capf = broker.identity(KeyRole::Capf);
    let before = node.token.signatures();
    issue(&broker, &capf, &phone(), device_purpose(DEVICE)).unwrap();
    assert_eq!(seen.lock().unwrap().last(), Some(&before), "recorded first");
    assert_eq!(node.token.signatures(), before + 1);

    full.store(true, Ordering::SeqCst);
    let Err(Refusal::Failed(reason)) = issue(&broker, &capf, &phone(), device_purpose(DEVICE)) else {
        panic!("signed without a record")
    };
    assert!(reason.contains("disk full"), "{reason}");
    assert_eq!(node.token.signatures(), before + 1, "the token was not asked");
    assert_eq!(node.audited("KeyUseFailed"), 1);
    let handshake = broker.sign(CAPF, KeyRole::Capf, PSS, Purpose::TlsHandshake, &tls13(32));
    handshake.unwrap();
    full.store(false, Ordering::SeqCst);
    issue(&broker, &capf, &phone(), device_purpose(DEVICE)).unwrap();
}

fn bounded(node: &Node, bounds: Bounds) -> Caller {
    let tokens = vec![node.token_parts(PLACE, &KeyRole::ALL, node.store())];
    let broker = node.with_bounds(tokens, LOADS, node.record(), USERS, bounds);
    broker.attempt().unwrap();
    broker
}

/// A capf that was taken over cannot write over its traces, and what it does costs nobody else anything.
#[test]
fn one_caller_fills_no_more_than_its_share_of_the_record() {
    let node = Node::new();
    let broker = bounded(&node, Bounds { caller_day_bytes: 8_000, ..Bounds::default() });
    let capf = broker.identity(KeyRole::Capf);
    let before = node.recorded().len();
    let outcomes: Vec<_> = (0..40).map(|_| issue(&broker, &capf, &phone(), device_purpose(DEVICE))).collect();
    let made = outcomes.iter().take_while(|outcome| outcome.is_ok()).count();
    assert!((5..20).contains(&made), "{made} certificates");
    for refused in &outcomes[made..] {
        let Err(Refusal::Unavailable(reason)) = refused else { panic!("{refused:?}") };
        assert!(reason.contains("uid 1002") && reason.contains("caller-day-bytes"), "{reason}");
    }
    let written = node.recorded().len() - before;
    assert!(written <= 8_000, "{written} bytes");
    let lines = node.recorded().lines().filter(|line| line.contains(DEVICE)).count();
    assert_eq!(lines, made, "each that was made is there, and none besides");
    assert_eq!(node.audited("KeyUseRefused"), 40 - made, "{}", node.journal());
    // A handshake is not in the record, and another caller has a share of its own.
    broker.sign(CAPF, KeyRole::Capf, PSS, Purpose::TlsHandshake, &tls13(32)).unwrap();
    broker.identity(KeyRole::Tvs);
}

/// Whoever makes keyd restart, or waits for it, has not more to write for that.
#[test]
fn a_restart_refills_nobodys_share_of_the_record() {
    let node = Node::new();
    let bounds = Bounds { caller_day_bytes: 8_000, ..Bounds::default() };
    let broker = bounded(&node, bounds);
    let capf = broker.identity(KeyRole::Capf);
    let issue = |broker: &Caller| issue(broker, &capf, &phone(), device_purpose(DEVICE));
    while issue(&broker).is_ok() {}
    drop(broker);
    let (record, aside) = (node.dir.path().join("record.jsonl"), node.dir.path().join("record.jsonl.1"));
    let is_full = || {
        let broker = bounded(&node, bounds);
        let outcome = issue(&broker);
        assert!(!matches!(&outcome, Err(refusal) if !refusal.to_string().contains("caller-day-bytes")), "{outcome:?}");
        // Another's is his own.
        broker.identity(KeyRole::Tvs);
        outcome.is_err()
    };
    assert!(is_full(), "after a restart");
    fs::rename(&record, &aside).unwrap();
    assert!(is_full(), "where the record was put aside meanwhile");
    // The same, signed two days ago.
    let old = |line: &str| {
        let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
        let micros: i64 = line["CASEMATE_TIMESTAMP"].as_str().unwrap().parse().unwrap();
        line["CASEMATE_TIMESTAMP"] = (micros - 2 * 86_400_000_000).to_string().into();
        format!("{line}\n")
    };
    let text: String = fs::read_to_string(&aside).unwrap().lines().map(old).collect();
    fs::write(&aside, text).unwrap();
    assert!(!is_full(), "it grew back");
}

#[test]
fn what_is_refused_fills_no_trail_and_hides_no_refusal_of_another() {
    let node = Node::new();
    let broker = bounded(&node, Bounds { audited_refusals: 3, ..Bounds::default() });
    broker.generate(CERTMGR, KeyRole::Tvs).unwrap();
    for _ in 0..50 {
        assert!(broker.key(CAPF, KeyRole::Tvs).is_err());
        assert!(matches!(broker.status(STRANGER), Err(Refusal::Policy(_))));
    }
    assert_eq!((node.audited("KeyUseRefused"), node.audited("CallerRefused")), (3, 3));
    refused(&node, broker.key(TFTP, KeyRole::Tvs));
    drop(broker);
    let journal = node.journal();
    assert!(journal.contains("47 more of KeyUseRefused and AttestationRefused not listed"), "{journal}");
    assert!(journal.contains("keyd, uid 1002"), "{journal}");
}

#[test]
fn without_an_audit_trail_no_handshake_is_signed() {
    let node = Node::new();
    let broker = node.broker();
    broker.generate(CERTMGR, KeyRole::CallManagerEcdsa).unwrap();
    broker.handshake().unwrap();
    drop(broker);
    // The kernel's own full disk.
    let trail = node.dir.path().join("journal.jsonl");
    fs::remove_file(&trail).unwrap();
    symlink("/dev/full", &trail).unwrap();
    let broker = node.broker();
    let signatures = node.token.signatures();
    let Err(Refusal::Failed(reason)) = broker.handshake() else { panic!("signed without a trail") };
    assert!(reason.contains("audit trail"), "{reason}");
    assert_eq!(node.token.signatures(), signatures, "the token was not asked");
}

#[test]
fn a_recorded_signature_that_the_token_did_not_make_is_recorded_as_failed() {
    let node = Node::new();
    let broker = node.broker();
    let capf = broker.identity(KeyRole::Capf);
    node.token.lose(KeyId::from_hex(&broker.key(CAPF, KeyRole::Capf).unwrap().key_id).unwrap());
    assert!(matches!(issue(&broker, &capf, &phone(), device_purpose(DEVICE)), Err(Refusal::KeyMissing(_))));
    let recorded = node.recorded();
    let lines = recorded.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let events: Vec<_> = lines.map(|line| line["CASEMATE_EVENT"].as_str().unwrap().to_owned()).collect();
    assert_eq!(events, ["KeyGenerated", "KeyUsed", "KeyUsed", "KeyUseFailed"]);
    assert_eq!(node.audited("KeyMissing"), 1);
}

#[test]
fn the_journal_has_each_line_of_the_record_with_its_number_and_a_restart_counts_on() {
    let node = Node::new();
    for start in 1..3 {
        let broker = node.broker();
        let capf = broker.identity(KeyRole::Capf);
        issue(&broker, &capf, &phone(), device_purpose(DEVICE)).unwrap();
        let record = node.recorded();
        let journal = std::fs::read_to_string(node.dir.path().join("journal.jsonl")).unwrap();
        let copied: Vec<&str> = journal.lines().filter(|line| line.contains("\"CASEMATE_RECORD\"")).collect();
        assert_eq!(record.lines().collect::<Vec<_>>(), copied, "the same, word for word");
        let number = |line: &str| -> u64 {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["CASEMATE_RECORD"].as_str().unwrap().parse().unwrap()
        };
        let numbers: Vec<u64> = record.lines().map(number).collect();
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
        assert!(numbers.len() >= start * 2, "{numbers:?}");
    }
}
