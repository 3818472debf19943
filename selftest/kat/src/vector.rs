//! What a vector is.

use crate::KatError;

/// Bytes as they are published: hexadecimal text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hex(pub &'static str);

impl Hex {
    pub(crate) fn bytes(self, what: &'static str) -> Result<Vec<u8>, KatError> {
        hex::decode(self.0).map_err(|_| KatError::Vector(what))
    }
}

/// A hash function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hash {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// An elliptic curve of SP 800-186.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Curve {
    /// NIST P-256.
    P256,
    /// NIST P-384.
    P384,
    /// NIST P-521.
    P521,
}

/// A signature scheme that is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// RSASSA-PKCS1-v1_5.
    RsaPkcs1(Hash),
    /// RSASSA-PSS, MGF1 with the same hash, salt as long as the hash.
    RsaPss(Hash),
    /// ECDSA with the hash of the curve's strength (P-256 SHA-256, P-384 SHA-384, P-521 SHA-512), signature in DER.
    Ecdsa(Curve),
}

/// What is given and what must come out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the algorithms' own parameters")]
pub enum Test {
    /// FIPS 180-4.
    Digest { hash: Hash, message: Hex, digest: Hex },
    /// FIPS 198-1.
    Hmac { hash: Hash, key: Hex, message: Hex, tag: Hex },
    /// RFC 5869.
    Hkdf { hash: Hash, salt: Hex, key_material: Hex, info: Hex, output: Hex },
    /// RFC 8018, section 5.2 (SP 800-132), with HMAC of the hash.
    Pbkdf2 { hash: Hash, password: Hex, salt: Hex, iterations: u32, output: Hex },
    /// RFC 5246, section 5: PRF(secret, label, seed).
    Tls12Prf { hash: Hash, secret: Hex, label: &'static str, seed: Hex, output: Hex },
    /// SP 800-38D; the key's length says whether it is AES-128 or AES-256.
    AesGcm { key: Hex, nonce: Hex, aad: Hex, plaintext: Hex, ciphertext: Hex, tag: Hex },
    /// FIPS 186-5. `public_key`: `RSAPublicKey` in DER, or an uncompressed point.
    Verify { scheme: Scheme, public_key: Hex, message: Hex, signature: Hex },
    /// RSASSA-PKCS1-v1_5 generation. `private_key`: PKCS#8 in DER.
    RsaSign { hash: Hash, private_key: Hex, message: Hex, signature: Hex },
    /// SP 800-56A. `private_key`: big-endian, as long as the field; `peer`: uncompressed point.
    Ecdh { curve: Curve, private_key: Hex, peer: Hex, shared: Hex },
}

/// One known answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vector {
    /// Algorithm and direction, unique within [`crate::published`].
    pub name: &'static str,
    /// Where it was published: URL, and which case there.
    pub source: &'static str,
    /// The test.
    pub test: Test,
}
