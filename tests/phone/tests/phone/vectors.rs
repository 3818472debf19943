//! The published samples, and every way to damage them.

use casemate_phone::PhoneError;
use casemate_phone::tlv::header::Envelope;
use casemate_phone::tlv::record::{KeyKind, Record, Role};
use casemate_phone::trust::{Standing, TrustList};
use proptest::prelude::*;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

const ITL: &[u8] = include_bytes!("../vectors/ITLFile.tlv");
const TAMPERED: &[u8] = include_bytes!("../vectors/ITLFile.tampered.tlv");
const SIGNED: &[u8] = include_bytes!("../vectors/SEP001122334455.cnf.xml.sgn");
const CONFIG: &[u8] = include_bytes!("../vectors/SEP001122334455.cnf.xml");
const NAME: &str = "SEP001122334455.cnf.xml.sgn";

fn certificate(pem: &[u8]) -> Vec<u8> {
    CertificateDer::from_pem_slice(pem).unwrap().to_vec()
}

#[test]
fn the_sample_list_is_read_and_verifies() {
    let list = TrustList::read(ITL).unwrap();
    let roles: Vec<Role> = list.records.iter().map(|record| record.role).collect();
    assert_eq!(roles, [Role::Sast, Role::CcmTftp, Role::Capf, Role::Tvs, Role::Tftp]);
    assert!(list.offers_ec());
    assert_eq!(list.timestamp, 0x6b03_ebf5);
    assert_eq!(list.signer().unwrap().certificate, certificate(include_bytes!("../vectors/sast.crt")));
    let capf = list.with_role(Role::Capf).next().unwrap();
    assert_eq!(capf.certificate, certificate(include_bytes!("../vectors/capf.crt")));
    assert_eq!((capf.subject.as_str(), capf.key_kind), ("CN=capf,O=Lab,OU=Lab", KeyKind::Rsa(2048)));
    assert_eq!(list.with_role(Role::Tftp).next().unwrap().key_kind, KeyKind::Ec(384));
    assert_eq!(list.standing(None), Standing::FirstUse);
    assert_eq!(list.standing(Some(&list)), Standing::KnownSigner);
}

#[test]
fn the_tampered_list_is_refused() {
    assert_eq!(ITL.iter().zip(TAMPERED).filter(|(good, bad)| good != bad).count(), 1);
    assert!(TrustList::read(TAMPERED).is_err());
}

#[test]
fn a_list_with_any_bit_flipped_is_refused() {
    let mut list = ITL.to_vec();
    for at in 0..list.len() {
        list[at] ^= 1 << (at % 8);
        assert!(TrustList::read(&list).is_err(), "byte {at}");
        list[at] ^= 1 << (at % 8);
    }
}

#[test]
fn a_list_with_one_byte_more_or_less_is_refused() {
    assert!(TrustList::read(&ITL[..ITL.len() - 1]).is_err());
    assert!(TrustList::read(&[ITL, &[0]].concat()).is_err());
}

#[test]
fn the_sample_file_opens_to_the_sample_configuration() {
    let list = TrustList::read(ITL).unwrap();
    assert_eq!(list.open_signed(NAME, SIGNED).unwrap(), CONFIG);
}

#[test]
fn a_signed_file_under_another_name_or_changed_is_refused() {
    let list = TrustList::read(ITL).unwrap();
    assert!(list.open_signed("SEPFFFFFFFFFFFF.cnf.xml.sgn", SIGNED).is_err());
    let mut file = SIGNED.to_vec();
    for at in 0..file.len() {
        file[at] ^= 1 << (at % 8);
        assert!(list.open_signed(NAME, &file).is_err(), "byte {at}");
        file[at] ^= 1 << (at % 8);
    }
    *file.last_mut().unwrap() ^= 1;
    assert!(matches!(list.open_signed(NAME, &file), Err(PhoneError::WrongSignature { .. })));
}

#[test]
fn a_list_is_no_signed_file_and_a_signed_file_no_list() {
    let list = TrustList::read(ITL).unwrap();
    assert!(list.open_signed("ITLFile.tlv", ITL).is_err());
    assert!(TrustList::read(SIGNED).is_err());
}

proptest! {
    #[test]
    fn arbitrary_files_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = (Envelope::parse(&bytes), Record::split_from(&bytes), TrustList::read(&bytes));
    }

    #[test]
    fn cut_and_overwritten_lists_never_panic_and_never_hold(
        at in 0..ITL.len(), garbage in proptest::collection::vec(any::<u8>(), 1..8), cut: bool) {
        let mut list = ITL.to_vec();
        if cut {
            list.truncate(at);
        } else {
            for (old, new) in list[at..].iter_mut().zip(garbage) {
                *old = new;
            }
        }
        prop_assert!(list == ITL || TrustList::read(&list).is_err());
    }
}
