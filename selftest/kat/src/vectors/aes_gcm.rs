//! AES-GCM, from Project Wycheproof.

use crate::vector::{Hex, Test, Vector};

/// AES-128-GCM and AES-256-GCM (SP 800-38D), nonce of 96 bits, tag of 128.
pub const AES_GCM: &[Vector] = &[
    Vector {
        name: "AES-128-GCM",
        source: "https://github.com/C2SP/wycheproof/blob/main/testvectors_v1/aes_gcm_test.json, tcId 11",
        test: Test::AesGcm {
            key: Hex("28ff3def08179311e2734c6d1c4e2871"),
            nonce: Hex("32bcb9b569e3b852d37c766a"),
            aad: Hex("c3"),
            plaintext: Hex("dfc61a20df8505b53e3cd59f25770d5018add3d6"),
            ciphertext: Hex("f58d453212c2c8a436e9283672f579f119122978"),
            tag: Hex("5901131d0760c8715901d881fdfd3bc0"),
        },
    },
    Vector {
        name: "AES-256-GCM",
        source: "https://github.com/C2SP/wycheproof/blob/main/testvectors_v1/aes_gcm_test.json, tcId 100",
        test: Test::AesGcm {
            key: Hex("b279f57e19c8f53f2f963f5f2519fdb7c1779be2ca2b3ae8e1128b7d6c627fc4"),
            nonce: Hex("98bc2c7438d5cd7665d76f6e"),
            aad: Hex("c0"),
            plaintext: Hex("fcc515b294408c8645c9183e3f4ecee5127846d1"),
            ciphertext: Hex("eb5500e3825952866d911253f8de860c00831c81"),
            tag: Hex("ecb660e1fb0541ec41e8d68a64141b3a"),
        },
    },
];
