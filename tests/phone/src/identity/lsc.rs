//! The checks that a delivered certificate must stand (phone-formats §5, "LSC profile").

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::{
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RsaParameters,
    UnparsedPublicKey,
};
use x509_parser::prelude::{AttributeTypeAndValue, FromDer, X509Certificate, X509Version};

use crate::error::{PhoneError, Result};
use crate::tlv::minimal;
use crate::tlv::record::Record;

/// A Locally Significant Certificate that stood every check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lsc {
    /// The certificate in DER.
    pub der: Vec<u8>,
    /// Its serial number in hex, without leading zero bytes.
    pub serial: String,
    /// Its issuer, for people.
    pub issuer: String,
    /// First second of its validity, in Unix seconds.
    pub not_before: i64,
    /// Last second of its validity, in Unix seconds.
    pub not_after: i64,
}

impl Lsc {
    /// Checks a certificate: signed by the list's CAPF key and issued in its name, for this device and this key, valid
    /// `now`, and no CA.
    ///
    /// `spki` is the device's `SubjectPublicKeyInfo` in DER.
    ///
    /// # Errors
    /// [`PhoneError::Lsc`] with the first check that failed.
    pub fn check(der: &[u8], capf: &Record, device: &str, spki: &[u8], now: SystemTime) -> Result<Self> {
        let certificate = whole(der)?;
        let issuer = whole(&capf.certificate)?;
        if certificate.issuer().as_raw() != issuer.subject().as_raw() {
            return refuse("its issuer is not the subject of the CAPF certificate");
        }
        check_signature(&certificate, &capf.public_key)?;
        check_subject(&certificate, device)?;
        if certificate.public_key().raw != spki {
            return refuse("its public key is not the phone's");
        }
        let validity = certificate.validity();
        let (not_before, not_after) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        let now = now.duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_secs()).ok());
        if !now.is_some_and(|now| (not_before..=not_after).contains(&now)) {
            return refuse("it is not valid now");
        }
        check_extensions(&certificate)?;
        let serial = minimal(certificate.raw_serial());
        if serial.is_empty() || certificate.raw_serial().first().is_some_and(|first| *first >= 0x80) {
            return refuse("its serial number is not positive");
        }
        Ok(Self {
            der: der.to_vec(),
            serial: hex::encode(serial),
            issuer: certificate.issuer().to_string(),
            not_before,
            not_after,
        })
    }
}

fn refuse<T>(why: &'static str) -> Result<T> {
    Err(PhoneError::Lsc(why))
}

fn whole(der: &[u8]) -> Result<X509Certificate<'_>> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => refuse("it is not one X.509 certificate in DER"),
    }
}

/// CAPF's key is RSA: PKCS#1 v1.5 with SHA-2 are the certificate signatures that phones take from it.
fn check_signature(certificate: &X509Certificate<'_>, capf_key: &[u8]) -> Result<()> {
    let algorithm: &RsaParameters = match certificate.signature_algorithm.algorithm.to_id_string().as_str() {
        "1.2.840.113549.1.1.11" => &RSA_PKCS1_2048_8192_SHA256,
        "1.2.840.113549.1.1.12" => &RSA_PKCS1_2048_8192_SHA384,
        "1.2.840.113549.1.1.13" => &RSA_PKCS1_2048_8192_SHA512,
        _ => return refuse("its signature algorithm is not RSA with SHA-2"),
    };
    if certificate.signature_algorithm != certificate.tbs_certificate.signature {
        return refuse("it names two signature algorithms");
    }
    UnparsedPublicKey::new(algorithm, capf_key)
        .verify(certificate.tbs_certificate.as_ref(), &certificate.signature_value.data)
        .or_else(|_| refuse("its signature is not CAPF's"))
}

fn check_subject(certificate: &X509Certificate<'_>, device: &str) -> Result<()> {
    let mut names = certificate.subject().iter_common_name();
    match (names.next().map(AttributeTypeAndValue::as_str), names.next()) {
        (Some(Ok(name)), None) if name == device => Ok(()),
        _ => refuse("its common name is not the device's"),
    }
}

fn check_extensions(certificate: &X509Certificate<'_>) -> Result<()> {
    if certificate.version() != X509Version::V3 {
        return refuse("its version is not 3");
    }
    match certificate.basic_constraints() {
        Ok(Some(constraints)) if !constraints.value.ca => {}
        Ok(Some(_)) => return refuse("it is a CA's"),
        _ => return refuse("its basic constraints are missing or unreadable"),
    }
    match certificate.key_usage() {
        Ok(Some(usage)) if usage.value.key_cert_sign() || usage.value.crl_sign() => refuse("its key usage is a CA's"),
        Ok(Some(usage)) if usage.value.digital_signature() => Ok(()),
        _ => refuse("its key usage does not allow signatures"),
    }
}
