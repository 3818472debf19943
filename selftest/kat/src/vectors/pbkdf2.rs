//! PBKDF2, under which the record of a refused PIN keeps the PIN's fingerprint, from RFC 7914 and, for a count that repeats and costs milliseconds, from Go's tests.

use crate::vector::{Hash, Hex, Test, Vector};

/// PBKDF2 with HMAC-SHA-256 (RFC 8018, SP 800-132). Two: the first is the standard's, the second repeats its iteration.
pub const PBKDF2: &[Vector] = &[
    Vector {
        name: "PBKDF2-HMAC-SHA-256 once",
        source: "https://www.rfc-editor.org/rfc/rfc7914#section-11, P = passwd",
        test: Test::Pbkdf2 {
            hash: Hash::Sha256,
            password: Hex("706173737764"),
            salt: Hex("73616c74"),
            iterations: 1,
            output: Hex("55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc\
                 49ca9cccf179b645991664b39d77ef317c71b845b1e30bd509112041d3a19783"),
        },
    },
    Vector {
        name: "PBKDF2-HMAC-SHA-256 repeated",
        source: "https://github.com/golang/crypto/blob/v0.17.0/pbkdf2/pbkdf2_test.go, sha256TestVectors, 4096 iterations",
        test: Test::Pbkdf2 {
            hash: Hash::Sha256,
            password: Hex("70617373776f7264"),
            salt: Hex("73616c74"),
            iterations: 4096,
            output: Hex("c5e478d59288c841aa530db6845c4c8d962893a0"),
        },
    },
];
