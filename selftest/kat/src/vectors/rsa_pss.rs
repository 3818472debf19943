//! RSASSA-PSS verification, from Project Wycheproof.

use crate::vector::{Hash, Hex, Scheme, Test, Vector};

/// RSA signatures with SHA-256, SHA-384 and SHA-512, MGF1 with the same hash, salt as long as the hash (FIPS 186-5, 5.4).
pub const RSA_PSS: &[Vector] = &[
    Vector {
        name: "RSA-2048 PSS SHA-256 verify",
        source: "https://github.com/C2SP/wycheproof/blob/main/testvectors_v1/rsa_pss_2048_sha256_mgf1_32_test.json, tcId 2",
        test: Test::Verify {
            scheme: Scheme::RsaPss(Hash::Sha256),
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
                "0658c68fe0895646056d9bca422a64fe48813b4e14f0c8c4122e56d345b6813dc6286ffde014617e351c7af0a0d2c0f2\
                 85def79cb734e1e055a25fa6fddc1c07da17b4b235c637413b1849c24311fa72331f4c0458c364a4916de8619b884d7e\
                 37288fad12926fc091f4851686a04fd0a504dbce3db370663a6ea6128fea86c2ca94c63e0d34d7f2c845b5d71d9a5e54\
                 4451f524a451acb85c49bba7864e0a34a48613a819caf3dfd0d510c940f1df21c3373915be1f3509a557fa4d5a4e9f27\
                 3e85467961133e2482c0907386454228fb0246638616fc31bbb6fa7c2361b8035994eec69a923f4c0bb0ba8696dfe8b1\
                 400c2398d7b343fdf498b1116c8de602",
            ),
        },
    },
    Vector {
        name: "RSA-2048 PSS SHA-384 verify",
        source: "https://github.com/C2SP/wycheproof/blob/main/testvectors_v1/rsa_pss_2048_sha384_mgf1_48_test.json, tcId 2",
        test: Test::Verify {
            scheme: Scheme::RsaPss(Hash::Sha384),
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
                "9b45517f6149764531b362d7c6b6261b77fc37ae0b97bc392ba27ecb9bbb0d2db931cd7118c86727202333558fcdbf84\
                 464595b31b28a526bf7df2582f40035ab5e1c3896337ac20f137568a52f0b64bc544531f00791a4593ed2182b82bd713\
                 66cbfb6cdc107c79fca7c3aae679e98e75b40b2034d9375ebf750b3153a97d829bfd5aa39c29246bae601c1312382755\
                 03faa532f0ee75492b7d7b5b4f55d7be619f269d80a3feb414aeb1f36487b0e46b870d4756f98cfa50d6834a7cdcb238\
                 90821416cf0c8e82f688aa8e46ef8e3179e5ecd3cf157a8caaa70b0f4074294746e41b906d0ce85e6f2485cacb71bd63\
                 bb365eed5e91c9af4589d74b3f9487c6",
            ),
        },
    },
    Vector {
        name: "RSA-4096 PSS SHA-512 verify",
        source: "https://github.com/C2SP/wycheproof/blob/main/testvectors_v1/rsa_pss_4096_sha512_mgf1_64_test.json, tcId 2",
        test: Test::Verify {
            scheme: Scheme::RsaPss(Hash::Sha512),
            public_key: Hex(
                "3082020a0282020100c9a765c2661b4674cff3480e9a5e462ad0ad2fc9bc6fbef62847b3113d20991f653967971c2825\
                 2753f5fbacce012c2a8ab592914d269efafa724fa4b920e340930c106f7b36f79cebf0e62e88e0e476888e9f0e22186a\
                 cdb6c4523a232b65b4ff2cc22dc44f8a559527d79d7cd7dcf3773212f7bb9aa133c31165cc663690bf123d73923c8389\
                 29ccafee59d6c7095b8d4a74baf2d192c9a4e87c4e12bc58013078b28a7789e82e9f31de1f4d6a2aa6e80632be8e4bdf\
                 263e8d49b09416fb19c488c07ad8af722ab79182b23028a71e065d02412a9eebc46d7d8f4e03d79238d8c0cb4a97a9a1\
                 200ebb6ec64042ebeccad9567526eeef12c17d94c1049c889970b96e94cc353172a268a49c5e8bee13c15b39dec44f2c\
                 7a1aa37a7a0b6f72290acada32b1d8af1fc3dc8a89487ba81347cbeb1350925d30f923958106b49959c871e7c1dba55d\
                 a0772e362cf8621d78610868b894e16e5dfec96874a93a4cf379b47e7e318ce315066d70ee3938140a60148f205085ce\
                 f8a7700ca3c53d52a5756a63b3b16f153062b61262a68496210c8be4ef3f9029ca0ea0e3b3a0d5d6d226edbbf44daf8f\
                 045dc286ded3c4ec4db6b45347079f33eaf98e3c95b4b60e79ef4a3093feec543703422ba74a118511c2193b54fe8b63\
                 3866ed2c705ccbc6e7d9d3656809ec3d3356e7400a9648ec37505041e3e31af1c02eefe924a67047d30203010001",
            ),
            message: Hex("0000000000000000000000000000000000000000"),
            signature: Hex(
                "04a2259529e5888fd870d7e0517aa5b1bc05e19da400d6de1b8e676f44d6cffdb5c3be40474f143985730b9f17eefad2\
                 5be136c4e4294a06b6a2a1d7c4d6ba2b43227149a62e2828d8c7771d3fddc0aef36187e3722079480aca9f1c42fc35a4\
                 193121635b1832f2b9fdb1dd150929a85a35ff12dfb86725c82c1d8fd71cc2f5dec3f7373e8732891e3a978e4c15a4e7\
                 5eb49f1c99bb732ce587d39ad4bdde62f4b6dbffcf6952114d3bf33ad58a74e3c12b222238b51016932908aa80016f87\
                 fef465c9c512ff709be093e34ed47140df34fb15a4f8f629de00c383c6599fb51e0f8c2ab5d4d3faf526a749f34291da\
                 bbfe15df9deba84d88972436906035b3d0e8dc6a8ab9d9002df3aa105f6e3a595bc66d0f64c760d7c152b8cdbb8e0a9a\
                 fe87c36d6bad63fa017f540ff1e67d5d89deab1413016ec259a4bc19d8c2502576fbcb49b1ea1aa84163ea1e3f8bb9b1\
                 59acbcdeb2395d6531497889917c1c822456019f71818dc498b9e3517cd68f4eea6b24364ee651bdbf3282ab1f55e67b\
                 ef8f8b61f749e30b3dcebbcaa21531ecc7729b8c93f03732f81367bf545f1d53717aa056aaa08a0434e29ddad76956a5\
                 a641b45b9946bc756106fca8e76e3885da15aaae065deba95c1e503c996fff8400e286ea3a3b40e0d7b03652729cea35\
                 62d8a90c9ea9c65b4de3dcc013282e3da8c7de2188c3c4c9b9e42145165292fc",
            ),
        },
    },
];
