use std::sync::Arc;

use casemate_hsm_api::{KeyAlgorithm, KeyRole, SignatureScheme as Scheme};
use rustls::{
    SignatureAlgorithm, SignatureScheme,
    pki_types::SubjectPublicKeyInfoDer,
    sign::{Signer, SigningKey},
};

use crate::{Client, KeyRecord, Purpose};

/// The schemes that a TLS server may use with an RSA key, best first. PKCS#1 v1.5 with SHA-256 and SHA-512 are not among them
/// on purpose: the first signs certificates and the second trust lists and files, so that no handshake, however its random
/// bytes are chosen, is a signature of another purpose.
const RSA: [(SignatureScheme, Scheme); 4] = [
    (SignatureScheme::RSA_PSS_SHA256, Scheme::RsaPssSha256),
    (SignatureScheme::RSA_PSS_SHA384, Scheme::RsaPssSha384),
    (SignatureScheme::RSA_PSS_SHA512, Scheme::RsaPssSha512),
    (SignatureScheme::RSA_PKCS1_SHA384, Scheme::RsaPkcs1Sha384),
];

const fn schemes(algorithm: KeyAlgorithm) -> &'static [(SignatureScheme, Scheme)] {
    match algorithm {
        KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => &RSA,
        KeyAlgorithm::P256 => &[(SignatureScheme::ECDSA_NISTP256_SHA256, Scheme::EcdsaP256Sha256)],
        KeyAlgorithm::P384 => &[(SignatureScheme::ECDSA_NISTP384_SHA384, Scheme::EcdsaP384Sha384)],
        KeyAlgorithm::P521 => &[(SignatureScheme::ECDSA_NISTP521_SHA512, Scheme::EcdsaP521Sha512)],
    }
}

/// A TLS server's private key that is in the token.
pub struct TlsKey {
    client: Client,
    record: KeyRecord,
}

impl TlsKey {
    /// The key of `record`.
    #[must_use]
    pub const fn new(client: Client, record: KeyRecord) -> Self {
        Self { client, record }
    }
}

impl std::fmt::Debug for TlsKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TlsKey({} {})", self.record.role, self.record.fingerprint)
    }
}

impl SigningKey for TlsKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let (wire, scheme) = schemes(self.record.algorithm).iter().find(|(wire, _)| offered.contains(wire))?;
        Some(Box::new(HandshakeSigner {
            client: self.client.clone(),
            role: self.record.role,
            fingerprint: self.record.fingerprint.clone(),
            wire: *wire,
            scheme: *scheme,
        }))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match self.record.algorithm.rsa_bits() {
            Some(_) => SignatureAlgorithm::RSA,
            None => SignatureAlgorithm::ECDSA,
        }
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(SubjectPublicKeyInfoDer::from(self.record.spki_der.as_slice()))
    }
}

struct HandshakeSigner {
    client: Client,
    role: KeyRole,
    fingerprint: String,
    wire: SignatureScheme,
    scheme: Scheme,
}

impl std::fmt::Debug for HandshakeSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HandshakeSigner({} {})", self.role, self.scheme)
    }
}

impl Signer for HandshakeSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        self.client
            .sign_named(self.role, &self.fingerprint, self.scheme, Purpose::TlsHandshake, message)
            .map_err(|error| rustls::Error::Other(rustls::OtherError(Arc::new(error))))
    }

    fn scheme(&self) -> SignatureScheme {
        self.wire
    }
}
