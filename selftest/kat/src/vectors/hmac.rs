//! HMAC, from Project Wycheproof.

use crate::vector::{Hash, Hex, Test, Vector};

/// HMAC-SHA-256 and HMAC-SHA-384 (FIPS 198-1).
pub const HMAC: &[Vector] = &[
    Vector {
        name: "HMAC-SHA-256",
        source: "https://github.com/C2SP/wycheproof/blob/main/testvectors_v1/hmac_sha256_test.json, tcId 17",
        test: Test::Hmac {
            hash: Hash::Sha256,
            key: Hex("6fa353868c82e5deeedac7f09471a61bf749ab5498239e947e012eee3c82d7c4"),
            message: Hex("aeed3e4d4cb9bbb60d482e98c126c0f5"),
            tag: Hex("9ed7f0e73812a27a87a3808ee0c89a6456499e835974ba57c5aab2a0d8c69e93"),
        },
    },
    Vector {
        name: "HMAC-SHA-384",
        source: "https://github.com/C2SP/wycheproof/blob/main/testvectors_v1/hmac_sha384_test.json, tcId 17",
        test: Test::Hmac {
            hash: Hash::Sha384,
            key: Hex(
                "503d7478a773b694d6e552c9703cc8bc56fd49fafc9a17cab8b0332dca8d49336fa7e9ec2bcb56253fe5bb504e3e7f7f",
            ),
            message: Hex("d96e6fed893addfd9237c81c4f4e341b"),
            tag: Hex(
                "19389766789912260f3f9757df3651663829c358bb48b22c1c63132070df318905beffd45f51e4dfcb3e785f44cf9106",
            ),
        },
    },
];
