use std::fmt;

use aws_lc_rs::{
    cipher::{AES_128, EncryptingKey, EncryptionContext, UnboundCipherKey},
    constant_time, hmac,
    iv::FixedLength,
    kdf::{KbkdfCtrHmacAlgorithmId, get_kbkdf_ctr_hmac_algorithm, kbkdf_ctr_hmac},
    rand,
    rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey},
};
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use serde::{Deserialize, Deserializer, Serialize};
use webpki::{EndEntityCert, KeyUsage, aws_lc_rs as algorithms};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};
use zeroize::Zeroizing;

use crate::{AttestError, PublicArea};

/// tcg-kp-EKCertificate, 2.23.133.8.1 (TCG EK Credential Profile 2.5, 3.2.16), as DER content.
const EK_CERTIFICATE: &[u8] = &[0x67, 0x81, 0x05, 0x08, 0x01];

/// Bytes of a challenge's secret.
const SECRET: usize = 32;

/// An attestation key and the certificate of the TPM that it is said to be in. Proves nothing by itself.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AttestationKey {
    /// The maker's certificate of the RSA-2048 endorsement key (template L-1 of the TCG EK Credential Profile), DER.
    #[serde(with = "hex::serde")]
    pub endorsement_certificate: Vec<u8>,
    /// Certificates that the maker left in the TPM beside it, DER: the way from the maker's certificate to this one, or a part of it.
    #[serde(with = "list")]
    pub intermediates: Vec<Vec<u8>>,
    /// `TPMT_PUBLIC` of the attestation key.
    #[serde(with = "hex::serde")]
    pub public: Vec<u8>,
}

impl AttestationKey {
    /// The most certificates that count beside the endorsement certificate.
    pub const MOST_INTERMEDIATES: usize = 8;

    /// The longest of them that counts, in bytes.
    pub const LONGEST_INTERMEDIATE: usize = 4096;

    /// The certificates beside the endorsement certificate, if they are no more and no longer than they may be.
    fn intermediates(&self) -> Result<impl Iterator<Item = CertificateDer<'_>>, AttestError> {
        let all = &self.intermediates;
        let fits = all.iter().all(|certificate| certificate.len() <= Self::LONGEST_INTERMEDIATE);
        if !fits || all.len() > Self::MOST_INTERMEDIATES {
            return Err(AttestError::Malformed { what: "the list of certificates beside the endorsement certificate" });
        }
        Ok(all.iter().map(|certificate| CertificateDer::from(certificate.as_slice())))
    }
}

/// What only the TPM with both keys can open.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Challenge {
    /// Content of a `TPM2B_ID_OBJECT`.
    #[serde(with = "hex::serde")]
    pub credential: Vec<u8>,
    /// Content of a `TPM2B_ENCRYPTED_SECRET`.
    #[serde(with = "hex::serde")]
    pub secret: Vec<u8>,
}

/// What the TPM with both keys found in a challenge.
#[derive(Clone, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Answer {
    /// The challenge's secret, which proves something to its maker alone.
    #[serde(serialize_with = "hex::serde::serialize", deserialize_with = "secret")]
    pub secret: Zeroizing<Vec<u8>>,
}

/// Rows of bytes as rows of hexadecimal digits.
mod list {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(rows: &[Vec<u8>], into: S) -> Result<S::Ok, S::Error> {
        rows.iter().map(hex::encode).collect::<Vec<_>>().serialize(into)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Vec<u8>>, D::Error> {
        let rows = Vec::<String>::deserialize(from)?;
        rows.iter().map(|row| hex::decode(row).map_err(D::Error::custom)).collect()
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answer(..)")
    }
}

/// The auditor's side of a challenge. It is not to leave his machine.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Expected {
    #[serde(serialize_with = "hex::serde::serialize", deserialize_with = "secret")]
    secret: Zeroizing<Vec<u8>>,
    enrolled: Enrolled,
}

fn secret<'de, D: Deserializer<'de>>(from: D) -> Result<Zeroizing<Vec<u8>>, D::Error> {
    hex::serde::deserialize::<_, Vec<u8>>(from).map(Zeroizing::new)
}

impl fmt::Debug for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Expected(..)")
    }
}

/// An attestation key that answered a challenge: the auditor keeps this, and believes nothing else.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Enrolled {
    /// Name of the attestation key.
    #[serde(with = "hex::serde")]
    pub(crate) name: Vec<u8>,
    /// The endorsement certificate that it answered for, DER.
    #[serde(with = "hex::serde")]
    pub(crate) endorsement_certificate: Vec<u8>,
}

impl Enrolled {
    /// The endorsement certificate for which the attestation key answered, DER.
    #[must_use]
    pub fn endorsement_certificate(&self) -> &[u8] {
        &self.endorsement_certificate
    }
}

impl Expected {
    /// Enrols the attestation key if `answer` is the challenge's secret.
    ///
    /// # Errors
    /// [`AttestError::WrongAnswer`].
    pub fn enrol(self, answer: &[u8]) -> Result<Enrolled, AttestError> {
        if self.secret.len() != SECRET {
            return Err(AttestError::Malformed { what: "what was kept of the challenge" });
        }
        constant_time::verify_slices_are_equal(&self.secret, answer).map_err(|_| AttestError::WrongAnswer)?;
        Ok(self.enrolled)
    }
}

