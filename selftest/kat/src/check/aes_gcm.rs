use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::{expect, forged};
use crate::{Hex, KatError};

/// A case, as in [`crate::Test::AesGcm`].
pub(crate) struct AesGcm {
    pub(crate) key: Hex,
    pub(crate) nonce: Hex,
    pub(crate) aad: Hex,
    pub(crate) plaintext: Hex,
    pub(crate) ciphertext: Hex,
    pub(crate) tag: Hex,
}

pub(crate) fn aes_gcm(case: &AesGcm) -> Result<(), KatError> {
    let key = case.key.bytes("key")?;
    let algorithm = match key.len() {
        16 => &AES_128_GCM,
        32 => &AES_256_GCM,
        _ => return Err(KatError::Vector("key")),
    };
    let key = LessSafeKey::new(UnboundKey::new(algorithm, &key).map_err(|_| KatError::Refused("key"))?);
    let nonce: [u8; NONCE_LEN] = case.nonce.bytes("nonce")?.try_into().map_err(|_| KatError::Vector("nonce"))?;
    let nonce = || Nonce::assume_unique_for_key(nonce);
    let aad = case.aad.bytes("aad")?;
    let plaintext = case.plaintext.bytes("plaintext")?;
    let sealed = [case.ciphertext.bytes("ciphertext")?, case.tag.bytes("tag")?].concat();

    let mut buffer = plaintext.clone();
    key.seal_in_place_append_tag(nonce(), Aad::from(&aad), &mut buffer).map_err(|_| KatError::Refused("plaintext"))?;
    expect(&buffer, &sealed)?;
    let opened =
        key.open_in_place(nonce(), Aad::from(&aad), &mut buffer).map_err(|_| KatError::Refused("ciphertext"))?;
    expect(opened, &plaintext)?;
    match key.open_in_place(nonce(), Aad::from(&aad), &mut forged(&sealed)) {
        Ok(_) => Err(KatError::ForgeryAccepted("tag")),
        Err(_) => Ok(()),
    }
}
