//! ECDSA verification, from Project Wycheproof.

use crate::vector::{Curve, Hex, Scheme, Test, Vector};

/// ECDSA on P-256, P-384 and P-521 with the hash of the curve's strength, signatures in ASN.1 DER (FIPS 186-5, 6.4).
pub const ECDSA: &[Vector] = &[
    Vector {
        name: "ECDSA P-256 SHA-256 verify",
        source: "https://github.com/C2SP/wycheproof/blob/main/testvectors_v1/ecdsa_secp256r1_sha256_test.json, tcId 2",
        test: Test::Verify {
            scheme: Scheme::Ecdsa(Curve::P256),
            public_key: Hex(
                "0404aaec73635726f213fb8a9e64da3b8632e41495a944d0045b522eba7240fad587d9315798aaa3a5ba01775787ced0\
                 5eaaf7b4e09fc81d6d1aa546e8365d525d",
            ),
            message: Hex("4d7367"),
            signature: Hex(
                "30450220530bd6b0c9af2d69ba897f6b5fb59695cfbf33afe66dbadcf5b8d2a2a6538e23022100d85e489cb7a161fd55\
                 ededcedbf4cc0c0987e3e3f0f242cae934c72caa3f43e9",
            ),
        },
    },
    Vector {
        name: "ECDSA P-384 SHA-384 verify",
        source: "https://github.com/C2SP/wycheproof/blob/main/testvectors_v1/ecdsa_secp384r1_sha384_test.json, tcId 2",
        test: Test::Verify {
            scheme: Scheme::Ecdsa(Curve::P384),
            public_key: Hex(
                "0429bdb76d5fa741bfd70233cb3a66cc7d44beb3b0663d92a8136650478bcefb61ef182e155a54345a5e8e5e88f064e5\
                 bc9a525ab7f764dad3dae1468c2b419f3b62b9ba917d5e8c4fb1ec47404a3fc76474b2713081be9db4c00e043ada9fc4\
                 a3",
            ),
            message: Hex("4d7367"),
            signature: Hex(
                "3066023100d7143a836608b25599a7f28dec6635494c2992ad1e2bbeecb7ef601a9c01746e710ce0d9c48accb38a79ed\
                 e5b9638f3402310080f9e165e8c61035bf8aa7b5533960e46dd0e211c904a064edb6de41f797c0eae4e327612ee3f816\
                 f4157272bb4fabc9",
            ),
        },
    },
    Vector {
        name: "ECDSA P-521 SHA-512 verify",
        source: "https://github.com/C2SP/wycheproof/blob/main/testvectors_v1/ecdsa_secp521r1_sha512_test.json, tcId 2",
        test: Test::Verify {
            scheme: Scheme::Ecdsa(Curve::P521),
            public_key: Hex(
                "04012a908bfc5b70e17bdfae74294994808bf2a42dab59af8b0523a026d640a2a3d6d344520b62177e2cfa339ca42fb0\
                 883ec425904fbda2833a3b5b0a9a00811365d8012333d532f8f8eb1a623c378a3694651192bbda833e3b8d7b8f90b2bf\
                 c9b045f8a55e1b6a5fe1512c400c4bc9c86fd7c699d642f5cee9bb827c8b0abc0da01cef1e",
            ),
            message: Hex("4d7367"),
            signature: Hex(
                "30818602415adc833cbc1d6141ced457bab2b01b0814054d7a28fa8bb2925d1e7525b7cf7d5c938a17abfb33426dcc05\
                 ce8d44db02f53a75ea04017dca51e1fbb14ce3311b1402415f69b2a6de129147a8437b79c72315d35173d88c2d611908\
                 5c90dae8ec05c55e067e7dfa4f681035e3dccab099291c0ecf4428332a9cb0736d16e79111ac76d766",
            ),
        },
    },
];
