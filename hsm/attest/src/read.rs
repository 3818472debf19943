use crate::AttestError;

/// Reads the TPM's big-endian structures front to back (TPM 2.0 part 2, 4.2); total over any bytes.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], AttestError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(self.malformed())?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, AttestError> {
        let bytes = self.take(2)?.try_into().map_err(|_| self.malformed())?;
        Ok(u16::from_be_bytes(bytes))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, AttestError> {
        let bytes = self.take(4)?.try_into().map_err(|_| self.malformed())?;
        Ok(u32::from_be_bytes(bytes))
    }

    /// A `TPM2B`: a length of two bytes and as many bytes.
    pub(crate) fn sized(&mut self) -> Result<&'a [u8], AttestError> {
        let length = self.u16()?;
        self.take(length.into())
    }

    /// That nothing follows.
    pub(crate) fn end(self) -> Result<(), AttestError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.malformed()) }
    }

    pub(crate) const fn malformed(&self) -> AttestError {
        AttestError::Malformed { what: self.what }
    }

    pub(crate) const fn unsupported(&self) -> AttestError {
        AttestError::Unsupported { what: self.what }
    }
}
