//! The smallest HTTP/1.1 client that can fetch a phone's files: one GET a connection, bounded (RFC 9112).

use std::io::{Read, Write};

use super::MAX_FILE;
use crate::error::{PhoneError, Result};
use crate::tls::{Endpoint, TlsVersions};

/// Longest status line and header fields together, in bytes.
const MAX_HEAD: usize = 16 * 1024;
const WHAT: &str = "HTTP response";

/// Fetches `/name` without TLS.
///
/// # Errors
/// [`PhoneError::NotFound`] for 404, [`PhoneError::FileRefused`] for any other status than 200,
/// [`PhoneError::Malformed`] for a response this client cannot bound, or a failure of the connection.
pub fn fetch(endpoint: &Endpoint, name: &str) -> Result<Vec<u8>> {
    exchange(endpoint, &mut endpoint.connect()?, name)
}

/// Fetches `/name` over TLS from a server that presents one of `certificates`, byte for byte.
///
/// # Errors
/// As [`fetch`], and what [`Endpoint::connect_tls`] fails with.
pub fn fetch_tls(
    endpoint: &Endpoint,
    name: &str,
    versions: TlsVersions,
    certificates: Vec<Vec<u8>>,
) -> Result<Vec<u8>> {
    exchange(endpoint, &mut endpoint.connect_tls(versions, certificates)?, name)
}

fn exchange(endpoint: &Endpoint, stream: &mut (impl Read + Write), name: &str) -> Result<Vec<u8>> {
    if !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(PhoneError::Setting("a file name that HTTP cannot carry".to_owned()));
    }
    let host = if endpoint.host.contains(':') { format!("[{}]", endpoint.host) } else { endpoint.host.clone() };
    let request =
        format!("GET /{name} HTTP/1.1\r\nHost: {host}:{}\r\nAccept: */*\r\nConnection: close\r\n\r\n", endpoint.port);
    stream.write_all(request.as_bytes()).and_then(|()| stream.flush()).map_err(|error| endpoint.failed(error))?;
    let mut received = Vec::new();
    let head = loop {
        if let Some(head) = parse_head(&received)? {
            break head;
        }
        read_some(endpoint, stream, &mut received)?;
    };
    match head.status {
        200 => {}
        404 => return Err(PhoneError::NotFound { name: name.to_owned() }),
        status => {
            return Err(PhoneError::FileRefused { name: name.to_owned(), why: format!("HTTP status {status}") });
        }
    }
    let length = head.length.ok_or(malformed("no Content-Length"))?;
    if length > MAX_FILE {
        return Err(malformed("the file is larger than this phone takes"));
    }
    let mut body = received.split_off(head.end);
    while body.len() < length {
        read_some(endpoint, stream, &mut body)?;
    }
    if body.len() > length {
        return Err(malformed("more bytes than its Content-Length"));
    }
    Ok(body)
}

fn read_some(endpoint: &Endpoint, stream: &mut impl Read, into: &mut Vec<u8>) -> Result<()> {
    let mut buffer = [0; 4096];
    let count = stream.read(&mut buffer).map_err(|error| endpoint.failed(error))?;
    if count == 0 {
        return Err(malformed("the connection closed before its end"));
    }
    into.extend_from_slice(buffer.get(..count).unwrap_or_default());
    Ok(())
}

/// What the phone needs of a response's head.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    length: Option<usize>,
    /// Where the body begins.
    end: usize,
}

/// Returns `None` while the head is not complete.
fn parse_head(received: &[u8]) -> Result<Option<Head>> {
    let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") else {
        return if received.len() > MAX_HEAD { Err(malformed("its head is too long")) } else { Ok(None) };
    };
    let head =
        std::str::from_utf8(received.get(..end).unwrap_or_default()).map_err(|_| malformed("its head is not text"))?;
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1."))
        .and_then(|line| line.split(' ').nth(1))
        .and_then(|status| status.parse().ok())
        .ok_or(malformed("no status line"))?;
    let mut length = None;
    for line in lines {
        let (field, value) = line.split_once(':').ok_or(malformed("a header field without a colon"))?;
        if field.eq_ignore_ascii_case("transfer-encoding") {
            return Err(malformed("a transfer encoding, which phones do not take"));
        }
        if field.eq_ignore_ascii_case("content-length") {
            let value = value.trim().parse().map_err(|_| malformed("its Content-Length is no number"))?;
            if length.replace(value).is_some() {
                return Err(malformed("two Content-Lengths"));
            }
        }
    }
    Ok(Some(Head { status, length, end: end + 4 }))
}

fn malformed(why: &'static str) -> PhoneError {
    PhoneError::Malformed { what: WHAT, why }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_head_is_read_only_when_it_is_whole() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Type: a\r\ncontent-LENGTH: 12\r\n\r\n";
        for cut in 0..whole.len() {
            assert_eq!(parse_head(&whole[..cut]).unwrap(), None);
        }
        assert_eq!(parse_head(whole).unwrap(), Some(Head { status: 200, length: Some(12), end: whole.len() }));
    }

    #[test]
    fn a_head_that_cannot_be_bounded_is_refused() {
        for head in [
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "SIP/2.0 200 OK\r\n\r\n",
        ] {
            assert!(parse_head(head.as_bytes()).is_err(), "{head}");
        }
        assert!(parse_head(&vec![b'a'; MAX_HEAD + 1]).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = parse_head(&bytes);
        }
    }
}
