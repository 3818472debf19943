//! Identity certificates and requests: what is made, and what certmgr may have signed.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy.toml allows it in test functions; these are their own helpers

use casemate_hsm_api::KeyRole;
use casemate_pki::{
    AltName, CertificateFacts, CsrFacts, IdentityExpectations, IdentityProfile, PkiError, Refusal, SubjectSettings,
    TbsFacts, certificate_request, check_certificate_request, self_signed,
};
use rcgen::{CertificateParams, KeyPair, PublicKeyData, RsaKeySize};
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::FromDer;

const HOST: &str = "cm.example.net";

fn key(role: KeyRole) -> KeyPair {
    match role {
        KeyRole::CallManagerEcdsa | KeyRole::TomcatEcdsa => {
            KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap()
        }
        _ => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap(),
    }
}

fn profile(role: KeyRole) -> IdentityProfile {
    let subject = SubjectSettings {
        organizational_unit: Some("Voice".to_owned()),
        organization: Some("Ex+mple".to_owned()),
        locality: Some("Ōtautahi".to_owned()),
        state: None,
        country: Some("NZ".to_owned()),
    };
    IdentityProfile::new(role, HOST, subject, now()).unwrap()
}

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

/// As a broker whose clock is right would judge.
fn check_self_signature(tbs: &TbsFacts, spki: &[u8], role: KeyRole) -> Result<(), Refusal> {
    let expected = IdentityExpectations { role, spki, now: now(), start_tolerance: Duration::DAY };
    casemate_pki::check_self_signature(tbs, &expected)
}

fn tbs(certificate: &[u8]) -> TbsFacts {
    let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(certificate).unwrap();
    TbsFacts::parse(parsed.tbs_certificate.as_ref()).unwrap()
}

fn request_info(request: &[u8]) -> CsrFacts {
    let (_, parsed) = x509_parser::certification_request::X509CertificationRequest::from_der(request).unwrap();
    CsrFacts::parse(parsed.certification_request_info.raw).unwrap()
}

#[test]
fn every_role_has_its_name_its_usage_and_its_validity() {
    for role in KeyRole::ALL {
        let key = key(role);
        let der = self_signed(&profile(role), &key).unwrap();
        let facts = CertificateFacts::parse(&der).unwrap();
        let (name, bits, purposes, ca): (String, u16, &[&str], bool) = match role {
            KeyRole::CallManager | KeyRole::Tvs | KeyRole::Tomcat => {
                (HOST.to_owned(), 0b1101, &["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"], false)
            }
            KeyRole::CallManagerEcdsa | KeyRole::TomcatEcdsa => {
                (format!("{HOST}-EC"), 0b1, &["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"], false)
            }
            KeyRole::Capf => {
                let spki = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &key.subject_public_key_info());
                (format!("CAPF-{}", hex::encode(&spki.as_ref()[..4])), 0b10_0001, &["1.3.6.1.5.5.7.3.1"], true)
            }
            KeyRole::ItlRecovery => (format!("ITLRECOVERY_{HOST}"), 0b1, &[], false),
        };
        assert_eq!(facts.subject, format!("CN={name},OU=Voice,O=Ex\\+mple,L=Ōtautahi,C=NZ"));
        assert_eq!(facts.subject_der, facts.issuer_der);
        assert_eq!(facts.extensions.key_usage.unwrap().bits, bits, "{role}");
        assert!(facts.extensions.key_usage.unwrap().critical);
        assert_eq!(facts.extensions.extended_key_usages, purposes, "{role}");
        assert_eq!(facts.is_ca, ca);
        assert_eq!(facts.extensions.basic_constraints.unwrap().path_len, ca.then_some(0));
        let names: &[AltName] = if role == KeyRole::ItlRecovery { &[] } else { &[AltName::Dns(HOST.to_owned())] };
        assert_eq!(facts.extensions.alt_names, names);
        let years = if role == KeyRole::ItlRecovery { 20 } else { 5 };
        assert_eq!(facts.not_after - facts.not_before, Duration::days(years * 365));
        assert_eq!(facts.serial.len(), 16);
        assert_eq!(facts.public_key, key.der_bytes());

        check_self_signature(&tbs(&der), &key.subject_public_key_info(), role).unwrap();
        let request = certificate_request(&profile(role), &key).unwrap();
        check_certificate_request(&request_info(&request), &key.subject_public_key_info(), role).unwrap();
    }
}

#[test]
fn one_role_is_not_signed_as_another() {
    let key = key(KeyRole::Tvs);
    let spki = key.subject_public_key_info();
    let rsa = [KeyRole::CallManager, KeyRole::Tvs, KeyRole::Tomcat, KeyRole::Capf, KeyRole::ItlRecovery];
    let made = tbs(&self_signed(&profile(KeyRole::Tvs), &key).unwrap());
    for role in [KeyRole::Capf, KeyRole::ItlRecovery, KeyRole::TomcatEcdsa] {
        assert!(check_self_signature(&made, &spki, role).is_err(), "{role}");
    }
    for role in rsa {
        let authority = tbs(&self_signed(&profile(KeyRole::Capf), &key).unwrap());
        assert_eq!(check_self_signature(&authority, &spki, role).is_ok(), role == KeyRole::Capf, "{role}");
        let request = request_info(&certificate_request(&profile(KeyRole::Capf), &key).unwrap());
        assert_eq!(check_certificate_request(&request, &spki, role).is_ok(), role == KeyRole::Capf, "{role}");
    }
}

