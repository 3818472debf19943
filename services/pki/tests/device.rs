//! Device certificates: what is issued, and what is refused before it is signed.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in test functions; these are their own helpers

use casemate_hsm_api::KeyRole;
use casemate_pki::{
    AltName, CertificateFacts, DeviceExpectations, DeviceProfile, IdentityProfile, PkiError, Refusal, SubjectSettings,
    TbsFacts, check_device_certificate, issue_device_certificate, random_serial, self_signed,
};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, RsaKeySize, SanType,
};
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::FromDer;

const DEVICE: &str = "SEP001122334455";

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

struct Capf {
    key: KeyPair,
    certificate: CertificateFacts,
}

impl Capf {
    fn new() -> Self {
        let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        let subject = SubjectSettings {
            organization: Some("Example, Inc.".to_owned()),
            organizational_unit: Some("Voice".to_owned()),
            country: Some("NZ".to_owned()),
            ..SubjectSettings::default()
        };
        let profile = IdentityProfile::new(KeyRole::Capf, "cm.example.net", subject, now()).unwrap();
        let der = self_signed(&profile, &key).unwrap();
        Self { certificate: CertificateFacts::parse(&der).unwrap(), key }
    }

    fn issue(&self, spki_der: &[u8]) -> Vec<u8> {
        let profile = DeviceProfile {
            device: DEVICE,
            spki_der,
            issuer: &self.certificate,
            serial: random_serial().unwrap(),
            not_before: now(),
            not_after: now() + Duration::days(365),
        };
        issue_device_certificate(&profile, &self.key).unwrap()
    }

    fn judge(&self, tbs: &TbsFacts, forbidden_spkis: &[Vec<u8>]) -> Result<(), Refusal> {
        let expected = DeviceExpectations {
            issuer: &TbsFacts::parse(&signed_part(&self.certificate.der)).unwrap(),
            device: DEVICE,
            max_validity: Duration::days(5 * 365),
            now: now(),
            start_tolerance: Duration::DAY,
            forbidden_spkis,
        };
        check_device_certificate(tbs, &expected)
    }
}

fn signed_part(certificate: &[u8]) -> Vec<u8> {
    x509_parser::certificate::X509Certificate::from_der(certificate).unwrap().1.tbs_certificate.as_ref().to_vec()
}

fn openssl(arguments: &[&str]) -> String {
    let output =
        std::process::Command::new("openssl").args(arguments).output().expect("the package openssl is missing");
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn pem(folder: &std::path::Path, name: &str, der: &[u8]) -> String {
    let (binary, text) = (folder.join(format!("{name}.der")), folder.join(format!("{name}.pem")).display().to_string());
    std::fs::write(&binary, der).unwrap();
    openssl(&["x509", "-inform", "DER", "-in", &binary.display().to_string(), "-out", &text]);
    text
}

#[test]
fn an_issued_certificate_passes_its_own_check_and_openssl() {
    let capf = Capf::new();
    let folder = tempfile::tempdir().unwrap();
    let authority = pem(folder.path(), "capf", &capf.certificate.der);
    let rsa = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_3072).unwrap();
    let curves = [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ECDSA_P521_SHA512];
    let keys = std::iter::once(rsa).chain(curves.map(|curve| KeyPair::generate_for(curve).unwrap()));
    for key in keys {
        let der = capf.issue(&key.subject_public_key_info());
        let facts = CertificateFacts::parse(&der).unwrap();
        assert_eq!(facts.issuer_der, capf.certificate.subject_der);
        assert_eq!(facts.subject, format!("CN={DEVICE},OU=Voice,O=Example\\, Inc.,C=NZ"));
        assert_eq!(facts.extensions.alt_names, [AltName::Uri(DEVICE.to_owned())]);
        capf.judge(&TbsFacts::parse(&signed_part(&der)).unwrap(), &[]).unwrap();
        let leaf = pem(folder.path(), "leaf", &der);
        let verdict = openssl(&[
            "verify",
            "-attime",
            &now().unix_timestamp().to_string(),
            "-x509_strict",
            "-CAfile",
            &authority,
            &leaf,
        ]);
        assert!(verdict.contains("OK"), "{verdict}");
        let text = openssl(&["x509", "-in", &leaf, "-noout", "-text"]);
        assert!(
            text.contains("CA:FALSE") && text.contains(&format!("URI:{DEVICE}")) && text.contains("IPSec End System"),
            "{text}"
        );
        assert_eq!(text.contains("Key Encipherment"), key.is_compatible(&rcgen::PKCS_RSA_SHA256));
    }
}

