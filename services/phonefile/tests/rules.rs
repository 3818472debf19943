//! Lists and files made here: the rules that hold when they are built and before they are signed.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy.toml allows it in test functions; these are their own helpers

use std::{net::Ipv4Addr, process::Command, sync::OnceLock};

use casemate_hsm_api::KeyRole;
use casemate_phonefile::{
    Limits, ListWarning, PhoneFile, PhoneFileError, Record, Role, Sha1, SignedFile, SignerId, SignerKey, SignerVersion,
    ToBeSigned, TrustList, Unsigned,
};
use casemate_pki::{CertificateFacts, IdentityProfile, SubjectSettings, self_signed};
use proptest::prelude::*;
use rcgen::{KeyPair, RsaKeySize, SigningKey};
use time::OffsetDateTime;

struct Identity {
    key: KeyPair,
    certificate: CertificateFacts,
}

impl Identity {
    fn new(role: KeyRole, size: Option<RsaKeySize>) -> Self {
        let key = match size {
            Some(size) => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size).unwrap(),
            None => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap(),
        };
        let subject = SubjectSettings { organization: Some("Lab".to_owned()), ..SubjectSettings::default() };
        let profile = IdentityProfile::new(role, "cm.example.net", subject, OffsetDateTime::UNIX_EPOCH).unwrap();
        let certificate = CertificateFacts::parse(&self_signed(&profile, &key).unwrap()).unwrap();
        Self { key, certificate }
    }

    fn record(&self, role: Role) -> Record {
        Record::of(role, &self.certificate, "cm.example.net", Ipv4Addr::new(192, 0, 2, 1))
    }

    /// Signs as the token does: the same RSA key with SHA-512.
    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let pem = self.key.serialize_pem();
        KeyPair::from_pem_and_sign_algo(&pem, &rcgen::PKCS_RSA_SHA512).unwrap().sign(message).unwrap()
    }
}

fn recovery() -> &'static Identity {
    static IDENTITY: OnceLock<Identity> = OnceLock::new();
    IDENTITY.get_or_init(|| Identity::new(KeyRole::ItlRecovery, Some(RsaKeySize::_2048)))
}

fn call_manager() -> &'static Identity {
    static IDENTITY: OnceLock<Identity> = OnceLock::new();
    IDENTITY.get_or_init(|| Identity::new(KeyRole::CallManager, Some(RsaKeySize::_2048)))
}

fn curve() -> &'static Identity {
    static IDENTITY: OnceLock<Identity> = OnceLock::new();
    IDENTITY.get_or_init(|| Identity::new(KeyRole::CallManagerEcdsa, None))
}

fn records() -> Vec<Record> {
    vec![
        recovery().record(Role::Sast),
        call_manager().record(Role::Sast),
        call_manager().record(Role::CcmTftp),
        curve().record(Role::Tftp),
    ]
}

fn list(records: Vec<Record>) -> Result<TrustList, PhoneFileError> {
    let signer = SignerId::of(&recovery().certificate);
    TrustList::new("ITLFile.tlv", 1_800_000_000, Some(SignerVersion::V1_1), signer, records)
}

fn lay_out(records: Vec<Record>) -> Result<Unsigned, PhoneFileError> {
    Unsigned::trust_list(&list(records)?, &Limits::default())
}

#[test]
fn a_list_is_built_signed_and_verified() {
    let unsigned = lay_out(records()).unwrap();
    let parsed = ToBeSigned::parse(unsigned.to_be_signed(), &Limits::default()).unwrap();
    assert_eq!(parsed, ToBeSigned::TrustList(list(records()).unwrap()));
    assert_eq!(*parsed.signer(), SignerId::of(&recovery().certificate));
    let file = unsigned.with_signature(&recovery().sign(unsigned.to_be_signed())).unwrap();
    let file = SignedFile::parse(&file, &Limits::default()).unwrap();
    file.verify(&[SignerKey::of_certificate(&recovery().certificate)], Sha1::Refused).unwrap();
    let forged = unsigned.with_signature(&call_manager().sign(unsigned.to_be_signed())).unwrap();
    let forged = SignedFile::parse(&forged, &Limits::default()).unwrap();
    assert!(forged.verify(&list(records()).unwrap().list_signers(), Sha1::Refused).is_err());
    assert!(matches!(unsigned.with_signature(&[0; 255]), Err(PhoneFileError::SignatureLength { .. })));
}

#[test]
fn one_or_two_list_signers_and_the_signer_among_them() {
    let none = records().into_iter().filter(|record| record.role != Role::Sast).collect();
    assert!(matches!(list(none), Err(PhoneFileError::SastCount { count: 0 })));
    let mut three = records();
    three.push(call_manager().record(Role::Sast));
    assert!(matches!(list(three), Err(PhoneFileError::SastCount { count: 3 })));
    let without_signer = records().split_off(1);
    assert!(matches!(list(without_signer), Err(PhoneFileError::SignerNotInList { .. })));
}

