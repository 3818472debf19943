//! Certificates that a phone must not take, each wrong in one point.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use casemate_phone::PhoneError;
use casemate_phone::identity::{DeviceKey, KeySpec, Lsc};
use casemate_phone::tlv::record::Record;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyUsagePurpose};

use crate::fake::files::{self, record};
use crate::fake::{Identity, lsc_params};

const DEVICE: &str = "SEP001122334455";
static CAPF: LazyLock<Identity> = LazyLock::new(|| Identity::rsa("capf"));
static KEY: LazyLock<DeviceKey> = LazyLock::new(|| DeviceKey::generate(KeySpec::P256).unwrap());

fn check(der: &[u8]) -> Result<Lsc, PhoneError> {
    check_at(der, SystemTime::now())
}

fn check_at(der: &[u8], now: SystemTime) -> Result<Lsc, PhoneError> {
    let bytes = record(files::CAPF, &CAPF);
    let (capf, _) = Record::split_from(&bytes).unwrap();
    Lsc::check(der, &capf, DEVICE, KEY.spki(), now)
}

fn issued(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let mut params = lsc_params(DEVICE);
    change(&mut params);
    CAPF.issue("capf", &params, KEY.spki())
}

#[track_caller]
fn refused(der: &[u8], with: &str) {
    let error = check(der).unwrap_err();
    assert!(matches!(error, PhoneError::Lsc(_)) && error.to_string().contains(with), "{error}");
}

#[test]
fn a_right_certificate_is_taken() {
    let der = issued(|_| {});
    let lsc = check(&der).unwrap();
    assert_eq!((lsc.der, lsc.serial.as_str(), lsc.issuer.as_str()), (der, "1234", "CN=capf"));
}

#[test]
fn another_name_is_refused() {
    let name = |name: &str| issued(|params| params.distinguished_name.push(DnType::CommonName, name));
    for wrong in ["SEP001122334456", "sep001122334455", "SEP001122334455\0", "SEP00112233445", ""] {
        refused(&name(wrong), "common name");
    }
}

#[test]
fn another_key_is_refused() {
    let other = DeviceKey::generate(KeySpec::P256).unwrap();
    refused(&CAPF.issue("capf", &lsc_params(DEVICE), other.spki()), "public key");
}

#[test]
fn another_issuer_is_refused() {
    let other = Identity::rsa("capf");
    refused(&other.issue("capf", &lsc_params(DEVICE), KEY.spki()), "signature");
    refused(&CAPF.issue("other", &lsc_params(DEVICE), KEY.spki()), "issuer");
    refused(&Identity::ec("capf").issue("capf", &lsc_params(DEVICE), KEY.spki()), "algorithm");
}

#[test]
fn a_changed_certificate_is_refused() {
    let der = issued(|_| {});
    for at in 0..der.len() {
        let mut changed = der.clone();
        changed[at] ^= 1 << (at % 8);
        assert!(check(&changed).is_err(), "byte {at}");
    }
    refused(&[&der[..], &[0]].concat(), "not one X.509");
    refused(&[], "not one X.509");
}

#[test]
fn a_ca_is_refused() {
    refused(&issued(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)), "CA");
    refused(&issued(|params| params.is_ca = IsCa::NoCa), "basic constraints");
    refused(&issued(|params| params.key_usages.push(KeyUsagePurpose::KeyCertSign)), "key usage");
    refused(&issued(|params| params.key_usages.push(KeyUsagePurpose::CrlSign)), "key usage");
    refused(&issued(|params| params.key_usages = vec![KeyUsagePurpose::KeyEncipherment]), "key usage");
    refused(&issued(|params| params.key_usages.clear()), "key usage");
}

#[test]
fn a_certificate_out_of_its_time_is_refused() {
    let der = issued(|params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
    });
    let at = |seconds| check_at(&der, SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    let (first, last) = (1_577_836_800, 1_893_456_000);
    assert!(at(first).is_ok() && at(last).is_ok());
    assert!(at(first - 1).is_err() && at(last + 1).is_err());
}
