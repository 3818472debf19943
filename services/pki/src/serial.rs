use aws_lc_rs::rand;

use crate::PkiError;

/// A random serial number of 126 bits (RFC 5280, 4.1.2.2): positive and always 16 bytes, so that its text has one length.
///
/// # Errors
/// [`PkiError::Random`].
pub fn random_serial() -> Result<[u8; 16], PkiError> {
    let mut serial = [0; 16];
    rand::fill(&mut serial).map_err(|_| PkiError::Random)?;
    let [first, ..] = &mut serial;
    *first = *first & 0x7f | 0x40;
    Ok(serial)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_are_positive_of_one_length_and_differ() {
        let serials: std::collections::BTreeSet<[u8; 16]> = (0..100).map(|_| random_serial().unwrap()).collect();
        assert_eq!(serials.len(), 100);
        assert!(serials.iter().all(|serial| (0x40..0x80).contains(&serial[0])));
    }
}