#[test]
fn an_issuer_that_the_library_cannot_rewrite_is_copied() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let subject = "/CN=CAPF-12345678/OU=one/OU=two/O=Lab";
    openssl(&[
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        subject,
        "-utf8",
        "-keyout",
        &path("key"),
        "-out",
        &path("pem"),
    ]);
    openssl(&["x509", "-in", &path("pem"), "-outform", "DER", "-out", &path("der")]);
    let certificate = CertificateFacts::parse(&std::fs::read(path("der")).unwrap()).unwrap();
    let pem_text = std::fs::read_to_string(path("key")).unwrap();
    let key = KeyPair::from_pem_and_sign_algo(&pem_text, &rcgen::PKCS_RSA_SHA256).unwrap();
    let phone = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let profile = DeviceProfile {
        device: DEVICE,
        spki_der: &phone.subject_public_key_info(),
        issuer: &certificate,
        serial: random_serial().unwrap(),
        not_before: OffsetDateTime::now_utc() - Duration::HOUR,
        not_after: OffsetDateTime::now_utc() + Duration::days(20),
    };
    let facts = CertificateFacts::parse(&issue_device_certificate(&profile, &key).unwrap()).unwrap();
    assert_eq!(facts.issuer_der, certificate.subject_der);
    assert_eq!(facts.subject, format!("CN={DEVICE},OU=one,OU=two,O=Lab"));
    let leaf = pem(folder.path(), "leaf", &facts.der);
    assert!(openssl(&["verify", "-CAfile", &path("pem"), &leaf]).contains("OK"));
}

#[test]
fn another_key_than_the_issuers_signs_nothing() {
    let (capf, other) = (Capf::new(), Capf::new());
    let phone = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let spki_der = phone.subject_public_key_info();
    let profile = DeviceProfile {
        device: DEVICE,
        spki_der: &spki_der,
        issuer: &capf.certificate,
        serial: [0x41; 16],
        not_before: now(),
        not_after: now() + Duration::DAY,
    };
    assert!(matches!(issue_device_certificate(&profile, &other.key), Err(PkiError::WrongIssuerKey { .. })));
    let nameless = DeviceProfile { device: "SEP 1,CN=x", ..profile };
    assert!(matches!(issue_device_certificate(&nameless, &capf.key), Err(PkiError::DeviceName { .. })));
}

/// Something close to the profile, built by the library, that a test then spoils.
fn parameters() -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.not_before = now();
    parameters.not_after = now() + Duration::days(365);
    parameters.serial_number = Some(vec![0x41; 16].into());
    parameters.distinguished_name = named(DEVICE);
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    parameters.subject_alt_names = vec![SanType::URI(DEVICE.try_into().unwrap())];
    parameters
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn verdict(capf: &Capf, spoil: impl FnOnce(&mut CertificateParams)) -> Refusal {
    let mut parameters = parameters();
    spoil(&mut parameters);
    let phone = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let issuer = Issuer::from_ca_cert_der(&capf.certificate.der.clone().into(), &capf.key).unwrap();
    let certificate = parameters.signed_by(&phone, &issuer).unwrap();
    let tbs = TbsFacts::parse(&signed_part(certificate.der())).unwrap();
    capf.judge(&tbs, &[]).unwrap_err()
}

