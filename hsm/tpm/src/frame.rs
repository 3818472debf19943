use aws_lc_rs::digest;
use serde::{Serialize, de::DeserializeOwned};

/// What every file of this crate begins with: its kind and version.
const MAGIC: &str = "casemate-tpm 1 ";

/// The frame of every file: a first line `casemate-tpm 1 DIGEST`, the digest being the SHA-256 of all that follows it in
/// hexadecimal, then a JSON object. The digest tells a damaged file from one of another TPM; it guards against accidents, the
/// TPM guards against enemies.
pub(crate) fn seal<T: Serialize>(body: &T) -> Vec<u8> {
    let body = serde_json::to_vec(body).expect("a record of strings, numbers and bytes has a JSON form");
    let mut framed = format!("{MAGIC}{}\n", checksum(&body)).into_bytes();
    framed.extend_from_slice(&body);
    framed
}

/// Reads what [`seal`] wrote; the error says what is wrong, without any of the content.
pub(crate) fn open<T: DeserializeOwned>(framed: &[u8]) -> Result<T, String> {
    let end = framed.iter().position(|byte| *byte == b'\n').ok_or("it has no first line")?;
    let (head, body) = framed.split_at_checked(end).ok_or("it has no first line")?;
    let body = body.get(1..).unwrap_or_default();
    let head = std::str::from_utf8(head).map_err(|_| "its first line is no text")?;
    let digest = head.strip_prefix(MAGIC).ok_or("it is of another kind or version")?;
    if digest != checksum(body) {
        return Err("its checksum does not fit its content".to_owned());
    }
    serde_json::from_slice(body).map_err(|error| format!("its content is no record: {:?}", error.classify()))
}

fn checksum(body: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, body))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        text: String,
        #[serde(with = "hex::serde")]
        bytes: Vec<u8>,
    }

    #[test]
    fn one_flipped_bit_anywhere_is_seen() {
        let framed = seal(&Body { text: "a".to_owned(), bytes: vec![1, 2, 3] });
        for place in 0..framed.len() * 8 {
            let mut damaged = framed.clone();
            damaged[place / 8] ^= 1 << (place % 8);
            assert!(open::<Body>(&damaged).is_err(), "bit {place}");
        }
        assert!(open::<Body>(&framed[..framed.len() - 1]).is_err());
        assert!(open::<Body>(&[framed.as_slice(), b" "].concat()).is_err());
    }

    proptest! {
        #[test]
        fn what_is_sealed_is_opened(text in ".{0,40}", bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let body = Body { text, bytes };
            prop_assert_eq!(open::<Body>(&seal(&body)).unwrap(), body);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(open::<Body>(&bytes).is_err());
            let _ = open::<Body>(&[MAGIC.as_bytes(), &bytes].concat());
        }
    }
}
