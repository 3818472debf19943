//! HTTP/1.1 (RFC 9110, RFC 9112) for phones: GET and HEAD of one folder, within limits.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use casemate_runtime::refusals::Refusals;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Bytes, Incoming},
    header::{ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

use crate::{
    files::{File, Files},
    name::{Published, Transport, file_refused, locate},
    settings::HttpSettings,
};

/// hyper asks for at least this much room for a header.
const LEAST_HEADER_BYTES: usize = 8192;

/// What an HTTP listener needs.
pub struct Server {
    /// What is served.
    pub files: Arc<Files>,
    /// In the clear or over TLS.
    pub transport: Transport,
    /// Where refusals go.
    pub refusals: Arc<Refusals>,
    /// Limits.
    pub settings: HttpSettings,
}

impl Server {
    /// Serves one connection until it ends or a limit is reached.
    pub async fn connection(self: &Arc<Self>, stream: impl AsyncRead + AsyncWrite + Unpin, peer: String) {
        let served = AtomicU32::new(0);
        let service = service_fn(|request| {
            let last = served.fetch_add(1, Ordering::Relaxed) + 1 >= self.settings.requests;
            self.answer(request, &peer, last)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_millis(self.settings.header_ms))
            .max_headers(self.settings.header_fields)
            .max_buf_size(self.settings.header_bytes.max(LEAST_HEADER_BYTES))
            .serve_connection(TokioIo::new(stream), service);
        let idle = || served.load(Ordering::Relaxed) > 0;
        match timeout(Duration::from_millis(self.settings.connection_ms), connection).await {
            Ok(Ok(())) => {}
            // A phone that keeps its connection after an answer and leaves it is none to tell of.
            Ok(Err(error)) if error.is_timeout() && idle() => {}
            Ok(Err(error)) if error.is_timeout() => self.refusals.silence(&peer, "request header"),
            Ok(Err(error)) if error.is_parse() || error.is_parse_too_large() => {
                self.refusals.protocol(&peer, &error.to_string());
            }
            Ok(Err(error)) => tracing::debug!(%error, peer, "HTTP connection broken off"),
            Err(_) => self.refusals.silence(&peer, "connection-ms is over"),
        }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        peer: &str,
        last: bool,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let has_body = !request.body().is_end_stream();
        let mut response = if has_body {
            self.refusals.protocol(peer, "the request has a body");
            text(StatusCode::BAD_REQUEST)
        } else if matches!(*request.method(), Method::GET | Method::HEAD) {
            self.file(&request, peer).await
        } else {
            self.refusals.record(&file_refused(
                self.transport,
                peer,
                request.uri().path().as_bytes(),
                "nothing may be written",
            ));
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED);
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            response
        };
        if last || has_body {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }

    async fn file(&self, request: &Request<Incoming>, peer: &str) -> Response<Full<Bytes>> {
        let path = request.uri().path().as_bytes();
        let name = path.strip_prefix(b"/").unwrap_or(path);
        let published = match locate(name, self.transport) {
            Ok(Some(published)) => published,
            Ok(None) => return text(StatusCode::NOT_FOUND),
            Err(error) => {
                self.refusals.record(&file_refused(self.transport, peer, name, &error.to_string()));
                return text(StatusCode::FORBIDDEN);
            }
        };
        match self.files.fetch(published).await {
            Ok(Some(file)) => whole(published, &file, request.headers().get(IF_NONE_MATCH)),
            Ok(None) => text(StatusCode::NOT_FOUND),
            Err(error) => {
                tracing::error!(%error, "published file not served");
                text(StatusCode::SERVICE_UNAVAILABLE)
            }
        }
    }
}

/// 200 with the file, or 304 where the client has it. hyper leaves out the body in the answer to HEAD.
fn whole(published: Published, file: &File, known: Option<&HeaderValue>) -> Response<Full<Bytes>> {
    let tag = format!("\"{}\"", file.digest);
    let unchanged = known.is_some_and(|known| matches_tag(known.as_bytes(), tag.as_bytes()));
    let mut response = Response::new(Full::new(if unchanged { Bytes::new() } else { file.content.clone() }));
    if unchanged {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        let kind = match published {
            Published::TrustList | Published::Signed(_) => "application/octet-stream",
            Published::Unsigned(_) => "text/xml",
        };
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response.headers_mut().insert(CONTENT_LENGTH, file.content.len().into());
    }
    let tag = HeaderValue::try_from(tag).expect("hexadecimal digits in quotes are a header value");
    response.headers_mut().insert(ETAG, tag);
    response
}

/// `If-None-Match: * | [W/]"tag", ...` with the weak comparison (RFC 9110, 13.1.2).
fn matches_tag(list: &[u8], tag: &[u8]) -> bool {
    list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).any(|one| {
        let one = one.strip_prefix(b"W/").unwrap_or(one);
        one == b"*" || one == tag
    })
}

fn text(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{status}\n"))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entity_tags_are_compared_as_rfc_9110_says() {
        for (list, same) in [
            (&b"\"ab\""[..], true),
            (b"W/\"ab\"", true),
            (b"\"x\" , \"ab\"", true),
            (b"*", true),
            (b"\"abc\"", false),
            (b"ab", false),
            (b"", false),
        ] {
            assert_eq!(matches_tag(list, b"\"ab\""), same, "{list:?}");
        }
    }
}
