use aws_lc_rs::{
    digest,
    encoding::{AsDer, PublicKeyX509Der},
    signature::{ParsedPublicKey, RsaPublicKeyComponents},
};
use casemate_hsm_api::{KeyAlgorithm, PublicKey, SignatureScheme, verification};

use crate::{AttestError, read::Reader};

/// F4, which a TPM writes as zero (TPM 2.0 part 2, 12.2.3.5); no other exponent is made or taken.
const EXPONENT: [u8; 3] = [1, 0, 1];

// TPM_ALG_ID (TPM 2.0 part 2, 6.3).
const RSA: u16 = 0x0001;
const SHA256: u16 = 0x000b;
const NULL: u16 = 0x0010;
const ECC: u16 = 0x0023;

/// `TPMA_OBJECT` (TPM 2.0 part 2, 8.3).
const FIXED_TPM: u32 = 1 << 1;
const FIXED_PARENT: u32 = 1 << 4;
const SENSITIVE_DATA_ORIGIN: u32 = 1 << 5;
const RESTRICTED: u32 = 1 << 16;
const DECRYPT: u32 = 1 << 17;
const SIGN: u32 = 1 << 18;

/// A key's `TPMT_PUBLIC` (TPM 2.0 part 2, 12.2.4), RSA or on a curve, with a name of SHA-256:
/// ```text
/// type u16 | nameAlg u16 | objectAttributes u32 | authPolicy TPM2B | parameters | unique
/// RSA: symmetric, scheme, keyBits u16, exponent u32 | n TPM2B
/// ECC: symmetric, scheme, curve u16, kdf            | x TPM2B, y TPM2B
/// ```
/// A symmetric algorithm, scheme or KDF is `TPM_ALG_NULL`, or an algorithm with what it needs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PublicArea {
    attributes: u32,
    name: Vec<u8>,
    key: PublicKey,
}

impl PublicArea {
    /// Reads one that fills `bytes`. A point is refused unless it lies on its curve, a modulus unless it has its full length.
    ///
    /// # Errors
    /// [`AttestError::Malformed`] and [`AttestError::Unsupported`].
    pub fn parse(bytes: &[u8]) -> Result<Self, AttestError> {
        let mut reader = Reader::new(bytes, "the public area");
        let kind = reader.u16()?;
        if reader.u16()? != SHA256 {
            return Err(reader.unsupported());
        }
        let attributes = reader.u32()?;
        reader.sized()?;
        // Symmetric algorithm: key size and mode.
        skip(&mut reader, 4)?;
        // Scheme: its hash.
        skip(&mut reader, 2)?;
        let key = match kind {
            RSA => {
                let (bits, exponent) = (reader.u16()?, reader.u32()?);
                rsa(bits, exponent, reader.sized()?)
            }
            ECC => {
                let curve = reader.u16()?;
                skip(&mut reader, 2)?;
                let x = reader.sized()?;
                ec(curve, x, reader.sized()?)
            }
            _ => None,
        };
        let key = key.ok_or(reader.unsupported())?;
        reader.end()?;
        let name = [&[0, 0x0b], digest::digest(&digest::SHA256, bytes).as_ref()].concat();
        Ok(Self { attributes, name, key })
    }

    /// The key.
    #[must_use]
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The TPM's name of the key: hash algorithm, and the hash of the public area (TPM 2.0 part 1, 16).
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Which attribute is missing for a key that its TPM made and that stays there.
    pub(crate) fn not_bound(&self) -> Option<&'static str> {
        [
            (FIXED_TPM, "fixedTPM is clear: it may be duplicated"),
            (FIXED_PARENT, "fixedParent is clear: it may be moved"),
            (SENSITIVE_DATA_ORIGIN, "sensitiveDataOrigin is clear: it was made elsewhere"),
        ]
        .into_iter()
        .find_map(|(attribute, missing)| (self.attributes & attribute == 0).then_some(missing))
    }

    /// Which attribute is missing for an attestation key: one that signs nothing but what its TPM says.
    pub(crate) fn not_attesting(&self) -> Option<&'static str> {
        if self.attributes & RESTRICTED == 0 {
            return Some("restricted is clear: it signs anything");
        }
        if self.attributes & SIGN == 0 || self.attributes & DECRYPT != 0 {
            return Some("it is no signing key");
        }
        self.not_bound()
    }
}

