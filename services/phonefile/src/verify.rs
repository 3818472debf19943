use aws_lc_rs::signature::{
    RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA512,
    RsaParameters, UnparsedPublicKey,
};
use casemate_pki::CertificateFacts;

use crate::{Digest, Modulus, PhoneFileError, Record, SignedFile};

/// A key whose signatures are trusted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SignerKey {
    /// Issuer of its certificate as text.
    pub issuer: String,
    /// Serial number of its certificate.
    pub serial: Vec<u8>,
    /// PKCS#1 `RSAPublicKey`.
    pub public_key: Vec<u8>,
}

impl SignerKey {
    /// The key of a certificate.
    #[must_use]
    pub fn of_certificate(certificate: &CertificateFacts) -> Self {
        Self {
            issuer: certificate.issuer.clone(),
            serial: certificate.serial.clone(),
            public_key: certificate.public_key.clone(),
        }
    }

    pub(crate) fn of(record: &Record) -> Self {
        Self { issuer: record.issuer.clone(), serial: record.serial.clone(), public_key: record.public_key.clone() }
    }
}

/// Whether signatures with SHA-1, and by keys of 1024 bits under SHA-1, are taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sha1 {
    /// They are refused.
    Refused,
    /// They are checked: for reading files of old installations, never for trust.
    LegacyReading,
}

impl SignedFile<'_> {
    /// Checks the signature with the key among `keys` that is the signer's, by serial number and issuer.
    ///
    /// # Errors
    /// [`PhoneFileError::UnknownSigner`], [`PhoneFileError::SchemeNotTrusted`], [`PhoneFileError::BadSignature`].
    pub fn verify(&self, keys: &[SignerKey], sha1: Sha1) -> Result<(), PhoneFileError> {
        let signer = self.signer();
        let key = keys.iter().find(|key| key.serial == signer.serial && key.issuer == signer.issuer);
        let key = key.ok_or_else(|| PhoneFileError::UnknownSigner {
            serial: hex::encode(&signer.serial),
            issuer: signer.issuer.clone(),
        })?;
        let scheme = self.scheme(sha1)?;
        // The module refuses a signature that is not as long as the key's modulus, so the header cannot lie about its size.
        UnparsedPublicKey::new(scheme, &key.public_key)
            .verify(&self.message(), self.signature)
            .map_err(|_| PhoneFileError::BadSignature { file: self.file_name().to_owned() })
    }

    fn scheme(&self, sha1: Sha1) -> Result<&'static RsaParameters, PhoneFileError> {
        match (self.digest, self.modulus, sha1) {
            (Digest::Sha512, Modulus::Bits2048 | Modulus::Bits4096, _) => Ok(&RSA_PKCS1_2048_8192_SHA512),
            (Digest::Sha256, Modulus::Bits2048 | Modulus::Bits4096, _) => Ok(&RSA_PKCS1_2048_8192_SHA256),
            (Digest::Sha1, Modulus::Bits1024 | Modulus::Bits2048 | Modulus::Bits4096, Sha1::LegacyReading) => {
                Ok(&RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY)
            }
            (digest, modulus, _) => {
                Err(PhoneFileError::SchemeNotTrusted { found: format!("RSA-{} and {digest}", modulus.bytes() * 8) })
            }
        }
    }
}
