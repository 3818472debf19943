//! The files of `vectors/`, which other people's writer made (see the README there).
#![allow(clippy::unwrap_used, clippy::panic)] // clippy.toml allows it in test functions; these are their own helpers

use casemate_phonefile::{
    Content, Digest, Limits, ListView, Modulus, PhoneFileError, Role, Sha1, SignedFile, SignerKey, SignerVersion,
    ToBeSigned, TrustList, Unsigned,
};
use casemate_pki::CertificateFacts;
use rustls_pki_types::{CertificateDer, pem::PemObject};

const ITL: &[u8] = include_bytes!("vectors/ITLFile.tlv");
const TAMPERED: &[u8] = include_bytes!("vectors/ITLFile.tampered.tlv");
const XML: &[u8] = include_bytes!("vectors/SEP001122334455.cnf.xml");
const SGN: &[u8] = include_bytes!("vectors/SEP001122334455.cnf.xml.sgn");
const ENC_SGN: &[u8] = include_bytes!("vectors/SEP001122334455.cnf.xml.enc.sgn");

fn certificate(pem: &str) -> CertificateFacts {
    CertificateFacts::parse(&CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap()
}

fn sast() -> SignerKey {
    SignerKey::of_certificate(&certificate(include_str!("vectors/sast.crt")))
}

fn read(bytes: &[u8]) -> SignedFile<'_> {
    SignedFile::parse(bytes, &Limits::default()).unwrap()
}

fn list() -> TrustList {
    let Content::TrustList(list) = read(ITL).content else { panic!("ITLFile.tlv is a list") };
    list
}

#[test]
fn the_list_is_read_and_verifies() {
    let file = read(ITL);
    assert_eq!((file.digest, file.modulus), (Digest::Sha512, Modulus::Bits2048));
    file.verify(&[sast()], Sha1::Refused).unwrap();
    let list = list();
    assert_eq!(list.file_name(), "ITLFile.tlv");
    assert_eq!(list.signer_version(), Some(SignerVersion::V1_1));
    file.verify(&list.list_signers(), Sha1::Refused).unwrap();
    let roles: Vec<Role> = list.records().iter().map(|record| record.role).collect();
    assert_eq!(roles, [Role::Sast, Role::CcmTftp, Role::Capf, Role::Tvs, Role::Tftp]);
    let names: Vec<&str> = list.records().iter().map(|record| &*record.subject).collect();
    assert_eq!(
        names,
        [
            "CN=sast,O=Lab,OU=Lab",
            "CN=ccm,O=Lab,OU=Lab",
            "CN=capf,O=Lab,OU=Lab",
            "CN=tvs,O=Lab,OU=Lab",
            "CN=tftpec,O=Lab,OU=Lab"
        ]
    );
    assert!(list.warnings(&Limits::default()).is_empty());
}

#[test]
fn each_record_says_what_its_certificate_says() {
    for record in list().records() {
        record.check().unwrap();
    }
    let capf = certificate(include_str!("vectors/capf.crt"));
    assert_eq!(list().records()[2].certificate, capf.der);
    assert!(!list().records()[4].is_rsa());
}

#[test]
fn the_tampered_list_is_refused() {
    let verdict =
        SignedFile::parse(TAMPERED, &Limits::default()).and_then(|file| file.verify(&[sast()], Sha1::Refused));
    assert!(matches!(verdict, Err(PhoneFileError::BadSignature { .. })), "{verdict:?}");
}

#[test]
fn no_changed_byte_goes_unnoticed() {
    for at in 0..ITL.len() {
        let mut changed = ITL.to_vec();
        changed[at] ^= 1 << (at % 8);
        let verdict =
            SignedFile::parse(&changed, &Limits::default()).and_then(|file| file.verify(&[sast()], Sha1::Refused));
        assert!(verdict.is_err(), "byte {at}");
    }
}

#[test]
fn no_cut_and_no_addition_goes_unnoticed() {
    for length in 0..ITL.len() {
        let verdict =
            SignedFile::parse(&ITL[..length], &Limits::default()).and_then(|f| f.verify(&[sast()], Sha1::Refused));
        assert!(verdict.is_err(), "{length}");
    }
    let mut longer = ITL.to_vec();
    longer.push(0);
    assert!(SignedFile::parse(&longer, &Limits::default()).is_err());
}

