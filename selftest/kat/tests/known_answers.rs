//! The published vectors pass, and every one of them can fail.
#![allow(clippy::unwrap_used, clippy::panic, reason = "functions beside the tests are tests too")]

use std::collections::BTreeSet;

use casemate_kat::{Hex, KatError, Test, Vector, published, run};

#[test]
fn every_published_vector_passes() {
    for outcome in run(&published()) {
        assert_eq!(outcome.result, Ok(()), "{} ({})", outcome.name, outcome.source);
    }
}

#[test]
fn every_vector_has_a_name_of_its_own_and_a_url() {
    let vectors = published();
    let names: BTreeSet<_> = vectors.iter().map(|v| v.name).collect();
    assert_eq!(names.len(), vectors.len());
    assert!(vectors.iter().all(|v| v.source.starts_with("https://")));
}

/// The same text with its last hexadecimal digit changed. Leaks: a vector's text is `'static`.
fn flip(hex: Hex) -> Hex {
    let mut text = hex.0.to_owned();
    let last = text.pop().unwrap();
    text.push(if last == '0' { '1' } else { '0' });
    Hex(text.leak())
}

fn with_a_flipped_answer(vector: Vector) -> Vector {
    let mut vector = vector;
    match &mut vector.test {
        Test::Digest { digest: answer, .. }
        | Test::Hmac { tag: answer, .. }
        | Test::Hkdf { output: answer, .. }
        | Test::Pbkdf2 { output: answer, .. }
        | Test::Tls12Prf { output: answer, .. }
        | Test::AesGcm { tag: answer, .. }
        | Test::Verify { signature: answer, .. }
        | Test::RsaSign { signature: answer, .. }
        | Test::Ecdh { shared: answer, .. } => *answer = flip(*answer),
    }
    vector
}

#[test]
fn a_flipped_answer_fails_its_own_test_and_no_other() {
    let vectors = published();
    for index in 0..vectors.len() {
        let mut vectors = vectors.clone();
        vectors[index] = with_a_flipped_answer(vectors[index]);
        for (at, outcome) in run(&vectors).into_iter().enumerate() {
            if at != index {
                assert_eq!(outcome.result, Ok(()), "{} with {} flipped", outcome.name, vectors[index].name);
                continue;
            }
            let expected = match vectors[index].test {
                Test::Verify { .. } => KatError::Refused("signature"),
                _ => KatError::WrongAnswer,
            };
            assert_eq!(outcome.result, Err(expected), "{}", outcome.name);
        }
    }
}

#[test]
fn text_that_is_no_hexadecimal_is_a_failure_not_a_pass() {
    let mut vector = casemate_kat::SHA2[0];
    if let Test::Digest { message, .. } = &mut vector.test {
        *message = Hex("xyz");
    }
    assert_eq!(run(&[vector])[0].result, Err(KatError::Vector("message")));
}

/// What the rest of the tree uses of the module. A new use comes with a known answer, or this list is not true any more.
#[test]
fn every_algorithm_in_use_has_a_known_answer() {
    let names: Vec<_> = published().iter().map(|vector| vector.name).collect();
    let used = ["SHA-256", "SHA-384", "SHA-512", "HMAC-SHA-256", "PBKDF2-HMAC-SHA-256", "HKDF-SHA-256", "HKDF-SHA-384"];
    for used in used {
        assert!(names.iter().any(|name| name.starts_with(used)), "{used}: {names:?}");
    }
}