#[test]
fn list_signers_are_rsa_2048() {
    let mut with_curve = records();
    with_curve[1] = curve().record(Role::Sast);
    assert!(matches!(lay_out(with_curve), Err(PhoneFileError::RecordRefused { role: Role::Sast, .. })));
    let mut with_long = records();
    with_long[1] = Identity::new(KeyRole::CallManager, Some(RsaKeySize::_3072)).record(Role::Sast);
    assert!(matches!(lay_out(with_long), Err(PhoneFileError::RecordRefused { role: Role::Sast, .. })));
}

#[test]
fn curves_need_signer_version_1_1() {
    for (version, fits) in [(None, false), (Some(SignerVersion::V1_0), false), (Some(SignerVersion::V1_1), true)] {
        let signer = SignerId::of(&recovery().certificate);
        let list = TrustList::new("ITLFile.tlv", 0, version, signer, records()).unwrap();
        assert_eq!(Unsigned::trust_list(&list, &Limits::default()).is_ok(), fits, "{version:?}");
    }
}

#[test]
fn a_record_that_lies_about_its_certificate_is_not_signed() {
    type Spoil = fn(&mut Record);
    let spoil: [(&str, Spoil); 5] = [
        ("subject", |record| record.subject.push('x')),
        ("issuer", |record| record.issuer.push('x')),
        ("serial number", |record| record.serial.push(1)),
        ("public key", |record| record.public_key = call_manager().certificate.public_key.clone()),
        ("signature", |record| record.signature = Some(vec![1; 256])),
    ];
    for (name, spoil) in spoil {
        let mut records = records();
        spoil(&mut records[3]);
        match lay_out(records) {
            Err(PhoneFileError::RecordDiffers { field, .. }) => assert_eq!(field, name),
            other => panic!("{name}: {other:?}"),
        }
    }
    let mut unknown = records();
    unknown[3].role = Role::Unknown(9);
    assert!(matches!(lay_out(unknown), Err(PhoneFileError::RecordRefused { role: Role::Unknown(9), .. })));
}

#[test]
fn limits_and_names_hold() {
    let list = list(records()).unwrap();
    let small = Limits { list_bytes: 4000, list_certificates: 2, ..Limits::default() };
    assert!(matches!(Unsigned::trust_list(&list, &small), Err(PhoneFileError::TooLarge { .. })));
    assert_eq!(list.warnings(&small), [ListWarning::Certificates { count: 3, limit: 2 }]);
    let signer = SignerId::of(&recovery().certificate);
    let named = TrustList::new("ITLSEP001122334455.tlv", 0, Some(SignerVersion::V1_1), signer, records()).unwrap();
    assert!(matches!(Unsigned::trust_list(&named, &Limits::default()), Err(PhoneFileError::Text { .. })));
    for name in
        ["a.xml", ".sgn", "../a.sgn", "a/b.sgn", "a b.sgn", "a.enc.sgn", "a\0.sgn", &format!("{}.sgn", "a".repeat(130))]
    {
        let signer = SignerId::of(&call_manager().certificate);
        let file = PhoneFile { name: name.to_owned(), timestamp: 0, signer, body: b"" };
        assert!(matches!(Unsigned::file(&file, &Limits::default()), Err(PhoneFileError::Text { .. })), "{name}");
    }
}

#[test]
fn sha_1_is_read_for_old_files_only_and_never_built() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let marker = [0xaa; 256];
    let mut file = lay_out(records()).unwrap().with_signature(&marker).unwrap();
    // DIGESTALGORITHM: 08 0001 03 becomes 08 0001 01.
    let digest = file.windows(4).position(|window| window == [8, 0, 1, 3]).unwrap() + 3;
    file[digest] = 1;
    let signature = file.windows(256).position(|window| window == marker).unwrap();
    let message = [&file[..signature - 3], &file[signature + 256..]].concat();
    let refusal = ToBeSigned::parse(&message, &Limits::default());
    assert!(matches!(refusal, Err(PhoneFileError::SchemeNotBuilt { .. })), "{refusal:?}");

    std::fs::write(path("key"), recovery().key.serialize_pem()).unwrap();
    std::fs::write(path("message"), &message).unwrap();
    let mut openssl = Command::new("openssl");
    openssl.args(["dgst", "-sha1", "-sign"]).arg(path("key")).arg("-out").arg(path("sig")).arg(path("message"));
    assert!(openssl.status().expect("the package openssl is missing").success());
    file[signature..signature + 256].copy_from_slice(&std::fs::read(path("sig")).unwrap());

    let file = SignedFile::parse(&file, &Limits::default()).unwrap();
    let keys = [SignerKey::of_certificate(&recovery().certificate)];
    assert!(matches!(file.verify(&keys, Sha1::Refused), Err(PhoneFileError::SchemeNotTrusted { .. })));
    file.verify(&keys, Sha1::LegacyReading).unwrap();
}

