//! Frames of the local sockets: `length: u32 big-endian, version: u8, body[length - 1]`. The length counts the version and
//! is checked before a byte of the body is read.

use std::io::{self, Read, Write};

use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroizing;

/// Room for a frame with a secret in it: a buffer that grows leaves copies behind.
const ROOM: usize = 2048;

/// A frame that is not one.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The socket failed, or ended inside a frame.
    #[error("local socket: {0}")]
    Io(#[from] io::Error),
    /// The peer announced more than the limit, or nothing.
    #[error("frame of {length} bytes, the limit is {limit}")]
    Length {
        /// Announced length.
        length: usize,
        /// Most that is taken.
        limit: usize,
    },
    /// The peer speaks another version.
    #[error("frame version {found}, this program speaks {expected}: install the same release everywhere")]
    Version {
        /// The peer's.
        found: u8,
        /// Ours.
        expected: u8,
    },
    /// The body is not a message of this protocol.
    #[error("frame body is no message of this protocol")]
    Body,
}

/// What both sides of a protocol agree on.
#[derive(Clone, Copy, Debug)]
pub struct Framing {
    /// Version byte.
    pub version: u8,
    /// Longest frame in bytes, the version byte included.
    pub limit: usize,
}

impl Framing {
    /// Encodes `message` as one frame.
    ///
    /// # Errors
    /// It would be longer than the limit.
    pub fn encode(&self, message: &impl Serialize) -> Result<Vec<u8>, FrameError> {
        let mut frame = Vec::with_capacity(ROOM);
        frame.extend([0, 0, 0, 0, self.version]);
        let mut frame = postcard::to_extend(message, frame).map_err(|_| FrameError::Body)?;
        let length = frame.len() - 4;
        let announced = u32::try_from(length).map_err(|_| FrameError::Length { length, limit: self.limit })?;
        if length > self.limit {
            return Err(FrameError::Length { length, limit: self.limit });
        }
        for (place, byte) in frame.iter_mut().zip(announced.to_be_bytes()) {
            *place = byte;
        }
        Ok(frame)
    }

    /// Decodes what follows the length: version and body. The whole body must be one message.
    ///
    /// # Errors
    /// Another version, or no message.
    pub fn decode<T: DeserializeOwned>(&self, frame: &[u8]) -> Result<T, FrameError> {
        let (version, body) = frame.split_first().ok_or(FrameError::Length { length: 0, limit: self.limit })?;
        if *version != self.version {
            return Err(FrameError::Version { found: *version, expected: self.version });
        }
        match postcard::take_from_bytes(body) {
            Ok((message, [])) => Ok(message),
            Ok(_) | Err(_) => Err(FrameError::Body),
        }
    }

    fn checked(&self, header: [u8; 4]) -> Result<usize, FrameError> {
        let length = u32::from_be_bytes(header) as usize;
        if length == 0 || length > self.limit {
            return Err(FrameError::Length { length, limit: self.limit });
        }
        Ok(length)
    }

    /// Reads one message; nothing at a clean end before a frame. The frame is wiped: it may hold a PIN.
    ///
    /// # Errors
    /// As [`FrameError`] says; the connection is useless then.
    pub fn read<T: DeserializeOwned>(&self, from: &mut impl Read) -> Result<Option<T>, FrameError> {
        let mut header = [0; 4];
        if from.read(&mut header[..1])? == 0 {
            return Ok(None);
        }
        from.read_exact(&mut header[1..])?;
        let mut frame = Zeroizing::new(vec![0; self.checked(header)?]);
        from.read_exact(&mut frame)?;
        self.decode(&frame).map(Some)
    }

    /// Writes one message in one write. The frame is wiped, as by [`Framing::read`].
    ///
    /// # Errors
    /// As [`FrameError`] says.
    pub fn write(&self, to: &mut impl Write, message: &impl Serialize) -> Result<(), FrameError> {
        Ok(to.write_all(&Zeroizing::new(self.encode(message)?))?)
    }

    /// As [`Framing::read`], for tokio.
    ///
    /// # Errors
    /// As [`Framing::read`].
    pub async fn read_async<T: DeserializeOwned>(
        &self,
        from: &mut (impl AsyncRead + Unpin),
    ) -> Result<Option<T>, FrameError> {
        let mut header = [0; 4];
        if from.read(&mut header[..1]).await? == 0 {
            return Ok(None);
        }
        from.read_exact(&mut header[1..]).await?;
        let mut frame = vec![0; self.checked(header)?];
        from.read_exact(&mut frame).await?;
        self.decode(&frame).map(Some)
    }

    /// As [`Framing::write`], for tokio.
    ///
    /// # Errors
    /// As [`Framing::write`].
    pub async fn write_async(
        &self,
        to: &mut (impl AsyncWrite + Unpin),
        message: &impl Serialize,
    ) -> Result<(), FrameError> {
        Ok(to.write_all(&self.encode(message)?).await?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FRAMING: Framing = Framing { version: 1, limit: 64 };

    #[test]
    fn a_frame_over_the_limit_is_refused_before_it_is_read() {
        let mut from: &[u8] = &[0xff, 0xff, 0xff, 0xff, 1];
        assert!(matches!(FRAMING.read::<u8>(&mut from), Err(FrameError::Length { length: 0xffff_ffff, limit: 64 })));
        assert!(matches!(FRAMING.encode(&vec![7u8; 64]), Err(FrameError::Length { .. })));
    }

    #[test]
    fn a_cut_frame_is_an_error_and_a_clean_end_is_none() {
        let frame = FRAMING.encode(&(1u8, "abc")).unwrap();
        assert!(FRAMING.read::<(u8, String)>(&mut &frame[..frame.len() - 1]).is_err());
        assert!(FRAMING.read::<(u8, String)>(&mut &frame[..0]).unwrap().is_none());
    }

    #[test]
    fn another_version_and_trailing_bytes_are_refused() {
        let mut frame = FRAMING.encode(&5u8).unwrap();
        assert!(matches!(FRAMING.decode::<u8>(&[2, 5]), Err(FrameError::Version { found: 2, expected: 1 })));
        frame.push(0);
        assert!(matches!(FRAMING.decode::<u8>(&frame[4..]), Err(FrameError::Body)));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(number: u64, text in ".{0,8}") {
            let frame = FRAMING.encode(&(number, &text)).unwrap();
            let read: (u64, String) = FRAMING.read(&mut frame.as_slice()).unwrap().unwrap();
            prop_assert_eq!(read, (number, text));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = FRAMING.read::<(u64, String, Vec<u8>)>(&mut bytes.as_slice());
        }
    }
}
