use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    error::Unspecified,
    rand::SystemRandom,
    rsa,
    signature::{
        self, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair, RsaEncoding, UnparsedPublicKey, VerificationAlgorithm,
    },
};
use casemate_hsm_api::{KeyAlgorithm, PublicKey, SignatureScheme};

/// A private key of the software module.
pub(crate) enum Private {
    Rsa(Box<rsa::KeyPair>),
    Ec(EcdsaKeyPair),
}

impl Private {
    /// Makes a key pair.
    pub(crate) fn generate(algorithm: KeyAlgorithm) -> Result<Self, Unspecified> {
        let rsa = |size| rsa::KeyPair::generate(size).map(|pair| Self::Rsa(Box::new(pair)));
        let ec = |curve: &'static EcdsaSigningAlgorithm| EcdsaKeyPair::generate(curve).map(Self::Ec);
        match algorithm {
            KeyAlgorithm::Rsa2048 => rsa(rsa::KeySize::Rsa2048),
            KeyAlgorithm::Rsa3072 => rsa(rsa::KeySize::Rsa3072),
            KeyAlgorithm::Rsa4096 => rsa(rsa::KeySize::Rsa4096),
            KeyAlgorithm::P256 => ec(&signature::ECDSA_P256_SHA256_ASN1_SIGNING),
            KeyAlgorithm::P384 => ec(&signature::ECDSA_P384_SHA384_ASN1_SIGNING),
            KeyAlgorithm::P521 => ec(&signature::ECDSA_P521_SHA512_ASN1_SIGNING),
        }
    }

    pub(crate) fn public(&self, algorithm: KeyAlgorithm) -> Result<PublicKey, Unspecified> {
        let spki: PublicKeyX509Der<'_> = match self {
            Self::Rsa(pair) => pair.public_key().as_der()?,
            Self::Ec(pair) => pair.public_key().as_der()?,
        };
        Ok(PublicKey { algorithm, spki_der: spki.as_ref().to_vec() })
    }

    /// Signs; an elliptic-curve key knows its one scheme.
    pub(crate) fn sign(&self, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, Unspecified> {
        let rng = SystemRandom::new();
        match (self, encoding(scheme)) {
            (Self::Rsa(pair), Some(encoding)) => {
                let mut out = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &rng, message, &mut out)?;
                Ok(out)
            }
            (Self::Ec(pair), None) => Ok(pair.sign(&rng, message)?.as_ref().to_vec()),
            _ => Err(Unspecified),
        }
    }
}

const fn encoding(scheme: SignatureScheme) -> Option<&'static dyn RsaEncoding> {
    match scheme {
        SignatureScheme::RsaPkcs1Sha256 => Some(&signature::RSA_PKCS1_SHA256),
        SignatureScheme::RsaPkcs1Sha384 => Some(&signature::RSA_PKCS1_SHA384),
        SignatureScheme::RsaPkcs1Sha512 => Some(&signature::RSA_PKCS1_SHA512),
        SignatureScheme::RsaPssSha256 => Some(&signature::RSA_PSS_SHA256),
        SignatureScheme::RsaPssSha384 => Some(&signature::RSA_PSS_SHA384),
        SignatureScheme::RsaPssSha512 => Some(&signature::RSA_PSS_SHA512),
        SignatureScheme::EcdsaP256Sha256 | SignatureScheme::EcdsaP384Sha384 | SignatureScheme::EcdsaP521Sha512 => None,
    }
}

/// The pairwise test's scheme for a key, and its verification.
pub(crate) fn pairwise(algorithm: KeyAlgorithm) -> (SignatureScheme, &'static dyn VerificationAlgorithm) {
    match algorithm {
        KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => {
            (SignatureScheme::RsaPkcs1Sha256, &signature::RSA_PKCS1_2048_8192_SHA256)
        }
        KeyAlgorithm::P256 => (SignatureScheme::EcdsaP256Sha256, &signature::ECDSA_P256_SHA256_ASN1),
        KeyAlgorithm::P384 => (SignatureScheme::EcdsaP384Sha384, &signature::ECDSA_P384_SHA384_ASN1),
        KeyAlgorithm::P521 => (SignatureScheme::EcdsaP521Sha512, &signature::ECDSA_P521_SHA512_ASN1),
    }
}

/// Whether the halves fit, judged by one signature.
pub(crate) fn verifies(public: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
    let (_, verification) = pairwise(public.algorithm);
    UnparsedPublicKey::new(verification, &public.spki_der).verify(message, signature).is_ok()
}