#[test]
fn the_other_order_of_fields_is_read_too() {
    // certutils writes 1, 3, 5, 6, 4, 7, 8, 9 in a record and 4, 6, 5 in the signer's container (phone-formats §§1, 2).
    let element = |tag: u8, value: &[u8]| {
        let mut out = vec![tag];
        out.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        out.extend(value);
        out
    };
    let text = |tag: u8, text: &str| element(tag, format!("{text}\0").as_bytes());
    let sast = recovery().record(Role::Sast);
    let fields = [
        text(3, &sast.subject),
        text(5, &sast.issuer),
        element(6, &sast.serial),
        element(4, &[0, 0]),
        element(7, &sast.public_key),
        element(8, sast.signature.as_ref().unwrap()),
        element(9, &sast.certificate),
    ]
    .concat();
    let body = [element(1, &u16::try_from(fields.len() + 5).unwrap().to_be_bytes()), fields].concat();
    let signer = [text(4, &sast.subject), text(6, &sast.issuer), element(5, &sast.serial)].concat();
    let info = [element(8, &[3]), element(9, &[element(10, &[0]), element(11, &[2])].concat())].concat();
    let front = |length: u16| {
        [element(1, &[1, 2]), element(2, &length.to_be_bytes()), element(3, &signer), element(7, &info)].concat()
    };
    let mut tail = [text(14, "ITLFile.tlv"), element(15, &[0; 4])].concat();
    while (front(0).len() + 259 + tail.len()) % 4 != 0 {
        tail.push(13);
    }
    let front = front(u16::try_from(front(0).len() + 259 + tail.len()).unwrap());
    let message = [&*front, &tail, &body].concat();
    let file = [&*front, &element(12, &recovery().sign(&message)), &tail, &body].concat();
    let read = SignedFile::parse(&file, &Limits::default()).unwrap();
    read.verify(&[SignerKey::of_certificate(&recovery().certificate)], Sha1::Refused).unwrap();
    let refusal = ToBeSigned::parse(&message, &Limits::default());
    assert!(matches!(refusal, Err(PhoneFileError::NotCanonical { .. })), "it is not what is built here: {refusal:?}");
}

proptest! {
    #[test]
    fn every_list_survives(timestamp: u32, order in Just((0..4usize).collect::<Vec<_>>()).prop_shuffle(), count in 1..=4usize) {
        let all = records();
        let mut chosen: Vec<Record> = order.into_iter().take(count).map(|at| all[at].clone()).collect();
        if !chosen.contains(&all[0]) {
            chosen.push(all[0].clone());
        }
        let signer = SignerId::of(&recovery().certificate);
        let list = TrustList::new("ITLFile.tlv", timestamp, Some(SignerVersion::V1_1), signer, chosen).unwrap();
        let unsigned = Unsigned::trust_list(&list, &Limits::default()).unwrap();
        prop_assert_eq!(ToBeSigned::parse(unsigned.to_be_signed(), &Limits::default()).unwrap(), ToBeSigned::TrustList(list));
    }

    #[test]
    fn every_file_survives(name in "[A-Za-z0-9_-]{1,60}\\.sgn", timestamp: u32, body in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let signer = SignerId::of(&call_manager().certificate);
        let file = PhoneFile { name, timestamp, signer, body: &body };
        let unsigned = Unsigned::file(&file, &Limits::default()).unwrap();
        prop_assert_eq!(ToBeSigned::parse(unsigned.to_be_signed(), &Limits::default()).unwrap(), ToBeSigned::File(file.clone()));
        let signed = unsigned.with_signature(&[7; 256]).unwrap();
        let read = SignedFile::parse(&signed, &Limits::default()).unwrap();
        prop_assert_eq!(read.message(), unsigned.to_be_signed());
        prop_assert_eq!(read.content, casemate_phonefile::Content::File(file));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = SignedFile::parse(&bytes, &Limits::default());
        let _ = ToBeSigned::parse(&bytes, &Limits::default());
    }

    #[test]
    fn spoiled_lists_never_panic(at: prop::sample::Index, bytes in proptest::collection::vec(any::<u8>(), 1..8), cut: prop::sample::Index) {
        let mut list = include_bytes!("vectors/ITLFile.tlv").to_vec();
        let at = at.index(list.len() - bytes.len());
        list[at..at + bytes.len()].copy_from_slice(&bytes);
        let end = cut.index(list.len());
        for bytes in [&list[..], &list[..end]] {
            let _ = SignedFile::parse(bytes, &Limits::default()).map(|file| {
                let _ = file.verify(&[], Sha1::Refused);
                casemate_phonefile::ListView::of(&file, &Limits::default()).map(|view| view.to_string())
            });
            let _ = ToBeSigned::parse(bytes, &Limits::default());
        }
    }
}
