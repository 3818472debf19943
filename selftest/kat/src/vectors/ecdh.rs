//! ECDH, from Project Wycheproof.

use crate::vector::{Curve, Hex, Test, Vector};

/// ECDH on P-256 and P-384, the groups that the TLS profiles offer (SP 800-56A, 5.7.1.2).
pub const ECDH: &[Vector] = &[
    Vector {
        name: "ECDH P-256",
        source: "https://github.com/C2SP/wycheproof/blob/main/testvectors_v1/ecdh_secp256r1_ecpoint_test.json, tcId 1",
        test: Test::Ecdh {
            curve: Curve::P256,
            private_key: Hex("0612465c89a023ab17855b0a6bcebfd3febb53aef84138647b5352e02c10c346"),
            peer: Hex(
                "0462d5bd3372af75fe85a040715d0f502428e07046868b0bfdfa61d731afe44f26ac333a93a9e70a81cd5a95b5bf8d13\
                 990eb741c8c38872b4a07d275a014e30cf",
            ),
            shared: Hex("53020d908b0219328b658b525f26780e3ae12bcd952bb25a93bc0895e1714285"),
        },
    },
    Vector {
        name: "ECDH P-384",
        source: "https://github.com/C2SP/wycheproof/blob/main/testvectors_v1/ecdh_secp384r1_ecpoint_test.json, tcId 1",
        test: Test::Ecdh {
            curve: Curve::P384,
            private_key: Hex(
                "766e61425b2da9f846c09fc3564b93a6f8603b7392c785165bf20da948c49fd1fb1dee4edd64356b9f21c588b75dfd81",
            ),
            peer: Hex(
                "04790a6e059ef9a5940163183d4a7809135d29791643fc43a2f17ee8bf677ab84f791b64a6be15969ffa012dd9185d87\
                 96d9b954baa8a75e82df711b3b56eadff6b0f668c3b26b4b1aeb308a1fcc1c680d329a6705025f1c98a0b5e5bfcb163c\
                 aa",
            ),
            shared: Hex(
                "6461defb95d996b24296f5a1832b34db05ed031114fbe7d98d098f93859866e4de1e229da71fef0c77fe49b249190135",
            ),
        },
    },
];
