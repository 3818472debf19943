//! A node that would pass a key in software for one in a TPM: what it can write by hand, in the TPM's own structures.

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use serde_json::{Value, json};

/// fixedTPM, fixedParent, sensitiveDataOrigin and sign of `TPMA_OBJECT`: all lies.
const BOUND: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 18;

/// The lie that the key signs only what the TPM says.
const RESTRICTED: u32 = 1 << 16;

/// Has an attestation key of its own making.
pub(crate) struct Forger(EcdsaKeyPair);

impl Forger {
    pub(crate) fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap())
    }

    /// `TPMT_PUBLIC` of the attestation key: ECC with ECDSA and SHA-256 on P-256.
    pub(crate) fn area(&self) -> Vec<u8> {
        let (x, y) = self.0.public_key().as_ref()[1..].split_at(32);
        let parameters = [0x0010, 0x0018, 0x000b, 0x0003, 0x0010].map(u16::to_be_bytes).concat();
        [head(0x0023, BOUND | RESTRICTED), parameters, sized(x), sized(y)].concat()
    }

    /// A statement on the RSA-2048 key with this `SubjectPublicKeyInfo`, signed by the forger, said to be signed `by`.
    pub(crate) fn statement(&self, spki: &[u8], nonce: &[u8], by: &Value) -> Value {
        assert_eq!(spki.len(), 294, "RSA-2048 with the exponent 65537");
        let parameters = [0x0010, 0x0010, 2048, 0, 0].map(u16::to_be_bytes).concat();
        let public = [head(0x0001, BOUND), parameters, sized(&spki[33..289])].concat();
        let name = [&[0, 0x0b], digest(&SHA256, &public).as_ref()].concat();
        let certify = [
            0xff54_4347_u32.to_be_bytes().as_slice(),
            &0x8017_u16.to_be_bytes(),
            &sized(&name),
            &sized(nonce),
            &[0; 17 + 8],
            &sized(&name),
            &sized(&name),
        ]
        .concat();
        let pcrs = [0, 1, 2, 3, 4, 5, 6, 7, 11].map(|index| json!({ "index": index, "sha256": "00".repeat(32) }));
        let quoted = [
            0xff54_4347_u32.to_be_bytes().as_slice(),
            &0x8018_u16.to_be_bytes(),
            &sized(&name),
            &sized(nonce),
            &[0; 17 + 8],
            &[0, 0, 0, 1, 0, 0x0b, 3, 0xff, 0x08, 0],
            &sized(digest(&SHA256, &[0; 9 * 32]).as_ref()),
        ]
        .concat();
        json!({
            "public": hex::encode(public),
            "signature": self.signature(&certify),
            "certify": hex::encode(certify),
            "quote": { "pcrs": pcrs, "signature": self.signature(&quoted), "quoted": hex::encode(quoted) },
            "by": by,
        })
    }

    fn signature(&self, bytes: &[u8]) -> String {
        hex::encode(self.0.sign(&SystemRandom::new(), bytes).unwrap())
    }
}

/// Type, name algorithm SHA-256, attributes, no policy.
fn head(kind: u16, attributes: u32) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &[0, 0x0b], &attributes.to_be_bytes(), &[0, 0]].concat()
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}