#[test]
fn a_key_that_is_not_the_signers_verifies_nothing() {
    let tvs = SignerKey::of_certificate(&certificate(include_str!("vectors/tvs.crt")));
    assert!(matches!(
        read(ITL).verify(std::slice::from_ref(&tvs), Sha1::Refused),
        Err(PhoneFileError::UnknownSigner { .. })
    ));
    let disguised = SignerKey { public_key: tvs.public_key, ..sast() };
    assert!(matches!(read(ITL).verify(&[disguised], Sha1::Refused), Err(PhoneFileError::BadSignature { .. })));
}

#[test]
fn the_signed_file_verifies_with_the_lists_keys_and_unsigns() {
    let file = read(SGN);
    file.verify(&list().file_signers(), Sha1::Refused).unwrap();
    assert!(file.verify(&list().list_signers(), Sha1::Refused).is_err(), "a SAST signs lists, not files");
    let Content::File(content) = &file.content else { panic!("a signed file") };
    assert_eq!(content.name, "SEP001122334455.cnf.xml.sgn");
    assert_eq!(content.body, XML);
}

#[test]
fn the_encrypted_file_is_read_as_far_as_its_header() {
    let file = read(ENC_SGN);
    file.verify(&list().file_signers(), Sha1::Refused).unwrap();
    let Content::Encrypted(content) = &file.content else { panic!("an encrypted file") };
    assert_eq!(content.name, "SEP001122334455.cnf.xml.enc.sgn");
    assert_eq!(content.body.len(), XML.len().next_multiple_of(16));
    let message = file.message();
    let refusal = ToBeSigned::parse(&message, &Limits::default());
    assert!(matches!(refusal, Err(PhoneFileError::EncryptedNotBuilt)), "{refusal:?}");
}

#[test]
fn what_was_read_is_built_again_to_the_byte() {
    let limits = Limits::default();
    let unsigned = Unsigned::trust_list(&list(), &limits).unwrap();
    assert_eq!(unsigned.to_be_signed(), read(ITL).message());
    assert_eq!(unsigned.with_signature(read(ITL).signature).unwrap(), ITL);

    let file = read(SGN);
    let Content::File(content) = &file.content else { panic!("a signed file") };
    let unsigned = Unsigned::file(content, &limits).unwrap();
    assert_eq!(unsigned.with_signature(file.signature).unwrap(), SGN);
}

#[test]
fn what_is_to_be_signed_is_read_back() {
    let limits = Limits::default();
    let message = read(ITL).message();
    assert_eq!(ToBeSigned::parse(&message, &limits).unwrap(), ToBeSigned::TrustList(list()));
    let message = read(SGN).message();
    assert_eq!(ToBeSigned::parse(&message, &limits).unwrap().file_name(), "SEP001122334455.cnf.xml.sgn");
    assert!(ToBeSigned::parse(SGN, &limits).is_err(), "a file with its signature is no message");
    assert!(ToBeSigned::parse(ITL, &limits).is_err());
}

#[test]
fn no_two_messages_are_read_as_the_same_list() {
    let message = read(ITL).message();
    for at in 0..message.len() {
        let mut changed = message.clone();
        changed[at] ^= 1 << (at % 8);
        if let Ok(ToBeSigned::TrustList(read)) = ToBeSigned::parse(&changed, &Limits::default()) {
            assert_ne!(read, list(), "byte {at}");
        }
    }
}

#[test]
fn the_view_names_every_record() {
    let view = ListView::of(&read(ITL), &Limits::default()).unwrap();
    assert_eq!(view.length, 7015);
    assert_eq!(view.signed_with, "RSA-2048 with SHA-512");
    assert_eq!(view.records.len(), 5);
    assert!(view.records[0].signed_this_list && !view.records[1].signed_this_list);
    assert_eq!(view.records[0].serial, "5155f3dcdab2d716ec1a0dae8ee03e935bf9600c");
    assert_eq!(view.records[0].key, "RSA-2048");
    assert!(view.records[4].key.starts_with("P-"), "{}", view.records[4].key);
    let text = view.to_string();
    for record in &view.records {
        assert!(text.contains(&record.subject) && text.contains(&record.sha256) && text.contains(&record.serial));
    }
    let json = serde_json::to_value(&view).unwrap();
    assert_eq!(json["records"][1]["role"], "CCM+TFTP");
    assert_eq!(json["signer-version"], "1.1");
    assert!(ListView::of(&read(SGN), &Limits::default()).is_none());
}
