use aws_lc_rs::digest;
use rcgen::SigningKey;
use time::{OffsetDateTime, PrimitiveDateTime};
use yasna::{
    DERWriter, DERWriterSeq, Tag,
    models::{GeneralizedTime, ObjectIdentifier, UTCTime},
};

use crate::{
    CertificateFacts, PkiError, SpkiFacts,
    name::{self, Name},
    signature::CertificateSignature,
};

const BASIC_CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
const EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37];
const SUBJECT_ALT_NAME: &[u64] = &[2, 5, 29, 17];
const SUBJECT_KEY_IDENTIFIER: &[u64] = &[2, 5, 29, 14];
const AUTHORITY_KEY_IDENTIFIER: &[u64] = &[2, 5, 29, 35];
const COMMON_NAME: &[u64] = &[2, 5, 4, 3];
/// serverAuth, clientAuth, ipsecEndSystem (phone-formats §5).
const PURPOSES: [&[u64]; 3] =
    [&[1, 3, 6, 1, 5, 5, 7, 3, 1], &[1, 3, 6, 1, 5, 5, 7, 3, 2], &[1, 3, 6, 1, 5, 5, 7, 3, 5]];
/// The attributes of its issuer that a device's subject carries too (phone-formats §5).
const INHERITED: [&str; 5] =
    [name::ORGANIZATION, name::ORGANIZATIONAL_UNIT, name::LOCALITY, name::STATE, name::COUNTRY];

/// A locally significant certificate that is to be issued (phone-formats §5).
#[derive(Clone, Copy, Debug)]
pub struct DeviceProfile<'a> {
    /// Device name, as `SEP001122334455`: 1 to 64 letters, digits, `-`, `_`, `.`.
    pub device: &'a str,
    /// The device's `SubjectPublicKeyInfo`.
    pub spki_der: &'a [u8],
    /// The CAPF certificate. Its subject becomes the issuer, byte for byte.
    pub issuer: &'a CertificateFacts,
    /// Serial number, as [`crate::random_serial`] makes it.
    pub serial: [u8; 16],
    /// Start of validity; fractions of a second are cut off.
    pub not_before: OffsetDateTime,
    /// End of validity; fractions of a second are cut off.
    pub not_after: OffsetDateTime,
}

/// Issues a device's certificate: subject with the device as common name and the issuer's O, OU, L, ST, C; BasicConstraints
/// critical and no authority; KeyUsage critical with digitalSignature, for RSA with keyEncipherment too (RFC 8813 forbids that
/// to a curve); ExtendedKeyUsage serverAuth, clientAuth, ipsecEndSystem; SubjectAltName the device as a URI. To that profile of
/// phone-formats §5 the two key identifiers are added, which RFC 5280 (4.2.1.1) demands and strict verifiers ask for.
///
/// The library that builds the other certificates rewrites the issuer's name from its parts, and loses the second of two
/// equal attributes. A verifier compares names, so here the name is copied.
///
/// # Errors
/// The device's name or key is refused; the issuer's certificate carries another key than `key`; the signer failed.
pub fn issue_device_certificate(profile: &DeviceProfile<'_>, key: &impl SigningKey) -> Result<Vec<u8>, PkiError> {
    if key.subject_public_key_info() != profile.issuer.spki_der {
        return Err(PkiError::WrongIssuerKey { issuer: profile.issuer.subject.clone() });
    }
    let signature = CertificateSignature::of_signer(key.algorithm())?;
    let tbs = DeviceTbs {
        device: profile.device,
        spki_der: profile.spki_der,
        issuer_der: &profile.issuer.subject_der,
        issuer_key_identifier: profile.issuer.extensions.subject_key_identifier.as_deref(),
        serial: &profile.serial,
        not_before: profile.not_before,
        not_after: profile.not_after,
        signature,
    };
    let tbs = tbs.to_der()?;
    let value = key.sign(&tbs)?;
    Ok(yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_der(&tbs);
            signature.write(writer.next());
            writer.next().write_bitvec_bytes(&value, value.len() * 8);
        });
    }))
}

/// All that decides the signed part of a device's certificate.
pub(crate) struct DeviceTbs<'a> {
    pub(crate) device: &'a str,
    pub(crate) spki_der: &'a [u8],
    /// The issuer's subject, a DER `Name`.
    pub(crate) issuer_der: &'a [u8],
    /// What the issuer's certificate says of its own key, if it does.
    pub(crate) issuer_key_identifier: Option<&'a [u8]>,
    pub(crate) serial: &'a [u8],
    pub(crate) not_before: OffsetDateTime,
    pub(crate) not_after: OffsetDateTime,
    pub(crate) signature: CertificateSignature,
}

