//! The kind of key that an operation asks for, as the protocol says it.

use casemate_hsm_api::KeyAlgorithm;

use crate::protocol::Element;

/// Lowest protocol version that knows key types; the server offers it, phones answer it.
pub const VERSION: u8 = 3;

/// The elements of the key generation request for a key of `algorithm` to a client that speaks `version`: element 17 (and 18 for
/// a curve) exist since version 3, an older client gets the size alone (phone-formats §5). Nothing where the client cannot
/// be asked: a curve and an older version.
#[must_use]
pub fn request_elements(algorithm: KeyAlgorithm, version: u8) -> Option<Vec<Element>> {
    let curve = match algorithm {
        KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => None,
        KeyAlgorithm::P256 => Some(0),
        KeyAlgorithm::P384 => Some(1),
        KeyAlgorithm::P521 => Some(2),
    };
    match (algorithm.rsa_bits(), curve) {
        (Some(bits), _) if version < VERSION => Some(vec![Element::KeySize(bits)]),
        (Some(bits), _) => Some(vec![Element::KeySize(bits), Element::KeyType(0)]),
        (None, Some(curve)) if version >= VERSION => Some(vec![Element::KeyType(1), Element::Curve(curve)]),
        (None, _) => None,
    }
}

/// The algorithm of this name (`RSA-2048`), as records hold it.
#[must_use]
pub fn from_name(name: &str) -> Option<KeyAlgorithm> {
    KeyAlgorithm::ALL.into_iter().find(|algorithm| algorithm.to_string() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_client_is_asked_for_rsa_by_size_alone_and_never_for_a_curve() {
        assert_eq!(request_elements(KeyAlgorithm::Rsa3072, 2), Some(vec![Element::KeySize(3072)]));
        assert_eq!(request_elements(KeyAlgorithm::P256, 2), None);
        assert_eq!(request_elements(KeyAlgorithm::Rsa4096, 3), Some(vec![Element::KeySize(4096), Element::KeyType(0)]));
        assert_eq!(request_elements(KeyAlgorithm::P521, 3), Some(vec![Element::KeyType(1), Element::Curve(2)]));
    }

    #[test]
    fn names_are_read_back() {
        for algorithm in KeyAlgorithm::ALL {
            assert_eq!(from_name(&algorithm.to_string()), Some(algorithm));
        }
        assert_eq!(from_name("RSA-512"), None);
    }
}
