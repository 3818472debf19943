//! ECDSA signatures in the form that everybody outside a token uses.

/// The DER `SEQUENCE` of two unsigned big-endian numbers that an ECDSA signature is outside a token (RFC 3279, 2.2.3). Nothing if
/// a number is empty or the content is longer than 255 bytes, which that of the largest curve here (P-521) is not.
#[must_use]
pub fn ecdsa_der(r: &[u8], s: &[u8]) -> Option<Vec<u8>> {
    tagged(0x30, &[integer(r)?, integer(s)?].concat())
}

/// A DER `INTEGER` of an unsigned big-endian number (X.690, 8.3).
fn integer(number: &[u8]) -> Option<Vec<u8>> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count().min(number.len().saturating_sub(1));
    let digits = number.get(zeros..)?;
    let sign: &[u8] = if digits.first()? & 0x80 == 0 { &[] } else { &[0] };
    tagged(0x02, &[sign, digits].concat())
}

/// Tag, length and content (X.690, 8.1.3).
fn tagged(tag: u8, content: &[u8]) -> Option<Vec<u8>> {
    let length = u8::try_from(content.len()).ok()?;
    let header: &[u8] = if length < 0x80 { &[tag, length] } else { &[tag, 0x81, length] };
    Some([header, content].concat())
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        rand::SystemRandom,
        signature::{
            ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P521_SHA512_ASN1,
            ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
        },
    };

    use super::*;

    #[test]
    fn small_numbers_and_high_bits_are_encoded_by_the_rules() {
        assert_eq!(ecdsa_der(&[0, 0, 1], &[0x80, 0]).unwrap(), b"\x30\x08\x02\x01\x01\x02\x03\x00\x80\x00");
        assert_eq!(ecdsa_der(&[0, 0], &[0]).unwrap(), b"\x30\x06\x02\x01\x00\x02\x01\x00");
        assert!(ecdsa_der(&[], &[1]).is_none());
        assert!(ecdsa_der(&[1; 130], &[1; 130]).is_none());
    }

    #[test]
    fn what_the_module_signs_raw_it_verifies_as_der() {
        let rng = SystemRandom::new();
        for _ in 0..64 {
            let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
            let raw = pair.sign(&rng, b"m").unwrap();
            let (r, s) = raw.as_ref().split_at(32);
            let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, pair.public_key().as_ref());
            key.verify(b"m", &ecdsa_der(r, s).unwrap()).unwrap();
            let pair = EcdsaKeyPair::generate(&ECDSA_P521_SHA512_FIXED_SIGNING).unwrap();
            let raw = pair.sign(&rng, b"m").unwrap();
            let (r, s) = raw.as_ref().split_at(66);
            let key = UnparsedPublicKey::new(&ECDSA_P521_SHA512_ASN1, pair.public_key().as_ref());
            key.verify(b"m", &ecdsa_der(r, s).unwrap()).unwrap();
        }
    }
}