#[test]
fn strangers_are_refused_by_name() {
    let (own, other) = (key(KeyRole::Tvs), key(KeyRole::Tvs));
    let spki = own.subject_public_key_info();
    let theirs = tbs(&self_signed(&profile(KeyRole::Tvs), &other).unwrap());
    assert!(matches!(check_self_signature(&theirs, &spki, KeyRole::Tvs), Err(Refusal::NotOwnKey { .. })));
    let request = request_info(&certificate_request(&profile(KeyRole::Tvs), &other).unwrap());
    assert!(matches!(check_certificate_request(&request, &spki, KeyRole::Tvs), Err(Refusal::NotOwnKey { .. })));

    let mut long = tbs(&self_signed(&profile(KeyRole::Tvs), &own).unwrap());
    long.not_after += Duration::DAY;
    assert!(matches!(check_self_signature(&long, &spki, KeyRole::Tvs), Err(Refusal::ValidityTooLong { .. })));

    let plain = CertificateParams::new(vec![HOST.to_owned()]).unwrap().self_signed(&own).unwrap();
    assert!(check_self_signature(&tbs(plain.der()), &spki, KeyRole::Tvs).is_err());
}

#[test]
fn a_certificate_that_starts_on_another_day_is_refused() {
    let key = key(KeyRole::Tvs);
    let spki = key.subject_public_key_info();
    let made = tbs(&self_signed(&profile(KeyRole::Tvs), &key).unwrap());
    for (away, fits) in [(Duration::DAY, true), (Duration::hours(25), false), (Duration::days(3650), false)] {
        for now in [now() + away, now() - away] {
            let expected =
                IdentityExpectations { role: KeyRole::Tvs, spki: &spki, now, start_tolerance: Duration::DAY };
            match casemate_pki::check_self_signature(&made, &expected) {
                Ok(()) => assert!(fits, "{now}"),
                Err(Refusal::ValidityStart { .. }) => assert!(!fits, "{now}"),
                Err(other) => panic!("{other}"),
            }
        }
    }
}

#[test]
fn every_single_changed_byte_is_seen() {
    for role in [KeyRole::ItlRecovery, KeyRole::Capf, KeyRole::TomcatEcdsa] {
        let key = key(role);
        let spki = key.subject_public_key_info();
        let good = tbs(&self_signed(&profile(role), &key).unwrap());
        for at in 0..good.der.len() {
            let mut changed = good.der.clone();
            changed[at] ^= 1;
            let Ok(facts) = TbsFacts::parse(&changed) else { continue };
            // What may differ within the profile: the names, the serial number, the dates.
            let free = facts.subject_der != good.subject_der
                || facts.extensions.alt_names != good.extensions.alt_names
                || facts.serial != good.serial
                || facts.not_before != good.not_before
                || facts.not_after != good.not_after;
            assert!(free || check_self_signature(&facts, &spki, role).is_err(), "{role} byte {at}");
        }
    }
}

#[test]
fn bytes_after_or_inside_a_certificate_are_refused() {
    let der = self_signed(&profile(KeyRole::TomcatEcdsa), &key(KeyRole::TomcatEcdsa)).unwrap();
    let mut after = der.clone();
    after.push(0);
    assert!(matches!(CertificateFacts::parse(&after), Err(PkiError::Malformed { .. })));
    // A NULL at the end inside the outer SEQUENCE, whose two length bytes grow by two.
    let mut inside = der;
    let length = u16::from_be_bytes([inside[2], inside[3]]) + 2;
    inside[2..4].copy_from_slice(&length.to_be_bytes());
    inside.extend([5, 0]);
    assert!(x509_parser::parse_x509_certificate(&inside).is_ok(), "the library passes over it");
    assert!(matches!(CertificateFacts::parse(&inside), Err(PkiError::Malformed { .. })));
}

#[test]
fn hosts_and_settings_that_cannot_stand_in_a_name_are_refused() {
    let with = |host: &str, subject: SubjectSettings| {
        IdentityProfile::new(KeyRole::Tvs, host, subject, OffsetDateTime::UNIX_EPOCH).map(|_| ())
    };
    for host in ["", "a..b", "-a", "a b", "a,CN=b", "é", &"a".repeat(53)] {
        assert!(matches!(with(host, SubjectSettings::default()), Err(PkiError::HostName { .. })), "{host}");
    }
    let country = SubjectSettings { country: Some("nz".to_owned()), ..SubjectSettings::default() };
    assert!(matches!(with(HOST, country), Err(PkiError::SubjectSetting { attribute: "C", .. })));
    let unit = SubjectSettings { organizational_unit: Some(String::new()), ..SubjectSettings::default() };
    assert!(matches!(with(HOST, unit), Err(PkiError::SubjectSetting { attribute: "OU", .. })));
}
