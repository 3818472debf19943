//! `tag:u8, length:u16, value` (phone-formats §1), big-endian.
use crate::PhoneFileError;

/// Takes elements from the front of a structure.
pub(crate) struct Reader<'a> {
    what: &'static str,
    whole: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, whole: bytes, rest: bytes }
    }

    /// How many bytes were taken.
    pub(crate) const fn at(&self) -> usize {
        self.whole.len() - self.rest.len()
    }

    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The tag that comes next.
    pub(crate) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    pub(crate) fn element(&mut self) -> Result<(u8, &'a [u8]), PhoneFileError> {
        let (tag, value, rest) = split(self.rest).ok_or_else(|| self.malformed("an element is cut short"))?;
        self.rest = rest;
        Ok((tag, value))
    }

    pub(crate) fn expect(&mut self, tag: u8) -> Result<&'a [u8], PhoneFileError> {
        match self.peek() {
            Some(found) if found == tag => self.element().map(|(_, value)| value),
            Some(found) => Err(self.malformed(format!("tag {found} where {tag} belongs"))),
            None => Err(self.malformed(format!("the end where tag {tag} belongs"))),
        }
    }

    pub(crate) fn optional(&mut self, tag: u8) -> Result<Option<&'a [u8]>, PhoneFileError> {
        if self.peek() == Some(tag) { self.element().map(|(_, value)| Some(value)) } else { Ok(None) }
    }

    /// A value of exactly `N` bytes.
    pub(crate) fn fixed<const N: usize>(&mut self, tag: u8) -> Result<[u8; N], PhoneFileError> {
        let value = self.expect(tag)?;
        self.array(tag, value)
    }

    pub(crate) fn array<const N: usize>(&self, tag: u8, value: &[u8]) -> Result<[u8; N], PhoneFileError> {
        value.try_into().map_err(|_| self.malformed(format!("tag {tag} has {} bytes, not {N}", value.len())))
    }

    /// A text: UTF-8 with one NUL at its end that the length counts, and no other.
    pub(crate) fn text(&self, tag: u8, value: &[u8]) -> Result<String, PhoneFileError> {
        let refuse = || self.malformed(format!("tag {tag} is no text with one NUL at its end"));
        let (&0, text) = value.split_last().ok_or_else(refuse)? else { return Err(refuse()) };
        let text = std::str::from_utf8(text).map_err(|_| refuse())?;
        if text.contains('\0') { Err(refuse()) } else { Ok(text.to_owned()) }
    }

    pub(crate) fn expect_text(&mut self, tag: u8) -> Result<String, PhoneFileError> {
        let value = self.expect(tag)?;
        self.text(tag, value)
    }

    /// The next `length` bytes as a structure of their own.
    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], PhoneFileError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(|| self.malformed("it is cut short"))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn finish(self) -> Result<(), PhoneFileError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.malformed("bytes are left over")) }
    }

    pub(crate) fn malformed(&self, detail: impl Into<String>) -> PhoneFileError {
        PhoneFileError::Malformed { what: self.what, at: self.at(), detail: detail.into() }
    }
}

fn split(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = input.split_first()?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    Some((tag, value, rest))
}

/// Appends an element.
pub(crate) fn put(out: &mut Vec<u8>, tag: u8, value: &[u8]) -> Result<(), PhoneFileError> {
    let length = u16::try_from(value.len()).map_err(|_| PhoneFileError::ValueTooLong { tag, length: value.len() })?;
    out.push(tag);
    out.extend(length.to_be_bytes());
    out.extend(value);
    Ok(())
}

/// Appends a text with its NUL. A NUL inside would end it early for a phone, so it is refused.
pub(crate) fn put_text(out: &mut Vec<u8>, tag: u8, text: &str) -> Result<(), PhoneFileError> {
    if text.contains('\0') {
        return Err(PhoneFileError::Text { what: "text without a NUL", value: text.to_owned() });
    }
    let mut value = text.as_bytes().to_vec();
    value.push(0);
    put(out, tag, &value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn elements_survive(elements in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..300)), 0..20)) {
            let mut bytes = Vec::new();
            for (tag, value) in &elements {
                put(&mut bytes, *tag, value).unwrap();
            }
            let mut reader = Reader::new("test", &bytes);
            for (tag, value) in &elements {
                prop_assert_eq!(reader.element().unwrap(), (*tag, &**value));
            }
            reader.finish().unwrap();
        }

        #[test]
        fn texts_survive_unless_they_hold_a_nul(text in any::<String>()) {
            let mut bytes = Vec::new();
            let put = put_text(&mut bytes, 3, &text);
            prop_assert_eq!(put.is_err(), text.contains('\0'));
            if put.is_ok() {
                prop_assert_eq!(Reader::new("test", &bytes).expect_text(3).unwrap(), text);
            }
        }

        #[test]
        fn arbitrary_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut reader = Reader::new("test", &bytes);
            while reader.element().is_ok() {}
            prop_assert!(reader.at() <= bytes.len());
        }
    }
}
