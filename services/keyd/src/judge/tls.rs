//! What a TLS server signs, as exact structures.

use casemate_hsm_api::{Padding, SignatureScheme};

use super::Unfit;

/// The `CertificateVerify` of a TLS 1.3 server before the transcript's hash (RFC 8446, 4.4.3): 64 spaces, the context string,
/// a zero byte.
const CONTEXT: &[u8] = b"TLS 1.3, server CertificateVerify\0";
const SPACES: [u8; 64] = [0x20; 64];

/// Lengths of the transcript's hash: SHA-256 and SHA-384, the hashes of the TLS 1.3 cipher suites that are offered.
const TRANSCRIPTS: [usize; 2] = [32, 48];

/// `client_random` and `server_random`.
const RANDOMS: usize = 64;

/// RFC 8422, 5.4: `ECCurveType named_curve(3)`, `NamedCurve`, and the length of an uncompressed point of that curve.
const CURVES: [([u8; 4], usize, &str); 2] =
    [([3, 0, 23, 65], 65, "TLS 1.2 secp256r1"), ([3, 0, 24, 97], 97, "TLS 1.2 secp384r1")];

/// RFC 8422, 5.4.1: the form octet of an uncompressed point.
const UNCOMPRESSED: u8 = 4;

/// Which of the two structures `message` is, in words for the audit trail.
pub(super) fn judge(message: &[u8], scheme: SignatureScheme) -> Result<String, Unfit> {
    if let Some(transcript) = message.strip_prefix(&SPACES).and_then(|rest| rest.strip_prefix(CONTEXT)) {
        if !TRANSCRIPTS.contains(&transcript.len()) {
            return Err(Unfit::Tls("the transcript's hash is of neither 32 nor 48 bytes"));
        }
        // RFC 8446, 4.2.3: PKCS#1 v1.5 signs no handshake of TLS 1.3.
        if scheme.padding() == Padding::RsaPkcs1 {
            return Err(Unfit::Tls("PKCS#1 v1.5 in TLS 1.3"));
        }
        return Ok("TLS 1.3".to_owned());
    }
    let (_, parameters) = message.split_at_checked(RANDOMS).ok_or(Unfit::Tls("neither of TLS 1.3 nor of TLS 1.2"))?;
    let named = CURVES.iter().find_map(|(head, length, name)| {
        let point = parameters.strip_prefix(head)?;
        (point.len() == *length && point.first() == Some(&UNCOMPRESSED)).then_some(*name)
    });
    named.map(str::to_owned).ok_or(Unfit::Tls("neither of TLS 1.3 nor the parameters of an offered curve in TLS 1.2"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls13(hash: usize) -> Vec<u8> {
        [&SPACES[..], b"TLS 1.3, server CertificateVerify\0", &vec![7; hash]].concat()
    }

    fn tls12(curve: u8, point: usize) -> Vec<u8> {
        let mut message = vec![9; 64];
        message.extend([3, 0, curve, u8::try_from(point).unwrap(), 4]);
        message.resize(64 + 4 + point, 1);
        message
    }

    const PSS: SignatureScheme = SignatureScheme::RsaPssSha256;

    #[test]
    fn both_structures_are_told_apart() {
        assert_eq!(judge(&tls13(32), PSS).unwrap(), "TLS 1.3");
        assert_eq!(judge(&tls13(48), SignatureScheme::EcdsaP384Sha384).unwrap(), "TLS 1.3");
        assert_eq!(judge(&tls12(23, 65), SignatureScheme::RsaPkcs1Sha384).unwrap(), "TLS 1.2 secp256r1");
        assert_eq!(judge(&tls12(24, 97), PSS).unwrap(), "TLS 1.2 secp384r1");
    }

    #[test]
    fn nothing_else_is_signed_for_a_handshake() {
        let client = [&SPACES[..], b"TLS 1.3, client CertificateVerify\0", &[7; 32]].concat();
        let compressed = {
            let mut message = tls12(23, 65);
            message[68] = 2;
            message
        };
        let longer = [tls12(23, 65), vec![0]].concat();
        for message in
            [vec![], tls13(0), tls13(64), client, compressed, longer, tls12(23, 97), tls12(29, 32), vec![0x30; 300]]
        {
            assert!(judge(&message, PSS).is_err(), "{} bytes", message.len());
        }
        assert!(judge(&tls13(32), SignatureScheme::RsaPkcs1Sha384).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_message_panics(message: Vec<u8>) {
            let _ = judge(&message, PSS);
        }
    }
}
