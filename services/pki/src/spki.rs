use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ECDSA_P521_SHA512_ASN1, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, VerificationAlgorithm,
};
use casemate_hsm_api::KeyAlgorithm;
use x509_parser::{asn1_rs::Oid, prelude::FromDer, public_key::RSAPublicKey, x509::SubjectPublicKeyInfo};
use yasna::{DERWriterSeq, models::ObjectIdentifier};

use crate::{PkiError, tbs::public_key_bits};

const WHAT: &str = "SubjectPublicKeyInfo";
const RSA: &[u64] = &[1, 2, 840, 113_549, 1, 1, 1];
const EC: &[u64] = &[1, 2, 840, 10_045, 2, 1];
const P256: &[u64] = &[1, 2, 840, 10_045, 3, 1, 7];
const P384: &[u64] = &[1, 3, 132, 0, 34];
const P521: &[u64] = &[1, 3, 132, 0, 35];

/// A public key that Casemate takes (RFC 3279, 2.3; RFC 5480, 2.1).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SpkiFacts {
    /// Kind and size.
    pub algorithm: KeyAlgorithm,
    /// PKCS#1 `RSAPublicKey` for RSA, the uncompressed X9.62 point for a curve.
    pub public_key: Vec<u8>,
}

impl SpkiFacts {
    /// Reads a `SubjectPublicKeyInfo` that is all of `der`, in its one DER form. The FIPS module is asked whether the key can
    /// be one: a point must be on its curve.
    ///
    /// # Errors
    /// [`PkiError::Malformed`], [`PkiError::KeyAlgorithm`], [`PkiError::KeySize`], [`PkiError::KeyExponent`],
    /// [`PkiError::KeyInvalid`].
    pub fn parse(der: &[u8]) -> Result<Self, PkiError> {
        let public_key = public_key_bits(der)?;
        let (_, spki) =
            SubjectPublicKeyInfo::from_der(der).map_err(|error| PkiError::malformed(WHAT, error.to_string()))?;
        let oid = &spki.algorithm.algorithm;
        let algorithm = if is(oid, RSA) {
            rsa(&public_key)?
        } else if is(oid, EC) {
            curve(spki.algorithm.parameters.as_ref().and_then(|any| any.clone().oid().ok()))?
        } else {
            return Err(PkiError::KeyAlgorithm { oid: oid.to_id_string() });
        };
        let facts = Self { algorithm, public_key };
        if facts.to_der() != der {
            return Err(PkiError::malformed(WHAT, "not in the form of RFC 3279 or RFC 5480"));
        }
        facts.ask_the_module()?;
        Ok(facts)
    }

    /// The one DER form of the key.
    fn to_der(&self) -> Vec<u8> {
        yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_sequence(|writer| write_algorithm(writer, self.algorithm));
                writer.next().write_bitvec_bytes(&self.public_key, self.public_key.len() * 8);
            });
        })
    }

    fn ask_the_module(&self) -> Result<(), PkiError> {
        let algorithm: &'static dyn VerificationAlgorithm = match self.algorithm {
            KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => &RSA_PKCS1_2048_8192_SHA256,
            KeyAlgorithm::P256 => &ECDSA_P256_SHA256_ASN1,
            KeyAlgorithm::P384 => &ECDSA_P384_SHA384_ASN1,
            KeyAlgorithm::P521 => &ECDSA_P521_SHA512_ASN1,
        };
        ParsedPublicKey::new(algorithm, &self.public_key)
            .map(|_| ())
            .map_err(|error| PkiError::KeyInvalid { algorithm: self.algorithm, detail: error.to_string() })
    }
}

fn write_algorithm(writer: &mut DERWriterSeq<'_>, algorithm: KeyAlgorithm) {
    let curve = match algorithm {
        KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => {
            writer.next().write_oid(&ObjectIdentifier::from_slice(RSA));
            writer.next().write_null();
            return;
        }
        KeyAlgorithm::P256 => P256,
        KeyAlgorithm::P384 => P384,
        KeyAlgorithm::P521 => P521,
    };
    writer.next().write_oid(&ObjectIdentifier::from_slice(EC));
    writer.next().write_oid(&ObjectIdentifier::from_slice(curve));
}

fn is(oid: &Oid<'_>, arcs: &[u64]) -> bool {
    oid.iter().is_some_and(|found| found.eq(arcs.iter().copied()))
}

fn curve(named: Option<Oid<'_>>) -> Result<KeyAlgorithm, PkiError> {
    let Some(oid) = named else {
        return Err(PkiError::KeyAlgorithm { oid: "a curve without a name".to_owned() });
    };
    [(P256, KeyAlgorithm::P256), (P384, KeyAlgorithm::P384), (P521, KeyAlgorithm::P521)]
        .into_iter()
        .find(|(arcs, _)| is(&oid, arcs))
        .map(|(_, algorithm)| algorithm)
        .ok_or_else(|| PkiError::KeyAlgorithm { oid: oid.to_id_string() })
}

/// Judges a PKCS#1 `RSAPublicKey` (RFC 8017, A.1.1).
fn rsa(pkcs1: &[u8]) -> Result<KeyAlgorithm, PkiError> {
    let (_, key) =
        RSAPublicKey::from_der(pkcs1).map_err(|error| PkiError::malformed("RSAPublicKey", error.to_string()))?;
    let modulus = stripped(key.modulus);
    let exponent = stripped(key.exponent);
    let bits = modulus.first().map_or(0, |first| modulus.len() * 8 - first.leading_zeros() as usize);
    let algorithm = match bits {
        2048 => KeyAlgorithm::Rsa2048,
        3072 => KeyAlgorithm::Rsa3072,
        4096 => KeyAlgorithm::Rsa4096,
        bits => return Err(PkiError::KeySize { bits }),
    };
    let at_least_65537 = exponent.len() > 3 || exponent >= &[1, 0, 1][..] && exponent.len() == 3;
    let is_odd = exponent.last().is_some_and(|last| last & 1 == 1);
    if !is_odd || !at_least_65537 || exponent.len() > 32 {
        return Err(PkiError::KeyExponent);
    }
    let canonical = yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_bigint_bytes(modulus, true);
            writer.next().write_bigint_bytes(exponent, true);
        });
    });
    if canonical != pkcs1 {
        return Err(PkiError::malformed("RSAPublicKey", "not in DER"));
    }
    Ok(algorithm)
}

fn stripped(mut number: &[u8]) -> &[u8] {
    while let [0, rest @ ..] = number {
        number = rest;
    }
    number
}
