//! A strict reader of DER elements (X.690, 8.1 and 10.1): definite lengths in the fewest bytes, nothing left over. The library
//! that reads the fields passes over bytes left inside a SEQUENCE; a broker that signs what it read must not.
use crate::PkiError;

pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;
pub(crate) const CONTEXT_0: u8 = 0xa0;
pub(crate) const CONTEXT_3: u8 = 0xa3;

/// One element: its identifier, its content, and all of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Element<'a> {
    pub(crate) tag: u8,
    pub(crate) content: &'a [u8],
    pub(crate) whole: &'a [u8],
}

/// Takes elements from the front of a content.
pub(crate) struct Reader<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads the elements of `content`; `what` is named in errors.
    pub(crate) const fn new(what: &'static str, content: &'a [u8]) -> Self {
        Self { what, rest: content }
    }

    /// Opens the one element that `der` is, with nothing after it.
    pub(crate) fn only(what: &'static str, tag: u8, der: &'a [u8]) -> Result<Element<'a>, PkiError> {
        let mut reader = Self::new(what, der);
        let element = reader.expect(tag)?;
        reader.finish()?;
        Ok(element)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next element, whatever it is.
    pub(crate) fn element(&mut self) -> Result<Element<'a>, PkiError> {
        let (element, rest) = split(self.rest).ok_or_else(|| self.error("an element is cut short or not in DER"))?;
        self.rest = rest;
        Ok(element)
    }

    /// The next element, which must have `tag`.
    pub(crate) fn expect(&mut self, tag: u8) -> Result<Element<'a>, PkiError> {
        let element = self.element()?;
        if element.tag == tag {
            Ok(element)
        } else {
            Err(PkiError::malformed(self.what, format!("tag {:#04x} where {tag:#04x} belongs", element.tag)))
        }
    }

    /// The next element if it has `tag`.
    pub(crate) fn optional(&mut self, tag: u8) -> Result<Option<Element<'a>>, PkiError> {
        if self.rest.first() == Some(&tag) { self.element().map(Some) } else { Ok(None) }
    }

    /// Nothing may be left.
    pub(crate) fn finish(self) -> Result<(), PkiError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.error("bytes are left over")) }
    }

    fn error(&self, detail: &str) -> PkiError {
        PkiError::malformed(self.what, detail)
    }
}

/// Splits the first element off. Identifiers of more than one byte are in no structure that is read here.
fn split(input: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (&tag, after_tag) = input.split_first()?;
    if tag & 0x1f == 0x1f {
        return None;
    }
    let (length, body) = length(after_tag)?;
    let (content, rest) = body.split_at_checked(length)?;
    let whole = input.get(..input.len() - rest.len())?;
    Some((Element { tag, content, whole }, rest))
}

fn length(input: &[u8]) -> Option<(usize, &[u8])> {
    let (&first, rest) = input.split_first()?;
    if first < 0x80 {
        return Some((usize::from(first), rest));
    }
    let count = usize::from(first & 0x7f);
    if count == 0 || count > 4 {
        return None;
    }
    let (bytes, rest) = rest.split_at_checked(count)?;
    let value = bytes.iter().fold(0usize, |value, &byte| value << 8 | usize::from(byte));
    let shortest = if value < 0x80 { 0 } else { (usize::BITS - value.leading_zeros()).div_ceil(8) as usize };
    (count == shortest).then_some((value, rest))
}

/// The unsigned big-endian bytes of a positive INTEGER, without the sign byte; zero is one zero byte.
pub(crate) fn unsigned(what: &'static str, content: &[u8]) -> Result<Vec<u8>, PkiError> {
    match content {
        [] => Err(PkiError::malformed(what, "an empty INTEGER")),
        [0, next, ..] if next & 0x80 == 0 => Err(PkiError::malformed(what, "an INTEGER with a needless zero byte")),
        [0, rest @ ..] if !rest.is_empty() => Ok(rest.to_vec()),
        [first, ..] if first & 0x80 != 0 => Err(PkiError::malformed(what, "a negative INTEGER")),
        plain => Ok(plain.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_taken_in_their_shortest_form_only() {
        assert!(Reader::only("test", OCTET_STRING, &[4, 1, 9]).is_ok());
        assert!(Reader::only("test", OCTET_STRING, &[4, 0x81, 1, 9]).is_err(), "long form of a short length");
        assert!(Reader::only("test", OCTET_STRING, &[4, 0x80, 9, 0, 0]).is_err(), "indefinite");
        assert!(Reader::only("test", OCTET_STRING, &[4, 1, 9, 9]).is_err(), "left over");
        assert!(Reader::only("test", OCTET_STRING, &[4, 2, 9]).is_err(), "cut short");
        let mut long = vec![4, 0x81, 0x80];
        long.resize(3 + 0x80, 7);
        assert_eq!(Reader::only("test", OCTET_STRING, &long).unwrap().content.len(), 0x80);
    }

    #[test]
    fn integers_lose_their_sign_byte_only() {
        assert_eq!(unsigned("test", &[0, 0x80]).unwrap(), [0x80]);
        assert_eq!(unsigned("test", &[0]).unwrap(), [0]);
        assert!(unsigned("test", &[0, 1]).is_err());
        assert!(unsigned("test", &[0xff]).is_err());
        assert!(unsigned("test", &[]).is_err());
    }
}
