use aws_lc_rs::{
    rand::SystemRandom,
    rsa,
    signature::{
        self, ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ECDSA_P521_SHA512_ASN1, RsaEncoding, UnparsedPublicKey,
        VerificationAlgorithm,
    },
};

use super::{expect, forged};
use crate::{Curve, Hash, Hex, KatError, Scheme};

fn algorithm(scheme: Scheme) -> &'static dyn VerificationAlgorithm {
    match scheme {
        Scheme::RsaPkcs1(Hash::Sha256) => &signature::RSA_PKCS1_2048_8192_SHA256,
        Scheme::RsaPkcs1(Hash::Sha384) => &signature::RSA_PKCS1_2048_8192_SHA384,
        Scheme::RsaPkcs1(Hash::Sha512) => &signature::RSA_PKCS1_2048_8192_SHA512,
        Scheme::RsaPss(Hash::Sha256) => &signature::RSA_PSS_2048_8192_SHA256,
        Scheme::RsaPss(Hash::Sha384) => &signature::RSA_PSS_2048_8192_SHA384,
        Scheme::RsaPss(Hash::Sha512) => &signature::RSA_PSS_2048_8192_SHA512,
        Scheme::Ecdsa(Curve::P256) => &ECDSA_P256_SHA256_ASN1,
        Scheme::Ecdsa(Curve::P384) => &ECDSA_P384_SHA384_ASN1,
        Scheme::Ecdsa(Curve::P521) => &ECDSA_P521_SHA512_ASN1,
    }
}

pub(crate) fn verify(scheme: Scheme, public_key: Hex, message: Hex, signature: Hex) -> Result<(), KatError> {
    let key = UnparsedPublicKey::new(algorithm(scheme), public_key.bytes("public key")?);
    let message = message.bytes("message")?;
    let signature = signature.bytes("signature")?;
    key.verify(&message, &signature).map_err(|_| KatError::Refused("signature"))?;
    match key.verify(&forged(&message), &signature) {
        Ok(()) => Err(KatError::ForgeryAccepted("message")),
        Err(_) => Ok(()),
    }
}

pub(crate) fn rsa_sign(hash: Hash, private_key: Hex, message: Hex, signature: Hex) -> Result<(), KatError> {
    let encoding: &'static dyn RsaEncoding = match hash {
        Hash::Sha256 => &signature::RSA_PKCS1_SHA256,
        Hash::Sha384 => &signature::RSA_PKCS1_SHA384,
        Hash::Sha512 => &signature::RSA_PKCS1_SHA512,
    };
    let key =
        rsa::KeyPair::from_pkcs8(&private_key.bytes("private key")?).map_err(|_| KatError::Refused("private key"))?;
    let mut answer = vec![0; key.public_modulus_len()];
    key.sign(encoding, &SystemRandom::new(), &message.bytes("message")?, &mut answer)
        .map_err(|_| KatError::Refused("message"))?;
    expect(&answer, &signature.bytes("signature")?)
}