/// Makes a challenge for `key`: `TPM2_MakeCredential` without a TPM (TPM 2.0 part 1, 24). The endorsement certificate must chain to
/// one of the makers' certificates in `makers` at the time `now`, over `intermediates` and those that came with the key where there are
/// any.
///
/// # Errors
/// [`AttestError::Certificate`], and what makes the attestation key none.
pub fn challenge(
    key: &AttestationKey,
    makers: &[CertificateDer<'_>],
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
) -> Result<(Challenge, Expected), AttestError> {
    let area = PublicArea::parse(&key.public)?;
    if let Some(detail) = area.not_attesting() {
        return Err(AttestError::NoAttestationKey { detail });
    }
    let intermediates: Vec<_> = intermediates.iter().cloned().chain(key.intermediates()?).collect();
    let spki = endorsement_key(&key.endorsement_certificate, makers, &intermediates, now)?;
    let mut secret = Zeroizing::new(vec![0; SECRET]);
    rand::fill(&mut secret).map_err(|_| AttestError::Module { operation: "random bytes" })?;
    let challenge = make_credential(&spki, &secret, area.name())?;
    let enrolled =
        Enrolled { name: area.name().to_vec(), endorsement_certificate: key.endorsement_certificate.clone() };
    Ok((challenge, Expected { secret, enrolled }))
}

/// The `SubjectPublicKeyInfo` of an endorsement certificate that a maker issued.
fn endorsement_key(
    certificate: &[u8],
    makers: &[CertificateDer<'_>],
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
) -> Result<Vec<u8>, AttestError> {
    let refused = |error: webpki::Error| AttestError::Certificate { detail: error.to_string() };
    let der = CertificateDer::from(certificate);
    let certificate = EndEntityCert::try_from(&der).map_err(refused)?;
    let anchors: Vec<TrustAnchor<'_>> =
        makers.iter().map(webpki::anchor_from_trusted_cert).collect::<Result<_, _>>().map_err(refused)?;
    if !is_for_an_endorsement_key(&der) {
        let detail = "it is not a certificate of an endorsement key by its extended key usage".to_owned();
        return Err(AttestError::Certificate { detail });
    }
    // An authority between need not name a usage (RFC 5280, 4.2.1.12); one that does is limited to it.
    let usage = KeyUsage::required_if_present(EK_CERTIFICATE);
    certificate
        .verify_for_usage(
            &[
                algorithms::RSA_PKCS1_2048_8192_SHA256,
                algorithms::RSA_PKCS1_2048_8192_SHA384,
                algorithms::RSA_PKCS1_2048_8192_SHA512,
                algorithms::ECDSA_P256_SHA256,
                algorithms::ECDSA_P384_SHA384,
            ],
            &anchors,
            intermediates,
            now,
            usage,
            None,
            None,
        )
        .map_err(refused)?;
    Ok(certificate.subject_public_key_info().to_vec())
}

/// Whether the certificate itself names the usage that the profile wants.
fn is_for_an_endorsement_key(certificate: &[u8]) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return false };
    let usage = certificate.extended_key_usage().ok().flatten();
    usage.is_some_and(|usage| usage.value.other.iter().any(|purpose| purpose.as_bytes() == EK_CERTIFICATE))
}

fn make_credential(endorsement: &[u8], secret: &[u8], name: &[u8]) -> Result<Challenge, AttestError> {
    let failed = |operation| move |_| AttestError::Module { operation };
    let key = PublicEncryptingKey::from_der(endorsement)
        .ok()
        .and_then(|key| OaepPublicEncryptingKey::new(key).ok())
        .ok_or(AttestError::Unsupported { what: "the endorsement key" })?;
    let mut seed = Zeroizing::new([0; 32]);
    rand::fill(&mut *seed).map_err(failed("random bytes"))?;
    let mut encrypted = vec![0; key.ciphertext_size()];
    key.encrypt(&OAEP_SHA256_MGF1SHA256, &*seed, &mut encrypted, Some(b"IDENTITY\0")).map_err(failed("RSA-OAEP"))?;
    let storage: [u8; 16] = derive(&seed, b"STORAGE\0", name)?;
    let integrity: [u8; 32] = derive(&seed, b"INTEGRITY\0", &[])?;
    let length = u16::try_from(secret.len()).map_err(|_| AttestError::Malformed { what: "the secret" })?;
    let mut identity = [&length.to_be_bytes(), secret].concat();
    UnboundCipherKey::new(&AES_128, &storage)
        .and_then(EncryptingKey::cfb128)
        .and_then(|key| key.less_safe_encrypt(&mut identity, EncryptionContext::Iv128(FixedLength::from([0; 16]))))
        .map_err(failed("AES-128-CFB"))?;
    let mut tag = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &integrity));
    tag.update(&identity);
    tag.update(name);
    let credential = [&32_u16.to_be_bytes(), tag.sign().as_ref(), &identity].concat();
    Ok(Challenge { credential, secret: encrypted })
}

/// KDFa with HMAC-SHA256 (TPM 2.0 part 1, 11.4.10.2), the counter mode of SP 800-108; the label ends in its zero.
fn derive<const N: usize>(seed: &[u8; 32], label: &[u8], context: &[u8]) -> Result<[u8; N], AttestError> {
    let failed = AttestError::Module { operation: "KDFa" };
    let Some(algorithm) = get_kbkdf_ctr_hmac_algorithm(KbkdfCtrHmacAlgorithmId::Sha256) else { return Err(failed) };
    let Ok(bits) = u32::try_from(N * 8) else { return Err(failed) };
    let info = [label, context, &bits.to_be_bytes()].concat();
    let mut out = [0; N];
    kbkdf_ctr_hmac(algorithm, seed, &info, &mut out).map_err(|_| failed)?;
    Ok(out)
}