/// Reads an algorithm and, unless it is `TPM_ALG_NULL`, as many bytes as go with it.
fn skip(reader: &mut Reader<'_>, length: usize) -> Result<(), AttestError> {
    if reader.u16()? == NULL { Ok(()) } else { reader.take(length).map(drop) }
}

fn rsa(bits: u16, exponent: u32, modulus: &[u8]) -> Option<PublicKey> {
    let algorithm = KeyAlgorithm::ALL.into_iter().find(|algorithm| algorithm.rsa_bits() == Some(bits))?;
    let whole = modulus.first()? & 0x80 != 0 && usize::from(bits) == modulus.len() * 8;
    if !whole || !matches!(exponent, 0 | 65537) {
        return None;
    }
    let spki: PublicKeyX509Der<'_> = RsaPublicKeyComponents { n: modulus, e: &EXPONENT }.as_der().ok()?;
    Some(PublicKey { algorithm, spki_der: spki.as_ref().to_vec() })
}

fn ec(curve: u16, x: &[u8], y: &[u8]) -> Option<PublicKey> {
    // TPM_ECC_CURVE (TPM 2.0 part 2, 6.4).
    let (algorithm, scheme, length) = match curve {
        3 => (KeyAlgorithm::P256, SignatureScheme::EcdsaP256Sha256, 32),
        4 => (KeyAlgorithm::P384, SignatureScheme::EcdsaP384Sha384, 48),
        5 => (KeyAlgorithm::P521, SignatureScheme::EcdsaP521Sha512, 66),
        _ => return None,
    };
    // Uncompressed (SEC 1, 2.3.3). Some TPMs leave leading zeros of a coordinate away.
    let point = [&[4], padded(x, length)?.as_slice(), padded(y, length)?.as_slice()].concat();
    let parsed = ParsedPublicKey::new(verification(scheme), &point).ok()?;
    let spki: PublicKeyX509Der<'_> = parsed.as_der().ok()?;
    Some(PublicKey { algorithm, spki_der: spki.as_ref().to_vec() })
}

fn padded(number: &[u8], length: usize) -> Option<Vec<u8>> {
    let zeros = length.checked_sub(number.len())?;
    Some([vec![0; zeros].as_slice(), number].concat())
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_point_becomes_the_key_that_it_came_from_even_without_its_zeros() {
        let mut short = 0;
        for _ in 0..2_000 {
            let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
            let spki: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
            let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
            let zeros = x.iter().take_while(|byte| **byte == 0).count();
            short += usize::from(zeros > 0);
            assert_eq!(ec(3, &x[zeros..], y).unwrap().spki_der, spki.as_ref());
            assert!(ec(3, y, x).is_none(), "off the curve");
        }
        assert!(short > 0, "one in 256 begins with a zero");
    }

    #[test]
    fn a_modulus_has_its_full_length_and_the_one_exponent() {
        let modulus = [0xff; 256];
        assert!(rsa(2048, 0, &modulus).is_some());
        assert!(rsa(2048, 3, &modulus).is_none());
        assert!(rsa(2048, 0, &modulus[1..]).is_none());
        assert!(rsa(3072, 0, &modulus).is_none());
        assert!(rsa(1024, 0, &modulus[128..]).is_none());
        assert!(rsa(2048, 0, &[0x7f; 256]).is_none(), "2047 bits");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), kind in prop::sample::select(vec![RSA, ECC])) {
            let _ = PublicArea::parse(&bytes);
            let head = [kind.to_be_bytes(), SHA256.to_be_bytes()].concat();
            let _ = PublicArea::parse(&[head, bytes].concat());
        }
    }
}
