//! Option negotiation (RFC 2347): `blksize` (RFC 2348), `timeout` and `tsize` (RFC 2349). Others are not acknowledged, which
//! means no to them.

use std::time::Duration;

use serde::Deserialize;

use crate::packet::Options;

/// Block size without negotiation (RFC 1350, 2).
pub const DEFAULT_BLOCK: u16 = 512;

/// Longest retransmission interval that is agreed to, in seconds. RFC 2349 knows up to 255, with which one client could hold a
/// transfer for as long as the whole of it may take.
pub const TIMEOUT_LIMIT: u64 = 10;

/// A block size of RFC 2348: 8 to 65464 bytes.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
#[serde(try_from = "u16")]
pub struct BlockSize(u16);

impl BlockSize {
    /// In bytes.
    #[must_use]
    pub fn bytes(self) -> usize {
        usize::from(self.0)
    }
}

impl Default for BlockSize {
    /// What fits one Ethernet frame (1500 less 20 for IPv4, 8 for UDP and 4 for TFTP): larger blocks are IP fragments, and one
    /// lost fragment loses the block.
    fn default() -> Self {
        Self(1468)
    }
}

impl TryFrom<u16> for BlockSize {
    type Error = String;

    fn try_from(bytes: u16) -> Result<Self, String> {
        if (8..=65464).contains(&bytes) {
            Ok(Self(bytes))
        } else {
            Err(format!("a TFTP block has 8 to 65464 bytes (RFC 2348), not {bytes}"))
        }
    }
}

/// An option was given twice (RFC 2347, page 3: an option may only be specified once).
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the TFTP option {0} is given twice")]
pub struct OptionTwice(&'static str);

/// What was agreed on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Agreed {
    /// Block size in bytes.
    pub block: BlockSize,
    /// Retransmission interval, where the client set one.
    pub timeout: Option<Duration>,
    /// What the option acknowledgment says; empty means that none is sent.
    pub acknowledged: Options,
}

/// Answers the `options` of a read request for a file of `length` bytes. A block size over `largest` is answered with
/// `largest`, as RFC 2348 allows; a value that is no number or out of range is not acknowledged.
///
/// # Errors
/// An option is given twice.
pub fn agree(options: &[(Vec<u8>, Vec<u8>)], length: usize, largest: BlockSize) -> Result<Agreed, OptionTwice> {
    let mut agreed = Agreed { block: BlockSize(DEFAULT_BLOCK), timeout: None, acknowledged: Vec::new() };
    if let Some(asked) =
        find(options, "blksize")?.and_then(|asked| BlockSize::try_from(u16::try_from(asked).ok()?).ok())
    {
        agreed.block = asked.min(largest);
        agreed.acknowledge("blksize", agreed.block.0.into());
    }
    if let Some(seconds) = find(options, "timeout")?.filter(|seconds| (1..=TIMEOUT_LIMIT).contains(seconds)) {
        agreed.timeout = Some(Duration::from_secs(seconds));
        agreed.acknowledge("timeout", seconds);
    }
    if find(options, "tsize")?.is_some() {
        agreed.acknowledge("tsize", length as u64);
    }
    Ok(agreed)
}

impl Agreed {
    fn acknowledge(&mut self, option: &str, value: u64) {
        self.acknowledged.push((option.into(), value.to_string().into_bytes()));
    }
}

/// The value of the option `wanted` (names are compared without case), if it is a number.
fn find(options: &[(Vec<u8>, Vec<u8>)], wanted: &'static str) -> Result<Option<u64>, OptionTwice> {
    let mut values = options.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted.as_bytes()));
    let value = values.next();
    if values.next().is_some() {
        return Err(OptionTwice(wanted));
    }
    Ok(value.and_then(|(_, digits)| decimal(digits)))
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn options(of: &[(&str, &str)]) -> Vec<(Vec<u8>, Vec<u8>)> {
        of.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
    }

    #[test]
    fn known_options_are_answered_and_others_left_out() {
        let asked = options(&[("BLKSIZE", "1024"), ("windowsize", "4"), ("tsize", "0"), ("timeout", "3")]);
        let agreed = agree(&asked, 777, BlockSize::default()).unwrap();
        assert_eq!(agreed.block.bytes(), 1024);
        assert_eq!(agreed.timeout, Some(Duration::from_secs(3)));
        assert_eq!(agreed.acknowledged, options(&[("blksize", "1024"), ("timeout", "3"), ("tsize", "777")]));
    }

    #[test]
    fn a_larger_block_is_answered_with_the_largest() {
        let agreed = agree(&options(&[("blksize", "65464")]), 0, BlockSize(1468)).unwrap();
        assert_eq!(agreed.acknowledged, options(&[("blksize", "1468")]));
        let agreed = agree(&options(&[("blksize", "65464")]), 0, BlockSize(65464)).unwrap();
        assert_eq!(agreed.block.bytes(), 65464);
    }

    #[test]
    fn values_out_of_range_are_not_acknowledged() {
        let bad = [
            ("blksize", "7"),
            ("blksize", "65465"),
            ("blksize", "+9"),
            ("blksize", ""),
            ("timeout", "0"),
            ("timeout", "11"),
            ("timeout", "255"),
            ("timeout", "256"),
            ("tsize", "x"),
        ];
        for pair in bad {
            let agreed = agree(&options(&[pair]), 1, BlockSize::default()).unwrap();
            assert_eq!((agreed.block.bytes(), agreed.timeout, agreed.acknowledged), (512, None, vec![]), "{pair:?}");
        }
    }

    #[test]
    fn an_interval_of_ten_seconds_is_the_longest() {
        let agreed = agree(&options(&[("timeout", "10")]), 1, BlockSize::default()).unwrap();
        assert_eq!(agreed.timeout, Some(Duration::from_secs(10)));
        assert_eq!(agreed.acknowledged, options(&[("timeout", "10")]));
    }

    #[test]
    fn an_option_given_twice_is_refused() {
        let twice = options(&[("tsize", "0"), ("TSIZE", "0")]);
        assert_eq!(agree(&twice, 1, BlockSize::default()), Err(OptionTwice("tsize")));
    }

    proptest! {
        #[test]
        fn no_options_ask_for_what_is_not_allowed(asked: Vec<(Vec<u8>, Vec<u8>)>, size in "[0-9]{1,7}", largest in 8u16..=65464) {
            let mut asked = asked;
            asked.push((b"blksize".to_vec(), size.into_bytes()));
            if let Ok(agreed) = agree(&asked, 5, BlockSize(largest)) {
                prop_assert!(agreed.block.bytes() >= 8 && agreed.block.bytes() <= usize::from(largest).max(512));
            }
        }
    }
}
