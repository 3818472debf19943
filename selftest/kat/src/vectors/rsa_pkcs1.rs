//! RSASSA-PKCS1-v1_5 verification, from Project Wycheproof.

use crate::vector::{Hash, Hex, Scheme, Test, Vector};

/// RSA-2048 signatures with SHA-256, SHA-384 and SHA-512 (FIPS 186-5, 5.4).
pub const RSA_PKCS1: &[Vector] = &[
    Vector {
        name: "RSA-2048 PKCS#1 v1.5 SHA-256 verify",
        source: "https://github.com/C2SP/wycheproof/blob/main/testvectors_v1/rsa_signature_2048_sha256_test.json, tcId 2",
        test: Test::Verify {
            scheme: Scheme::RsaPkcs1(Hash::Sha256),
            public_key: Hex(
                "3082010a0282010100a2b451a07d0aa5f96e455671513550514a8a5b462ebef717094fa1fee82224e637f9746d3f7caf\
                 d31878d80325b6ef5a1700f65903b469429e89d6eac8845097b5ab393189db92512ed8a7711a1253facd20f79c15e824\
                 7f3d3e42e46e48c98e254a2fe9765313a03eff8f17e1a029397a1fa26a8dce26f490ed81299615d9814c22da610428e0\
                 9c7d9658594266f5c021d0fceca08d945a12be82de4d1ece6b4c03145b5d3495d4ed5411eb878daf05fd7afc3e09ada0\
                 f1126422f590975a1969816f48698bcbba1b4d9cae79d460d8f9f85e7975005d9bc22c4e5ac0f7c1a45d12569a62807d\
                 3b9a02e5a530e773066f453d1f5b4c2e9cf7820283f742b9d50203010001",
            ),
            message: Hex("0000000000000000000000000000000000000000"),
            signature: Hex(
                "8a1b220cb2ab415dc760eb7f5bb10335a3cca269d7dbbf7d0962ba79f9cf7b43a5fc09c99a1584f07403473d6c189a83\
                 6897a5b6f8ea9fa22d601e6ba5f7411fe27c638b81b1a22363583a80fce8c7df3e40fb51bd0e60d0a6653f79f3bcb7ec\
                 3e9dc14cfb5b31ab1735bca692d50ac03f979dda92747c6430f8045efa3513ba6e0ce3e9e35570e1c30c8ebe589b4419\
                 2e1344ca83dfa576fc6fdc7bf1cd7cee875b001c8c02ce8d602769e4bd9d241c4857182a0089a8b67644e73eef105c55\
                 0efa47a40874289395ac0c4e02fd4ba98e130a4c2d1b95521c6af4a002ac3bdc6e52122ae4c08cc3da1c896e059acbdd\
                 ec574ac0432f6103dd97273d8803c102",
            ),
        },
    },
    Vector {
        name: "RSA-2048 PKCS#1 v1.5 SHA-384 verify",
        source: "https://github.com/C2SP/wycheproof/blob/main/testvectors_v1/rsa_signature_2048_sha384_test.json, tcId 2",
        test: Test::Verify {
            scheme: Scheme::RsaPkcs1(Hash::Sha384),
            public_key: Hex(
                "3082010a0282010100cda6fa5ca76bfe0492ec57e0a3bfff7272dc8d1e25ad1fb338aa050f02c104e63133d6b5b7c498\
                 5ebbae9ac036a5b9c03074d60aec8e25baf392a0c430ff05b88e948805d3dd74511d8885250a7b574215ada015c55907\
                 6686e253ccc96c0815b1291ee787cc3363b4f77d930eb998d7c582b24cea9ce21de9722791989863a27ebc80a00de5bd\
                 2f9228775e5a4ceb054d58c9be36a054336971a13642dd9510dd696aa268db3aab2299d5d88f8e562434d1427094d3df\
                 8e72d1ef69b4ed34d12bac375223b2a25cf227f735f816e85e17239304769a6082154cd15899fc1eaefb69b748a3e5ed\
                 24d38372597de3e4e2a27b951d6ac7db182d6809d8ff511b7f0203010001",
            ),
            message: Hex("0000000000000000000000000000000000000000"),
            signature: Hex(
                "0e8742af2a1d82e99038a99a09bc182e21317b690004fcf8fac5a4b39c6c4c6f32ee0395a42b8aee31a7af7cc0b02050\
                 87b4cbe18e791c1d5454faa5dc220d3b21e44822d39beefa5e90654fae46205631c4691d3e78221f48edc14e342ad42d\
                 beccfede07420b9352af9e0a009c49cac2b4564732d94495457dcbd2f67fb60fd77080631cf38b784a3373b66cc2d1ae\
                 971a7422562c2df5f2476983263f6559a8fed69c2c76806f8553b5f1f2239677f1a4a3f5f55a00f8391174fabd285250\
                 3c9dc130ba219d145709a4f045bf62b2278d1c9c5c2e7a81f47769b2a11b18bb8648a32eb984ff7aeed9c0ee1023886e\
                 6a402812ae6552b03419b4da25cbf3bb",
            ),
        },
    },
    Vector {
        name: "RSA-2048 PKCS#1 v1.5 SHA-512 verify",
        source: "https://github.com/C2SP/wycheproof/blob/main/testvectors_v1/rsa_signature_2048_sha512_test.json, tcId 2",
        test: Test::Verify {
            scheme: Scheme::RsaPkcs1(Hash::Sha512),
            public_key: Hex(
                "3082010a0282010100c2c4a860236d3c9096a076d6ba5107e0f7bd81e1ba916f7375724bd2b0b0b63956813715a3457a\
                 b0458b71fb35a45b27f9ef7ac3e579dea45dfbfd07819ed6b7021aa5336c58442aadd96ca9ee9d32473e9d9278562b4d\
                 10258ade6a98fb1c7cfdc3b3716ef5dec58cf73b359f389599b4b5865a9863519eb001c324387da755450db341309360\
                 e3807c0565b8e2c44fbd5e6e8d04d006d7ee768b8e8436082a90fa0e837f32f46087ab4a0d9be28aa7da1794ceb0172a\
                 7f50ed20f6df641efbcbfd2aac89775c761a7310093c671c977fa18b0d6e01fb25f7a432b42c65359784c689205719c1\
                 cf6e3a65dae2da434c326dde81bb6ffffbdbf6de5c16bba7490203010001",
            ),
            message: Hex("0000000000000000000000000000000000000000"),
            signature: Hex(
                "4de4dbf82607b36a5c6778ae6351d83b7ef5b4af64c3788889eb10ef1838822847ceb531914392360b92dee055796f73\
                 e3cdb8b3d50910a537dd2244fd7f922780356ea3f01e99e5bebcb1b6ef398d2399bd02472a871417daec3bbe6f89f45f\
                 1af0bf819a446dcbbb75c56958d34ba27c8120cee6ff97242921ccf58de9216995fa0c49cb3e6d60e46411b2df3b01b7\
                 8fa81ca145ce8be594ee009031eda672eb097ba5ed6687a703b154ef616757f94237f4275f54738cb59d36b20a9c84ae\
                 133bd715747952f0222573a91faf740e4b7eb4e88abaa91004e72a1709b401616b2edb2784e491f671fcf5ebe326b669\
                 facaa5d8a0f6f8469ea995c4db772f06",
            ),
        },
    },
];
