//! SHA-2, NIST's worked examples of a message that fills two blocks.

use crate::vector::{Hash, Hex, Test, Vector};

/// SHA-256, SHA-384 and SHA-512 (FIPS 180-4).
pub const SHA2: &[Vector] = &[
    Vector {
        name: "SHA-256",
        source: "https://csrc.nist.gov/CSRC/media/Projects/Cryptographic-Standards-and-Guidelines/documents/examples/SHA256.pdf and https://www.rfc-editor.org/rfc/rfc6234#section-8.5, TEST2_1",
        test: Test::Digest {
            hash: Hash::Sha256,
            message: Hex(
                "6162636462636465636465666465666765666768666768696768696a68696a6b696a6b6c6a6b6c6d6b6c6d6e6c6d6e6f\
                 6d6e6f706e6f7071",
            ),
            digest: Hex("248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"),
        },
    },
    Vector {
        name: "SHA-384",
        source: "https://csrc.nist.gov/CSRC/media/Projects/Cryptographic-Standards-and-Guidelines/documents/examples/SHA384.pdf and https://www.rfc-editor.org/rfc/rfc6234#section-8.5, TEST2_2",
        test: Test::Digest {
            hash: Hash::Sha384,
            message: Hex(
                "61626364656667686263646566676869636465666768696a6465666768696a6b65666768696a6b6c666768696a6b6c6d\
                 6768696a6b6c6d6e68696a6b6c6d6e6f696a6b6c6d6e6f706a6b6c6d6e6f70716b6c6d6e6f7071726c6d6e6f70717273\
                 6d6e6f70717273746e6f707172737475",
            ),
            digest: Hex(
                "09330c33f71147e83d192fc782cd1b4753111b173b3b05d22fa08086e3b0f712fcc7c71a557e2db966c3e9fa91746039",
            ),
        },
    },
    Vector {
        name: "SHA-512",
        source: "https://csrc.nist.gov/CSRC/media/Projects/Cryptographic-Standards-and-Guidelines/documents/examples/SHA512.pdf and https://www.rfc-editor.org/rfc/rfc6234#section-8.5, TEST2_2",
        test: Test::Digest {
            hash: Hash::Sha512,
            message: Hex(
                "61626364656667686263646566676869636465666768696a6465666768696a6b65666768696a6b6c666768696a6b6c6d\
                 6768696a6b6c6d6e68696a6b6c6d6e6f696a6b6c6d6e6f706a6b6c6d6e6f70716b6c6d6e6f7071726c6d6e6f70717273\
                 6d6e6f70717273746e6f707172737475",
            ),
            digest: Hex(
                "8e959b75dae313da8cf4f72814fc143f8f7779c6eb9f7fa17299aeadb6889018501d289e4900f7e4331b99dec4b5433a\
                 c7d329eeb6dd26545e96e55b874be909",
            ),
        },
    },
];
