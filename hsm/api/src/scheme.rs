use std::fmt;

use serde::{Deserialize, Serialize};

use crate::KeyAlgorithm;

/// A hash function of FIPS 180-4.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Hash {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// How a digest becomes the number that the private key works on.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Padding {
    /// RSASSA-PKCS1-v1_5 (RFC 8017, 8.2).
    RsaPkcs1,
    /// RSASSA-PSS with MGF1 of the same hash and a salt of the hash's length (RFC 8017, 8.1).
    RsaPss,
    /// ECDSA (FIPS 186-5, 6), the signature as a DER `SEQUENCE` of r and s (RFC 3279, 2.2.3).
    Ecdsa,
}

/// A signature algorithm with all its parameters, so that no two sides can disagree on one.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // the names say it: padding or curve, then hash
pub enum SignatureScheme {
    RsaPkcs1Sha256,
    RsaPkcs1Sha384,
    RsaPkcs1Sha512,
    RsaPssSha256,
    RsaPssSha384,
    RsaPssSha512,
    EcdsaP256Sha256,
    EcdsaP384Sha384,
    EcdsaP521Sha512,
}

impl SignatureScheme {
    /// Every scheme.
    pub const ALL: [Self; 9] = [
        Self::RsaPkcs1Sha256,
        Self::RsaPkcs1Sha384,
        Self::RsaPkcs1Sha512,
        Self::RsaPssSha256,
        Self::RsaPssSha384,
        Self::RsaPssSha512,
        Self::EcdsaP256Sha256,
        Self::EcdsaP384Sha384,
        Self::EcdsaP521Sha512,
    ];

    /// The hash over the message.
    #[must_use]
    pub const fn hash(self) -> Hash {
        match self {
            Self::RsaPkcs1Sha256 | Self::RsaPssSha256 | Self::EcdsaP256Sha256 => Hash::Sha256,
            Self::RsaPkcs1Sha384 | Self::RsaPssSha384 | Self::EcdsaP384Sha384 => Hash::Sha384,
            Self::RsaPkcs1Sha512 | Self::RsaPssSha512 | Self::EcdsaP521Sha512 => Hash::Sha512,
        }
    }

    /// What is done with the hash.
    #[must_use]
    pub const fn padding(self) -> Padding {
        match self {
            Self::RsaPkcs1Sha256 | Self::RsaPkcs1Sha384 | Self::RsaPkcs1Sha512 => Padding::RsaPkcs1,
            Self::RsaPssSha256 | Self::RsaPssSha384 | Self::RsaPssSha512 => Padding::RsaPss,
            Self::EcdsaP256Sha256 | Self::EcdsaP384Sha384 | Self::EcdsaP521Sha512 => Padding::Ecdsa,
        }
    }

    /// Whether a key of `algorithm` can sign so. An elliptic-curve key has exactly one scheme.
    #[must_use]
    pub const fn fits(self, algorithm: KeyAlgorithm) -> bool {
        match algorithm {
            KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => {
                !matches!(self.padding(), Padding::Ecdsa)
            }
            KeyAlgorithm::P256 => matches!(self, Self::EcdsaP256Sha256),
            KeyAlgorithm::P384 => matches!(self, Self::EcdsaP384Sha384),
            KeyAlgorithm::P521 => matches!(self, Self::EcdsaP521Sha512),
        }
    }
}

impl fmt::Display for SignatureScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let padding = match self.padding() {
            Padding::RsaPkcs1 => "RSA PKCS#1 v1.5",
            Padding::RsaPss => "RSA PSS",
            Padding::Ecdsa => "ECDSA",
        };
        let hash = match self.hash() {
            Hash::Sha256 => "SHA-256",
            Hash::Sha384 => "SHA-384",
            Hash::Sha512 => "SHA-512",
        };
        write!(f, "{padding} with {hash}")
    }
}
