//! The rules that lists and signed files must keep, each broken in turn by a list whose signature is right.

use casemate_phone::PhoneError;
use casemate_phone::trust::{Standing, TrustList};

use crate::fake::Identity;
use crate::fake::files::{CAPF, CCM, CCM_TFTP, File, SAST, TFTP, TVS, element, nul, record_of};

/// A signer and a TVS, with the records that every list needs.
struct Pair {
    sast: Identity,
    tvs: Identity,
}

impl Pair {
    fn new() -> Self {
        Self { sast: Identity::rsa("sast"), tvs: Identity::rsa("tvs") }
    }

    fn list<'a>(&'a self, more: &[(u16, &'a Identity)]) -> File<'a> {
        File::list(&self.sast, &[&[(SAST, &self.sast), (TVS, &self.tvs)], more].concat())
    }
}

#[track_caller]
fn refused(file: &File<'_>, with: &str) {
    let error = TrustList::read(&file.write()).unwrap_err();
    assert!(error.to_string().contains(with), "{error}");
}

#[test]
fn headers_that_are_no_lists_are_refused() {
    let pair = Pair::new();
    TrustList::read(&pair.list(&[]).write()).unwrap();
    refused(&File { version: [1, 0], ..pair.list(&[]) }, "version is not 1.2");
    refused(&File { name: "CTLFile.tlv", ..pair.list(&[]) }, "another name");
    refused(&File { signer_version: Some([2, 0]), ..pair.list(&[]) }, "signer version");
    refused(&File { digest: 1, ..pair.list(&[]) }, "digest is not SHA-512");
    refused(&File { digest: 2, ..pair.list(&[]) }, "digest is not SHA-512");
}

#[test]
fn the_signer_must_be_a_sast_of_the_list() {
    let pair = Pair::new();
    let other = Identity::rsa("other");
    refused(&File::list(&other, &[(SAST, &pair.sast), (TVS, &pair.tvs)]), "no SAST record");
    refused(&File::list(&other, &[(CCM_TFTP, &other), (TVS, &pair.tvs)]), "no SAST record");
    refused(&File::list(&pair.sast, &[(SAST, &pair.sast)]), "no TVS record");
}

#[test]
fn two_tokens_are_allowed_and_three_are_not() {
    let pair = Pair::new();
    let [second, third] = ["second", "third"].map(Identity::rsa);
    TrustList::read(&pair.list(&[(SAST, &second)]).write()).unwrap();
    refused(&pair.list(&[(SAST, &second), (SAST, &third)]), "more than two SAST");
}

#[test]
fn ec_certificates_need_their_role_and_signer_version() {
    let pair = Pair::new();
    let ec = Identity::ec("ec");
    for role in [TFTP, CCM] {
        assert!(TrustList::read(&pair.list(&[(role, &ec)]).write()).unwrap().offers_ec());
    }
    refused(&pair.list(&[(CAPF, &ec)]), "another role than TFTP or CCM");
    refused(&pair.list(&[(SAST, &ec)]), "not RSA");
    for old in [Some([1, 0]), None] {
        refused(&File { signer_version: old, ..pair.list(&[(TFTP, &ec)]) }, "signer version is not 1.1");
    }
}

#[test]
fn records_must_agree_with_their_certificates() {
    let pair = Pair::new();
    let good = |tag: u8| match tag {
        3 | 5 => nul(&pair.tvs.text()),
        4 => CCM.to_be_bytes().to_vec(),
        6 => pair.tvs.serial(),
        7 => pair.tvs.public_key(),
        _ => pair.tvs.certificate.clone(),
    };
    let list = |elements: &[(u8, Vec<u8>)]| {
        let mut file = pair.list(&[]);
        file.body.extend(record_of(elements));
        file
    };
    let all: Vec<(u8, Vec<u8>)> = [3, 4, 5, 6, 7, 9].map(|tag| (tag, good(tag))).to_vec();
    TrustList::read(&list(&all).write()).unwrap();
    let with = |tag: u8, value: Vec<u8>| {
        let mut elements: Vec<_> = all.iter().filter(|(known, _)| *known != tag).cloned().collect();
        elements.push((tag, value));
        list(&elements)
    };
    refused(&with(6, pair.sast.serial()), "serial number is not");
    refused(&with(7, pair.sast.public_key()), "public key is not");
    refused(&with(8, vec![0; 256]), "signature is not");
    refused(&with(9, [&pair.tvs.certificate[..], &[0]].concat()), "not one X.509 certificate");
    refused(&with(3, b"CN=tvs".to_vec()), "NUL");
    refused(&with(10, vec![1, 2, 3]), "four bytes");
    refused(&with(11, vec![0; 64]), "hash without its algorithm");
    refused(&with(13, vec![0]), "unknown element");
    refused(&list(&[&all[..], &[(4, vec![0, 1])]].concat()), "twice");
    for (tag, _) in &all {
        let elements: Vec<_> = all.iter().filter(|(known, _)| known != tag).cloned().collect();
        assert!(TrustList::read(&list(&elements).write()).is_err(), "without {tag}");
    }
    let mut trailing = pair.list(&[]);
    trailing.body.extend(element(1, &[0, 200]));
    refused(&trailing, "does not fit the list");
}

#[test]
fn only_a_known_sast_makes_a_later_list_known() {
    let pair = Pair::new();
    let other = Identity::rsa("sast");
    let known = TrustList::read(&pair.list(&[]).write()).unwrap();
    let renewed = TrustList::read(&pair.list(&[(SAST, &other)]).write()).unwrap();
    assert_eq!(renewed.standing(Some(&known)), Standing::KnownSigner);
    let by_other = File::list(&other, &[(SAST, &other), (TVS, &pair.tvs)]).write();
    let by_other = TrustList::read(&by_other).unwrap();
    // The same name does not help; being named by a list that was taken does.
    assert_eq!(by_other.standing(Some(&known)), Standing::UnknownSigner);
    assert_eq!(by_other.standing(Some(&renewed)), Standing::KnownSigner);
    // A known certificate in another role than SAST signs no list.
    let by_tvs = File::list(&pair.tvs, &[(SAST, &pair.tvs), (TVS, &pair.tvs)]).write();
    assert_eq!(TrustList::read(&by_tvs).unwrap().standing(Some(&known)), Standing::UnknownSigner);
}

#[test]
fn files_are_signed_by_tftp_roles_alone() {
    let pair = Pair::new();
    let [ccm_tftp, tftp, ccm] = ["ccm-tftp", "tftp", "ccm"].map(Identity::rsa);
    let records = [(CCM_TFTP, &ccm_tftp), (TFTP, &tftp), (CCM, &ccm)];
    let list = TrustList::read(&pair.list(&records).write()).unwrap();
    for signer in [&ccm_tftp, &tftp] {
        let file = File::signed(signer, "a.sgn", b"body").write();
        assert_eq!(list.open_signed("a.sgn", &file).unwrap(), b"body");
    }
    for signer in [&ccm, &pair.sast, &pair.tvs, &Identity::rsa("ccm-tftp")] {
        let file = File::signed(signer, "a.sgn", b"body").write();
        assert!(matches!(list.open_signed("a.sgn", &file), Err(PhoneError::UnknownFileSigner { .. })));
    }
    let with_version = File { signer_version: Some([1, 1]), ..File::signed(&tftp, "a.sgn", b"body") };
    assert!(list.open_signed("a.sgn", &with_version.write()).is_err());
}
