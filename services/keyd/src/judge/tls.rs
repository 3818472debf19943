//! What a TLS server signs, as exact structures.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ParsedPublicKey, VerificationAlgorithm};
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

/// A curve that is offered (RFC 8422, 5.4).
struct Curve {
    name: &'static str,
    /// `ECCurveType named_curve(3)`, `NamedCurve`, and the length of an uncompressed point.
    head: [u8; 4],
    /// That length.
    length: usize,
    /// By which the module knows the curve.
    points: &'static dyn VerificationAlgorithm,
}

const CURVES: [Curve; 2] = [
    Curve { name: "TLS 1.2 secp256r1", head: [3, 0, 23, 65], length: 65, points: &ECDSA_P256_SHA256_ASN1 },
    Curve { name: "TLS 1.2 secp384r1", head: [3, 0, 24, 97], length: 97, points: &ECDSA_P384_SHA384_ASN1 },
];

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
    let (curve, point) = CURVES
        .iter()
        .find_map(|curve| Some((curve, parameters.strip_prefix(&curve.head)?)))
        .filter(|(curve, point)| point.len() == curve.length && point.first() == Some(&UNCOMPRESSED))
        .ok_or(Unfit::Tls("neither of TLS 1.3 nor the parameters of an offered curve in TLS 1.2"))?;
    // What only looks like a point may be the end of a certificate: a curve's key has one scheme for both.
    ParsedPublicKey::new(curve.points, point).map_err(|_| Unfit::Tls("the point of TLS 1.2 is not on its curve"))?;
    Ok(curve.name.to_owned())
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::agreement::{Algorithm, ECDH_P256, ECDH_P384, PrivateKey};

    use super::*;

    fn tls13(hash: usize) -> Vec<u8> {
        [&SPACES[..], b"TLS 1.3, server CertificateVerify\0", &vec![7; hash]].concat()
    }

    fn tls12(curve: u8, point: &[u8]) -> Vec<u8> {
        [&[9; 64][..], &[3, 0, curve, u8::try_from(point.len()).unwrap()], point].concat()
    }

    fn point(curve: &'static Algorithm) -> Vec<u8> {
        PrivateKey::generate(curve).unwrap().compute_public_key().unwrap().as_ref().to_vec()
    }

    const PSS: SignatureScheme = SignatureScheme::RsaPssSha256;

    #[test]
    fn both_structures_are_told_apart() {
        assert_eq!(judge(&tls13(32), PSS).unwrap(), "TLS 1.3");
        assert_eq!(judge(&tls13(48), SignatureScheme::EcdsaP384Sha384).unwrap(), "TLS 1.3");
        assert_eq!(
            judge(&tls12(23, &point(&ECDH_P256)), SignatureScheme::RsaPkcs1Sha384).unwrap(),
            "TLS 1.2 secp256r1"
        );
        assert_eq!(judge(&tls12(24, &point(&ECDH_P384)), PSS).unwrap(), "TLS 1.2 secp384r1");
    }

    #[test]
    fn nothing_else_is_signed_for_a_handshake() {
        let client = [&SPACES[..], b"TLS 1.3, client CertificateVerify\0", &[7; 32]].concat();
        let p256 = point(&ECDH_P256);
        let compressed = [&[2], &p256[1..33]].concat();
        let hybrid = [&[6], &p256[1..]].concat();
        let longer = [tls12(23, &p256), vec![0]].concat();
        let messages = [
            vec![],
            tls13(0),
            tls13(64),
            client,
            tls12(23, &compressed),
            tls12(23, &hybrid),
            longer,
            tls12(24, &p256),
            tls12(29, &[1; 32]),
            vec![0x30; 300],
        ];
        for message in messages {
            assert!(judge(&message, PSS).is_err(), "{message:x?}");
        }
        assert!(judge(&tls13(32), SignatureScheme::RsaPkcs1Sha384).is_err());
    }

    #[test]
    fn a_point_beside_its_curve_is_refused() {
        for (curve, name) in [(&ECDH_P256, 23), (&ECDH_P384, 24)] {
            let mut point = point(curve);
            *point.last_mut().unwrap() ^= 1;
            assert!(matches!(judge(&tls12(name, &point), PSS), Err(Unfit::Tls(reason)) if reason.contains("curve")));
            let outside = vec![4; point.len()];
            assert!(judge(&tls12(name, &outside), PSS).is_err());
        }
    }

    /// A certificate whose issuer's name hides the head of the parameters: a curve's key has one scheme for both.
    #[test]
    fn a_certificate_in_the_clothes_of_a_handshake_is_refused() {
        let version_1_head = [0x30, 0x81, 162, 2, 8, 1, 2, 3, 4, 5, 6, 7, 8];
        let ecdsa_with_sha384 = [0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3];
        let mut issuer = [&[0x30, 60, 0x31, 58, 0x30, 56, 6, 3, 0x55, 4, 3, 12, 49][..], &[b'x'; 49]].concat();
        issuer[39..44].copy_from_slice(&[3, 0, 24, 97, 4]);
        let validity = b"\x30\x1e\x17\x0d261123120000Z\x17\x0d361123120000Z";
        let no_subject = [0x30, 0];
        let ed25519_key = [&[0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0][..], &[7; 32]].concat();
        let tbs = [&version_1_head[..], &ecdsa_with_sha384, &issuer, validity, &no_subject, &ed25519_key].concat();
        let facts = casemate_pki::TbsFacts::parse(&tbs);
        assert!(facts.is_ok(), "a reader takes it for a certificate: {facts:?}");
        assert_eq!((tbs.len(), &tbs[64..69]), (165, &[3, 0, 24, 97, 4][..]), "and its form is that of parameters");
        assert!(judge(&tbs, SignatureScheme::EcdsaP384Sha384).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_message_panics(message: Vec<u8>) {
            let _ = judge(&message, PSS);
        }
    }
}
