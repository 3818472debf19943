//! HKDF, the key schedule of TLS 1.3, from Project Wycheproof.

use crate::vector::{Hash, Hex, Test, Vector};

/// HKDF with SHA-256 and SHA-384 (RFC 5869, SP 800-56C).
pub const HKDF: &[Vector] = &[
    Vector {
        name: "HKDF-SHA-256",
        source: "https://github.com/C2SP/wycheproof/blob/main/testvectors_v1/hkdf_sha256_test.json, tcId 1",
        test: Test::Hkdf {
            hash: Hash::Sha256,
            salt: Hex("000102030405060708090a0b0c"),
            key_material: Hex("0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b"),
            info: Hex("f0f1f2f3f4f5f6f7f8f9"),
            output: Hex("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"),
        },
    },
    Vector {
        name: "HKDF-SHA-384",
        source: "https://github.com/C2SP/wycheproof/blob/main/testvectors_v1/hkdf_sha384_test.json, tcId 11",
        test: Test::Hkdf {
            hash: Hash::Sha384,
            salt: Hex("2614d80275b08a1cf90bae0eb607d4d5"),
            key_material: Hex("0cbd136d66d15a4ffefde1303b430821"),
            info: Hex("ee991de21aeb6baa6a5f683dbb755e6f80db1c1d"),
            output: Hex("e618b91d9f3d10c007958d025841a3347947eb41b23ec35a3d7927aad74f293c50405a56911d8158e74f"),
        },
    },
];
