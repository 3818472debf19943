//! The judgment of a token's signatures, by the FIPS module. Every part of the product that judges one does it here; only
//! hsm/conformance, which tests the tokens, has a judge of its own.

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};

use crate::{PublicKey, SignatureScheme};

/// The module's verification of a scheme.
#[must_use]
pub fn verification(scheme: SignatureScheme) -> &'static dyn VerificationAlgorithm {
    match scheme {
        SignatureScheme::RsaPkcs1Sha256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        SignatureScheme::RsaPkcs1Sha384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        SignatureScheme::RsaPkcs1Sha512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        SignatureScheme::RsaPssSha256 => &signature::RSA_PSS_2048_8192_SHA256,
        SignatureScheme::RsaPssSha384 => &signature::RSA_PSS_2048_8192_SHA384,
        SignatureScheme::RsaPssSha512 => &signature::RSA_PSS_2048_8192_SHA512,
        SignatureScheme::EcdsaP256Sha256 => &signature::ECDSA_P256_SHA256_ASN1,
        SignatureScheme::EcdsaP384Sha384 => &signature::ECDSA_P384_SHA384_ASN1,
        SignatureScheme::EcdsaP521Sha512 => &signature::ECDSA_P521_SHA512_ASN1,
    }
}

impl PublicKey {
    /// Whether `signature` is one of `message` in `scheme` by this key. Not with a scheme that does not fit the key.
    #[must_use]
    pub fn verifies(&self, scheme: SignatureScheme, message: &[u8], signature: &[u8]) -> bool {
        scheme.fits(self.algorithm)
            && UnparsedPublicKey::new(verification(scheme), &self.spki_der).verify(message, signature).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        encoding::{AsDer, PublicKeyX509Der},
        rand::SystemRandom,
        rsa,
        signature::{
            ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING,
            EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512,
            RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding,
        },
    };

    use super::*;
    use crate::KeyAlgorithm;

    const MESSAGE: &[u8] = b"message";

    fn public(algorithm: KeyAlgorithm, key: &impl AsDer<PublicKeyX509Der<'static>>) -> PublicKey {
        PublicKey { algorithm, spki_der: key.as_der().unwrap().as_ref().to_vec() }
    }

    /// The schemes in which `signature` is one of `public` over [`MESSAGE`]; of no other message is it one in any.
    fn schemes_of(public: &PublicKey, signature: &[u8]) -> Vec<SignatureScheme> {
        let verify = |message: &[u8]| {
            let schemes = SignatureScheme::ALL.into_iter();
            schemes.filter(|scheme| public.verifies(*scheme, message, signature)).collect::<Vec<_>>()
        };
        assert!(verify(b"another").is_empty());
        verify(MESSAGE)
    }

    #[test]
    fn a_signature_verifies_in_its_own_scheme_and_no_other() {
        use SignatureScheme as Scheme;
        let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
        let known = public(KeyAlgorithm::Rsa2048, pair.public_key());
        let encodings: [(&dyn RsaEncoding, Scheme); 6] = [
            (&RSA_PKCS1_SHA256, Scheme::RsaPkcs1Sha256),
            (&RSA_PKCS1_SHA384, Scheme::RsaPkcs1Sha384),
            (&RSA_PKCS1_SHA512, Scheme::RsaPkcs1Sha512),
            (&RSA_PSS_SHA256, Scheme::RsaPssSha256),
            (&RSA_PSS_SHA384, Scheme::RsaPssSha384),
            (&RSA_PSS_SHA512, Scheme::RsaPssSha512),
        ];
        for (encoding, scheme) in encodings {
            let mut signature = vec![0; pair.public_modulus_len()];
            pair.sign(encoding, &SystemRandom::new(), MESSAGE, &mut signature).unwrap();
            assert_eq!(schemes_of(&known, &signature), [scheme]);
        }
        let curves: [(&'static EcdsaSigningAlgorithm, KeyAlgorithm, Scheme); 3] = [
            (&ECDSA_P256_SHA256_ASN1_SIGNING, KeyAlgorithm::P256, Scheme::EcdsaP256Sha256),
            (&ECDSA_P384_SHA384_ASN1_SIGNING, KeyAlgorithm::P384, Scheme::EcdsaP384Sha384),
            (&ECDSA_P521_SHA512_ASN1_SIGNING, KeyAlgorithm::P521, Scheme::EcdsaP521Sha512),
        ];
        for (curve, algorithm, scheme) in curves {
            let pair = EcdsaKeyPair::generate(curve).unwrap();
            let signature = pair.sign(&SystemRandom::new(), MESSAGE).unwrap();
            let known = public(algorithm, pair.public_key());
            assert_eq!(schemes_of(&known, signature.as_ref()), [scheme]);
            let misnamed = PublicKey { algorithm: KeyAlgorithm::Rsa2048, ..known };
            assert!(schemes_of(&misnamed, signature.as_ref()).is_empty(), "it fits no key of another kind");
        }
    }
}
