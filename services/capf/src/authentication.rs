//! How a phone proves itself, and what is kept of an authentication string.

use std::{fmt, ops::RangeInclusive};

use aws_lc_rs::{hmac, rand};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::protocol::Password;

/// Digits of an authentication string (guide 7925-7926).
pub const STRING_DIGITS: RangeInclusive<usize> = 4..=10;

/// What an operator gives to the phone's user: 4 to 10 digits, for one operation. Erased when dropped, never printed.
#[derive(Clone, Eq, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AuthenticationString(Zeroizing<String>);

/// The text is no authentication string. It does not say what the text was.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("an authentication string has 4 to 10 digits")]
pub struct BadAuthenticationString;

impl AuthenticationString {
    /// The digits.
    #[must_use]
    pub fn digits(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for AuthenticationString {
    type Error = BadAuthenticationString;

    fn try_from(mut text: String) -> Result<Self, BadAuthenticationString> {
        if STRING_DIGITS.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(Self(Zeroizing::new(text)));
        }
        text.zeroize();
        Err(BadAuthenticationString)
    }
}

impl From<AuthenticationString> for String {
    fn from(string: AuthenticationString) -> Self {
        string.0.as_str().to_owned()
    }
}

impl fmt::Debug for AuthenticationString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthenticationString(..)")
    }
}

/// How a phone proves to CAPF that it may have a certificate (guide 5733).
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// By authentication string: the user types it.
    AuthenticationString,
    /// By null string: not at all. For closed networks only, says the guide.
    NullString,
}

impl Mode {
    /// The word in records and audit events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AuthenticationString => "authentication-string",
            Self::NullString => "null-string",
        }
    }

    /// The mode of this word.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::AuthenticationString, Self::NullString].into_iter().find(|mode| mode.name() == name)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A random number could not be drawn from the module: nothing may go on.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the FIPS module gives no random bytes")]
pub struct NoRandom;

/// What is kept of an authentication string: HMAC-SHA-256 (FIPS 198-1) over a random salt and the digits, under a random key
/// of this store.
///
/// **What that is worth.** Ten digits are 33 bits. Whoever can read `capf.db` has the key as well and finds the string by
/// trying, in an hour at the most; no derivation function that a phone's user would wait for changes that, and PBKDF2 in the
/// module is approved only for secrets of 14 bytes and more. So this keeps the string from being read by accident (in a listing,
/// a backup, an error) and no more. What protects it is that the file is the daemon's alone, that five wrong attempts lock the
/// operation, and that the string is gone when the certificate is delivered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Verifier {
    /// Random, one an operation.
    pub salt: [u8; 16],
    /// The authentication code.
    pub tag: Vec<u8>,
}

/// The key of all verifiers of one store.
#[derive(Clone)]
pub struct VerifierKey(hmac::Key);

impl VerifierKey {
    /// The key with these bytes.
    #[must_use]
    pub fn new(bytes: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// What to keep of `string`.
    ///
    /// # Errors
    /// No random salt.
    pub fn verifier(&self, string: &AuthenticationString) -> Result<Verifier, NoRandom> {
        let mut salt = [0; 16];
        rand::fill(&mut salt).map_err(|_| NoRandom)?;
        Ok(Verifier { salt, tag: self.context(&salt, string.digits().as_bytes()).sign().as_ref().to_vec() })
    }

    /// Whether `presented` is the string of `verifier`, in a time that does not tell how much of it is right.
    #[must_use]
    pub fn matches(&self, verifier: &Verifier, presented: &Password) -> bool {
        let tag = self.context(&verifier.salt, presented.as_bytes()).sign();
        aws_lc_rs::constant_time::verify_slices_are_equal(tag.as_ref(), &verifier.tag).is_ok()
    }

    fn context(&self, salt: &[u8; 16], text: &[u8]) -> hmac::Context {
        let mut context = hmac::Context::with_key(&self.0);
        // The salt has one length, so no two pairs give the same bytes.
        context.update(salt);
        context.update(text);
        context
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(text: &str) -> AuthenticationString {
        AuthenticationString::try_from(text.to_owned()).unwrap()
    }

    #[test]
    fn a_string_is_4_to_10_digits_and_is_not_printed() {
        assert_eq!(format!("{:?}", string("1234567890")), "AuthenticationString(..)");
        for bad in ["", "123", "12345678901", "12 34", "abcd", "١٢٣٤"] {
            assert!(AuthenticationString::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_the_string_itself_matches_and_two_verifiers_of_one_string_differ() {
        let key = VerifierKey::new(&[7; 32]);
        let verifier = key.verifier(&string("12345")).unwrap();
        assert!(key.matches(&verifier, &Password::new(b"12345")));
        for wrong in [&b""[..], b"1234", b"123456", b"12346", b"012345", b" 12345"] {
            assert!(!key.matches(&verifier, &Password::new(wrong)));
        }
        assert!(!VerifierKey::new(&[8; 32]).matches(&verifier, &Password::new(b"12345")));
        assert_ne!(key.verifier(&string("12345")).unwrap(), verifier);
    }
}