#[test]
fn each_broken_rule_is_refused_by_its_name() {
    let capf = Capf::new();
    assert!(
        matches!(verdict(&capf, |_| ()), Refusal::NotTheProfile { .. }),
        "an extension that the profile does not have"
    );
    assert!(matches!(verdict(&capf, |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)), Refusal::CaTrue));
    assert!(matches!(verdict(&capf, |p| p.is_ca = IsCa::NoCa), Refusal::BasicConstraints));
    assert!(matches!(verdict(&capf, |p| p.key_usages.clear()), Refusal::KeyUsage));
    for usage in [KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign] {
        assert!(matches!(verdict(&capf, |p| p.key_usages.push(usage)), Refusal::SigningUsage));
    }
    assert!(matches!(verdict(&capf, |p| p.distinguished_name = named("SEP001122334456")), Refusal::CommonName { .. }));
    assert!(matches!(
        verdict(&capf, |p| {
            p.distinguished_name = DistinguishedName::new();
            p.distinguished_name.push(DnType::OrganizationName, DEVICE);
        }),
        Refusal::CommonName { .. }
    ));
    let stranger = SanType::DnsName("cm.example.net".try_into().unwrap());
    assert!(matches!(verdict(&capf, |p| p.subject_alt_names.push(stranger)), Refusal::AltName { .. }));
    let stranger = SanType::IpAddress([127, 0, 0, 1].into());
    assert!(matches!(verdict(&capf, |p| p.subject_alt_names.push(stranger)), Refusal::AltName { .. }));
    assert!(matches!(verdict(&capf, |p| p.not_after = now() + Duration::days(1826)), Refusal::ValidityTooLong { .. }));
    let late = |p: &mut CertificateParams| {
        p.not_before = now() + Duration::HOUR;
        p.not_after = capf.certificate.not_after + Duration::SECOND;
    };
    assert!(matches!(verdict(&capf, late), Refusal::OutlivesIssuer { .. }));
    assert!(matches!(verdict(&capf, |p| p.not_after = now() - Duration::DAY), Refusal::ValidityOrder { .. }));
    assert!(matches!(verdict(&capf, |p| p.not_before = now() - Duration::days(2)), Refusal::ValidityStart { .. }));
    assert!(matches!(verdict(&capf, |p| p.not_before = now() + Duration::days(2)), Refusal::ValidityStart { .. }));
    assert!(matches!(verdict(&capf, |p| p.serial_number = Some(vec![1].into())), Refusal::Serial { .. }));
    let mut critical = CustomExtension::from_oid_content(&[1, 2, 3], vec![5, 0]);
    critical.set_criticality(true);
    assert!(matches!(verdict(&capf, |p| p.custom_extensions.push(critical)), Refusal::UnknownCriticalExtension { .. }));
}

#[test]
fn a_certificate_from_another_issuer_or_with_another_algorithm_is_refused() {
    let (capf, other) = (Capf::new(), Capf::new());
    let phone = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let theirs = TbsFacts::parse(&signed_part(&other.issue(&phone.subject_public_key_info()))).unwrap();
    assert!(matches!(capf.judge(&theirs, &[]), Err(Refusal::Issuer { .. })));

    let sha512 = KeyPair::from_pem_and_sign_algo(&capf.key.serialize_pem(), &rcgen::PKCS_RSA_SHA512).unwrap();
    let issuer = Issuer::from_ca_cert_der(&capf.certificate.der.clone().into(), sha512).unwrap();
    let certificate = parameters().signed_by(&phone, &issuer).unwrap();
    let tbs = TbsFacts::parse(&signed_part(certificate.der())).unwrap();
    assert!(matches!(capf.judge(&tbs, &[]), Err(Refusal::SignatureAlgorithm { .. })));
}

#[test]
fn our_own_keys_and_weak_keys_are_refused() {
    let capf = Capf::new();
    let tomcat = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().subject_public_key_info();
    for own in [&tomcat, &capf.certificate.spki_der] {
        let tbs = TbsFacts::parse(&signed_part(&capf.issue(own))).unwrap();
        assert!(matches!(capf.judge(&tbs, std::slice::from_ref(&tomcat)), Err(Refusal::OwnKey)));
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    openssl(&["genrsa", "-out", &path("weak"), "1024"]);
    openssl(&["rsa", "-in", &path("weak"), "-pubout", "-outform", "DER", "-out", &path("spki")]);
    let profile = DeviceProfile {
        device: DEVICE,
        spki_der: &std::fs::read(path("spki")).unwrap(),
        issuer: &capf.certificate,
        serial: [0x41; 16],
        not_before: now(),
        not_after: now() + Duration::DAY,
    };
    assert!(matches!(issue_device_certificate(&profile, &capf.key), Err(PkiError::KeySize { bits: 1024 })));
    let mut tbs = TbsFacts::parse(&signed_part(&capf.issue(&tomcat))).unwrap();
    tbs.spki_der = profile.spki_der.to_vec();
    assert!(matches!(capf.judge(&tbs, &[]), Err(Refusal::Content(PkiError::KeySize { bits: 1024 }))));
}

#[test]
fn every_single_changed_byte_is_seen() {
    let capf = Capf::new();
    let phone = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let tbs = signed_part(&capf.issue(&phone.subject_public_key_info()));
    let good = TbsFacts::parse(&tbs).unwrap();
    // What may differ within the profile: the serial number, the two dates, the key.
    let free = |facts: &TbsFacts| {
        facts.serial != good.serial
            || facts.not_before != good.not_before
            || facts.not_after != good.not_after
            || facts.spki_der != good.spki_der
    };
    for at in 0..tbs.len() {
        for bit in 0..8 {
            let mut changed = tbs.clone();
            changed[at] ^= 1 << bit;
            let Ok(facts) = TbsFacts::parse(&changed) else { continue };
            assert!(free(&facts) || capf.judge(&facts, &[]).is_err(), "byte {at} bit {bit}");
        }
    }
}
