//! Runs vectors.

use std::time::{Duration, Instant};

use crate::{KatError, Test, Vector, check};

/// How one vector ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// The vector's name.
    pub name: &'static str,
    /// The vector's source.
    pub source: &'static str,
    /// How long the test took.
    pub elapsed: Duration,
    /// Nothing, or why it failed.
    pub result: Result<(), KatError>,
}

/// Runs every vector, in order, and goes on after a failure, so that the report names all that is broken.
#[must_use]
pub fn run(vectors: &[Vector]) -> Vec<Outcome> {
    vectors.iter().map(run_one).collect()
}

fn run_one(vector: &Vector) -> Outcome {
    let start = Instant::now();
    let result = match vector.test {
        Test::Digest { hash, message, digest } => check::digest(hash, message, digest),
        Test::Hmac { hash, key, message, tag } => check::hmac(hash, key, message, tag),
        Test::Hkdf { hash, salt, key_material, info, output } => check::hkdf(hash, salt, key_material, info, output),
        Test::Pbkdf2 { hash, password, salt, iterations, output } => {
            check::pbkdf2(hash, password, salt, iterations, output)
        }
        Test::Tls12Prf { hash, secret, label, seed, output } => check::tls12_prf(hash, secret, label, seed, output),
        Test::AesGcm { key, nonce, aad, plaintext, ciphertext, tag } => {
            check::aes_gcm(&check::AesGcm { key, nonce, aad, plaintext, ciphertext, tag })
        }
        Test::Verify { scheme, public_key, message, signature } => {
            check::verify(scheme, public_key, message, signature)
        }
        Test::RsaSign { hash, private_key, message, signature } => {
            check::rsa_sign(hash, private_key, message, signature)
        }
        Test::Ecdh { curve, private_key, peer, shared } => check::ecdh(curve, private_key, peer, shared),
    };
    Outcome { name: vector.name, source: vector.source, elapsed: start.elapsed(), result }
}
