//! The pseudorandom function of TLS 1.2, from NIST's ACVP server.

use crate::vector::{Hash, Hex, Test, Vector};

/// Master secret (RFC 7627, 4) and key block (RFC 5246, 6.3) with SHA-256 and SHA-384: SP 800-135, 4.2.2.
pub const TLS12_PRF: &[Vector] = &[
    Vector {
        name: "TLS 1.2 extended master secret SHA-256",
        source: "https://github.com/usnistgov/ACVP-Server/blob/8e6f5ee70a96fc634b4751386d3733e29f4bf5c6/gen-val/json-files/TLS-v1.2-KDF-RFC7627/internalProjection.json, tcId 1",
        test: Test::Tls12Prf {
            hash: Hash::Sha256,
            secret: Hex(
                "8252b983a6459a6fb3b9debe8725247e276139ebf7c9adccdd7d240f3ada7f5e3351b2769b6c8dc169a6d799c3c0ffeb",
            ),
            label: "extended master secret",
            seed: Hex("1359d7df74cb27c67f74c98d521d442b887eaf0decf6e382c62434d6c3dd7d0d"),
            output: Hex(
                "43a5e821fcf5446c712207f7cd161ed213ee3b9d001d418c57231befd596b583ecd55ab2c4456b02738698f90bc59ac0",
            ),
        },
    },
    Vector {
        name: "TLS 1.2 key expansion SHA-256",
        source: "https://github.com/usnistgov/ACVP-Server/blob/8e6f5ee70a96fc634b4751386d3733e29f4bf5c6/gen-val/json-files/TLS-v1.2-KDF-RFC7627/internalProjection.json, tcId 1",
        test: Test::Tls12Prf {
            hash: Hash::Sha256,
            secret: Hex(
                "43a5e821fcf5446c712207f7cd161ed213ee3b9d001d418c57231befd596b583ecd55ab2c4456b02738698f90bc59ac0",
            ),
            label: "key expansion",
            seed: Hex(
                "50e0a1a1fd64a55259781a5c22580a81f99799c32f52d3f48d2c10c5c692e289abe7af69affc5e0944f4009b3e7abd1c\
                 c0a5cce8db055eff4a509e5b6de9475a",
            ),
            output: Hex(
                "4886e75be82dd4fb73c540729072d3e29b93c164e1cffe071f1212b1237b98dc0b0a5895f331f7180ceb30b17bb8c3e9\
                 2a074b26325ff975237dbd22320c0b88d64931f39c777b1527d36a999ad5fe5ee7f53fc42a509beb22634b17ec7b768e\
                 af6a87977cf8670b34d0a76ebce6a659dab6c15b4b86b98b9a63c50bbe1e2a09",
            ),
        },
    },
    Vector {
        name: "TLS 1.2 extended master secret SHA-384",
        source: "https://github.com/usnistgov/ACVP-Server/blob/8e6f5ee70a96fc634b4751386d3733e29f4bf5c6/gen-val/json-files/TLS-v1.2-KDF-RFC7627/internalProjection.json, tcId 40",
        test: Test::Tls12Prf {
            hash: Hash::Sha384,
            secret: Hex(
                "830f0215195eef76290ceaa40f0b60c7ddfb0db9345b15cb9abc3d08bbe51deb671b9a51da0499f0ca1ac6ae14a96fd2",
            ),
            label: "extended master secret",
            seed: Hex(
                "8fbd73a1955d76e894d79bf330dbd806c884a3de1845bc1100c20b8ef012279ee311e66b98490fb29578320560198959",
            ),
            output: Hex(
                "9a688f8617c4f9292bd2b064d0c0f7137a8a10a4654fca2dae82eb56f5f078758e81c6b940b899c716a9f8447851a400",
            ),
        },
    },
    Vector {
        name: "TLS 1.2 key expansion SHA-384",
        source: "https://github.com/usnistgov/ACVP-Server/blob/8e6f5ee70a96fc634b4751386d3733e29f4bf5c6/gen-val/json-files/TLS-v1.2-KDF-RFC7627/internalProjection.json, tcId 40",
        test: Test::Tls12Prf {
            hash: Hash::Sha384,
            secret: Hex(
                "9a688f8617c4f9292bd2b064d0c0f7137a8a10a4654fca2dae82eb56f5f078758e81c6b940b899c716a9f8447851a400",
            ),
            label: "key expansion",
            seed: Hex(
                "999fdb16719f798bfd842ae1210b4dbf88a78f4dda698de3e7d99627633ab5fe9e5f2cae18087d4f02efe10b9392808a\
                 0fb65fed484e18c64df41eefee7b7ade",
            ),
            output: Hex(
                "1aa083fb3c3a5daae46edeb15beccd5999664b6b8bb7f4ac799db2364263033c5b688a18edced6d56db9c6333ab6755c\
                 0a55f12e7255767fe303492e3eb8410fbf7e2ff4847aa801fc87132e894adbc0695f7bc28d3fa7ffa4830eed57e1452a\
                 3bb0c3e8068f69f0f627e471b2937b313148f141bb5b4fcf1924fd4f092ccaf8",
            ),
        },
    },
];
