use aws_lc_rs::agreement::{self, ECDH_P256, ECDH_P384, ECDH_P521, PrivateKey, UnparsedPublicKey};

use super::expect;
use crate::{Curve, Hex, KatError};

pub(crate) fn ecdh(curve: Curve, private_key: Hex, peer: Hex, shared: Hex) -> Result<(), KatError> {
    let algorithm = match curve {
        Curve::P256 => &ECDH_P256,
        Curve::P384 => &ECDH_P384,
        Curve::P521 => &ECDH_P521,
    };
    let private_key = PrivateKey::from_private_key(algorithm, &private_key.bytes("private key")?)
        .map_err(|_| KatError::Refused("private key"))?;
    let peer = UnparsedPublicKey::new(algorithm, peer.bytes("peer")?);
    let published = shared.bytes("shared")?;
    agreement::agree(&private_key, peer, KatError::Refused("peer key"), |answer| expect(answer, &published))
}
