use std::num::NonZeroU32;

use aws_lc_rs::{hkdf as module, pbkdf2 as pbkdf2_module, tls_prf};

use super::expect;
use crate::{Hash, Hex, KatError};

struct Length(usize);

impl module::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

pub(crate) fn hkdf(hash: Hash, salt: Hex, key_material: Hex, info: Hex, output: Hex) -> Result<(), KatError> {
    let algorithm = match hash {
        Hash::Sha256 => module::HKDF_SHA256,
        Hash::Sha384 => module::HKDF_SHA384,
        Hash::Sha512 => module::HKDF_SHA512,
    };
    let published = output.bytes("output")?;
    let key = module::Salt::new(algorithm, &salt.bytes("salt")?).extract(&key_material.bytes("key material")?);
    let info = info.bytes("info")?;
    let mut answer = vec![0; published.len()];
    key.expand(&[&info], Length(published.len()))
        .and_then(|material| material.fill(&mut answer))
        .map_err(|_| KatError::Refused("derivation"))?;
    expect(&answer, &published)
}

pub(crate) fn pbkdf2(hash: Hash, password: Hex, salt: Hex, iterations: u32, output: Hex) -> Result<(), KatError> {
    let algorithm = match hash {
        Hash::Sha256 => pbkdf2_module::PBKDF2_HMAC_SHA256,
        Hash::Sha384 => pbkdf2_module::PBKDF2_HMAC_SHA384,
        Hash::Sha512 => pbkdf2_module::PBKDF2_HMAC_SHA512,
    };
    let iterations = NonZeroU32::new(iterations).ok_or(KatError::Vector("iterations"))?;
    let published = output.bytes("output")?;
    let mut answer = vec![0; published.len()];
    pbkdf2_module::derive(algorithm, iterations, &salt.bytes("salt")?, &password.bytes("password")?, &mut answer);
    expect(&answer, &published)
}

pub(crate) fn tls12_prf(hash: Hash, secret: Hex, label: &str, seed: Hex, output: Hex) -> Result<(), KatError> {
    let algorithm = match hash {
        Hash::Sha256 => &tls_prf::P_SHA256,
        Hash::Sha384 => &tls_prf::P_SHA384,
        Hash::Sha512 => &tls_prf::P_SHA512,
    };
    let published = output.bytes("output")?;
    let seed = seed.bytes("seed")?;
    let answer = tls_prf::Secret::new(algorithm, &secret.bytes("secret")?)
        .and_then(|secret| secret.derive(label.as_bytes(), &seed, published.len()))
        .map_err(|_| KatError::Refused("derivation"))?;
    expect(answer.as_ref(), &published)
}