impl DeviceTbs<'_> {
    /// The one `TBSCertificate` of these values.
    pub(crate) fn to_der(&self) -> Result<Vec<u8>, PkiError> {
        check_device_name(self.device)?;
        let key = SpkiFacts::parse(self.spki_der)?;
        let issuer = Name::parse(self.issuer_der)?;
        let not_before = date(self.not_before)?;
        let not_after = date(self.not_after)?;
        Ok(yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_tagged(Tag::context(0), |writer| writer.write_u8(2));
                writer.next().write_bigint_bytes(self.serial, true);
                self.signature.write(writer.next());
                writer.next().write_der(self.issuer_der);
                writer.next().write_sequence(|writer| {
                    write_date(writer.next(), not_before);
                    write_date(writer.next(), not_after);
                });
                self.write_subject(writer.next(), &issuer);
                writer.next().write_der(self.spki_der);
                writer.next().write_tagged(Tag::context(3), |writer| {
                    writer.write_sequence(|writer| self.write_extensions(writer, &key));
                });
            });
        }))
    }

    /// Sets of several attributes are left out of what is inherited: they could bring a second common name.
    fn write_subject(&self, writer: DERWriter<'_>, issuer: &Name<'_>) {
        writer.write_sequence(|writer| {
            writer.next().write_set(|writer| {
                writer.next().write_sequence(|writer| {
                    writer.next().write_oid(&ObjectIdentifier::from_slice(COMMON_NAME));
                    writer.next().write_utf8_string(self.device);
                });
            });
            for rdn in &issuer.rdns {
                if matches!(&*rdn.attributes, [only] if INHERITED.contains(&&*only.oid)) {
                    writer.next().write_der(rdn.der);
                }
            }
        });
    }

    fn write_extensions(&self, writer: &mut DERWriterSeq<'_>, key: &SpkiFacts) {
        let is_rsa = key.algorithm.rsa_bits().is_some();
        let no_authority = yasna::construct_der(|writer| writer.write_sequence(|_| {}));
        write_extension(writer.next(), BASIC_CONSTRAINTS, true, &no_authority);
        // Bits 0 (digitalSignature) and 2 (keyEncipherment) of a named bit list, without trailing zeros (X.690, 11.2.2).
        let (bits, count) = if is_rsa { (0b1010_0000, 3) } else { (0b1000_0000, 1) };
        let usage = yasna::construct_der(|writer| writer.write_bitvec_bytes(&[bits], count));
        write_extension(writer.next(), KEY_USAGE, true, &usage);
        let purposes = yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                for purpose in PURPOSES {
                    writer.next().write_oid(&ObjectIdentifier::from_slice(purpose));
                }
            });
        });
        write_extension(writer.next(), EXTENDED_KEY_USAGE, false, &purposes);
        let names = yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                // uniformResourceIdentifier is [6] IMPLICIT IA5String.
                writer.next().write_tagged_implicit(Tag::context(6), |writer| writer.write_ia5_string(self.device));
            });
        });
        write_extension(writer.next(), SUBJECT_ALT_NAME, false, &names);
        let own = yasna::construct_der(|writer| writer.write_bytes(&key_identifier(key)));
        write_extension(writer.next(), SUBJECT_KEY_IDENTIFIER, false, &own);
        // It must be what the issuer's certificate says of itself, whoever made that; without one there is none to name.
        if let Some(identifier) = self.issuer_key_identifier {
            let issuers = yasna::construct_der(|writer| {
                writer.write_sequence(|writer| {
                    // keyIdentifier is [0] IMPLICIT OCTET STRING.
                    writer.next().write_tagged_implicit(Tag::context(0), |writer| writer.write_bytes(identifier));
                });
            });
            write_extension(writer.next(), AUTHORITY_KEY_IDENTIFIER, false, &issuers);
        }
    }
}

/// RFC 7093, 2, method 1: the leftmost 160 bits of the SHA-256 of the public key's bits.
fn key_identifier(key: &SpkiFacts) -> Vec<u8> {
    let hash = digest::digest(&digest::SHA256, &key.public_key);
    hash.as_ref().iter().take(20).copied().collect()
}

fn write_extension(writer: DERWriter<'_>, oid: &[u64], critical: bool, value: &[u8]) {
    writer.write_sequence(|writer| {
        writer.next().write_oid(&ObjectIdentifier::from_slice(oid));
        if critical {
            writer.next().write_bool(true);
        }
        writer.next().write_bytes(value);
    });
}

pub(crate) fn check_device_name(device: &str) -> Result<(), PkiError> {
    let fits = (1..=64).contains(&device.len())
        && device.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if fits { Ok(()) } else { Err(PkiError::DeviceName { device: device.to_owned() }) }
}

/// A date that a certificate can carry: UTC, whole seconds, 1950 to 9999.
pub(crate) fn date(date: OffsetDateTime) -> Result<OffsetDateTime, PkiError> {
    let utc = date.checked_to_offset(time::UtcOffset::UTC).filter(|utc| (1950..=9999).contains(&utc.year()));
    let whole = utc.and_then(|utc| utc.replace_nanosecond(0).ok());
    whole.map(|whole| PrimitiveDateTime::new(whole.date(), whole.time()).assume_utc()).ok_or(PkiError::Date { date })
}

/// RFC 5280, 4.1.2.5: UTCTime through 2049, GeneralizedTime from 2050.
fn write_date(writer: DERWriter<'_>, date: OffsetDateTime) {
    if date.year() < 2050 {
        writer.write_utctime(&UTCTime::from_datetime(date));
    } else {
        writer.write_generalized_time(&GeneralizedTime::from_datetime(date));
    }
}
