use aws_lc_rs::hmac;
use casemate_hsm_api::Pin;
use tss_esapi::structures::Auth;
use zeroize::{Zeroize, Zeroizing};

/// The authorization value that stands for a PIN: as long as a TPM takes one for a name of SHA-256, whatever the PIN's
/// length. Guessing it needs the TPM, which counts.
pub(crate) fn auth_value(pin: &Pin, salt: &[u8]) -> Auth {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, salt), pin.expose().as_bytes());
    let mut value: Zeroizing<Vec<u8>> = Zeroizing::new(tag.as_ref().to_vec());
    without_trailing_zero(&mut value);
    auth(&value)
}

/// A TPM takes trailing zeros off an authorization value (TPM 2.0 part 1, 19.6.4.3), so none of ours ends in one.
pub(crate) fn without_trailing_zero(value: &mut [u8]) {
    if let Some(last) = value.last_mut() {
        *last |= 1;
    }
}

/// The library's type of an authorization value, which it wipes; empty if the value is too long, which no caller's is.
pub(crate) fn auth(value: &[u8]) -> Auth {
    let mut copy = value.to_vec();
    let auth = Auth::try_from(copy.as_slice()).unwrap_or_default();
    copy.zeroize();
    auth
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorization_values_are_full_length_and_differ_by_pin_and_salt() {
        let value = |pin: &str, salt: &[u8]| auth_value(&Pin::new(pin).unwrap(), salt).value().to_vec();
        let long = value(&"9".repeat(1000), b"salt");
        assert_eq!(long.len(), 32);
        assert_ne!(long, value("9", b"salt"));
        assert_ne!(value("9", b"salt"), value("9", b"other"));
        for pin in 0..64 {
            assert_eq!(value(&pin.to_string(), b"salt").last().unwrap() & 1, 1);
        }
    }
}
