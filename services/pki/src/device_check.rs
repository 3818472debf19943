use time::{Duration, OffsetDateTime};

use crate::{
    AltName, Refusal, SpkiFacts, TbsFacts,
    device::DeviceTbs,
    extension::{BASIC_CONSTRAINTS, KEY_USAGE},
    refusal::same,
    signature::CertificateSignature,
};

/// What a device certificate must be for the CAPF key to sign it.
#[derive(Clone, Copy, Debug)]
pub struct DeviceExpectations<'a> {
    /// The signed part of the CAPF certificate. Its subject must be the issuer, its key decides the signature algorithm and is no
    /// device's, and it lives as long as every device's.
    pub issuer: &'a TbsFacts,
    /// The device that the operation is for.
    pub device: &'a str,
    /// Longest validity.
    pub max_validity: Duration,
    /// This machine's clock.
    pub now: OffsetDateTime,
    /// How far from now validity may start, to either side.
    pub start_tolerance: Duration,
    /// `SubjectPublicKeyInfo` of every identity key.
    pub forbidden_spkis: &'a [Vec<u8>],
}

/// Judges a certificate that CAPF wants signed for a device.
///
/// # Errors
/// The first rule that it breaks.
pub fn check_device_certificate(tbs: &TbsFacts, expected: &DeviceExpectations<'_>) -> Result<(), Refusal> {
    if tbs.version != 3 {
        return Err(Refusal::Version { found: tbs.version });
    }
    if tbs.issuer_der != expected.issuer.subject_der {
        return Err(Refusal::Issuer { found: tbs.issuer.clone() });
    }
    check_authority(tbs)?;
    check_names(tbs, expected.device)?;
    check_validity(tbs, expected)?;
    let signature = check_signature(tbs, &expected.issuer.spki_der)?;
    if tbs.spki_der == expected.issuer.spki_der || expected.forbidden_spkis.contains(&tbs.spki_der) {
        return Err(Refusal::OwnKey);
    }
    SpkiFacts::parse(&tbs.spki_der)?;
    if !(8..=16).contains(&tbs.serial.len()) {
        return Err(Refusal::Serial { serial: hex::encode(&tbs.serial) });
    }
    let made = DeviceTbs {
        device: expected.device,
        spki_der: &tbs.spki_der,
        issuer_der: &expected.issuer.subject_der,
        issuer_key_identifier: expected.issuer.extensions.subject_key_identifier.as_deref(),
        serial: &tbs.serial,
        not_before: tbs.not_before,
        not_after: tbs.not_after,
        signature,
    };
    same(&tbs.der, &made.to_der()?, "device certificate")
}

fn check_authority(tbs: &TbsFacts) -> Result<(), Refusal> {
    let extensions = &tbs.extensions;
    let constraints = extensions.basic_constraints.ok_or(Refusal::BasicConstraints)?;
    if constraints.ca {
        return Err(Refusal::CaTrue);
    }
    if !constraints.critical {
        return Err(Refusal::BasicConstraints);
    }
    let usage = extensions.key_usage.ok_or(Refusal::KeyUsage)?;
    if usage.signs_certificates() {
        return Err(Refusal::SigningUsage);
    }
    if !usage.critical {
        return Err(Refusal::KeyUsage);
    }
    let known = [BASIC_CONSTRAINTS, KEY_USAGE];
    match extensions.all.iter().find(|extension| extension.critical && !known.contains(&&*extension.oid)) {
        Some(stranger) => Err(Refusal::UnknownCriticalExtension { oid: stranger.oid.clone() }),
        None => Ok(()),
    }
}

fn check_names(tbs: &TbsFacts, device: &str) -> Result<(), Refusal> {
    if tbs.common_names != [device] {
        return Err(Refusal::CommonName { found: tbs.common_names.clone(), expected: device.to_owned() });
    }
    match tbs.extensions.alt_names.iter().find(|name| !matches!(name, AltName::Uri(uri) if uri == device)) {
        Some(stranger) => Err(Refusal::AltName { found: stranger.to_string(), expected: device.to_owned() }),
        None => Ok(()),
    }
}

fn check_validity(tbs: &TbsFacts, expected: &DeviceExpectations<'_>) -> Result<(), Refusal> {
    let (not_before, not_after) = (tbs.not_before, tbs.not_after);
    if not_after <= not_before {
        return Err(Refusal::ValidityOrder { not_before, not_after });
    }
    if tbs.lifetime() > expected.max_validity {
        return Err(Refusal::ValidityTooLong { found: tbs.lifetime(), limit: expected.max_validity });
    }
    let issuer_ends = expected.issuer.not_after;
    if not_after > issuer_ends {
        return Err(Refusal::OutlivesIssuer { not_after, issuer_ends });
    }
    check_start(not_before, expected.now, expected.start_tolerance)
}

/// Validity starts within `tolerance` of now, to either side.
pub(crate) fn check_start(not_before: OffsetDateTime, now: OffsetDateTime, tolerance: Duration) -> Result<(), Refusal> {
    if (not_before - now).abs() > tolerance {
        return Err(Refusal::ValidityStart { not_before, now, tolerance });
    }
    Ok(())
}

/// The algorithm must be the one with which the signing key signs certificates.
pub(crate) fn check_signature(tbs: &TbsFacts, signer_spki: &[u8]) -> Result<CertificateSignature, Refusal> {
    let expected = CertificateSignature::of_key(SpkiFacts::parse(signer_spki)?.algorithm);
    if tbs.signature_algorithm == expected.oid() {
        Ok(expected)
    } else {
        Err(Refusal::SignatureAlgorithm { found: tbs.signature_algorithm.clone(), expected: expected.oid() })
    }
}
