//! PBKDF2, under which the record of a refused PIN keeps the PIN's fingerprint, from RFC 7914.

use crate::vector::{Hash, Hex, Test, Vector};

/// PBKDF2 with HMAC-SHA-256 (RFC 8018, SP 800-132). Two: only the second repeats its iteration, only the first takes no time.
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
        source: "https://www.rfc-editor.org/rfc/rfc7914#section-11, P = Password",
        test: Test::Pbkdf2 {
            hash: Hash::Sha256,
            password: Hex("50617373776f7264"),
            salt: Hex("4e61436c"),
            iterations: 80_000,
            output: Hex("4ddcd8f60b98be21830cee5ef22701f9641a4418d04c0414aeff08876b34ab56\
                 a1d425a1225833549adb841b51c9b3176a272bdebba1d078478f62b397f33c8d"),
        },
    },
];
