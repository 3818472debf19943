use aws_lc_rs::{digest as module, hmac as hmac_module};

use super::expect;
use crate::{Hash, Hex, KatError};

pub(crate) fn digest(hash: Hash, message: Hex, digest: Hex) -> Result<(), KatError> {
    let algorithm = match hash {
        Hash::Sha256 => &module::SHA256,
        Hash::Sha384 => &module::SHA384,
        Hash::Sha512 => &module::SHA512,
    };
    let answer = module::digest(algorithm, &message.bytes("message")?);
    expect(answer.as_ref(), &digest.bytes("digest")?)
}

pub(crate) fn hmac(hash: Hash, key: Hex, message: Hex, tag: Hex) -> Result<(), KatError> {
    let algorithm = match hash {
        Hash::Sha256 => hmac_module::HMAC_SHA256,
        Hash::Sha384 => hmac_module::HMAC_SHA384,
        Hash::Sha512 => hmac_module::HMAC_SHA512,
    };
    let key = hmac_module::Key::new(algorithm, &key.bytes("key")?);
    let answer = hmac_module::sign(&key, &message.bytes("message")?);
    expect(answer.as_ref(), &tag.bytes("tag")?)
}
