//! The body of a guest's response. It knows whether the guest that writes it came to its end.

use crate::{Error, Result};
use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body::{Frame, SizeHint};
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

/// The body of a response, as the guest writes it.
///
/// If the guest traps or is dropped before the end has been read, the body ends with an error, so that nobody takes it for
/// complete. If this is dropped before its end, the guest is cancelled.
#[must_use = "dropping this cancels the guest"]
pub struct Body {
    written: HyperOutgoingBody,
    /// How many bytes are to come, if the guest has said how long the body is.
    missing: Option<u64>,
    /// `None` once the body is complete.
    guest: Option<Guest>,
}

/// What connects a response to the guest that gives it. The guest is cancelled when this is dropped.
pub(super) struct Guest {
    /// Tells the guest that the client has everything, so that it may go on as long as it likes.
    pub(super) complete: oneshot::Sender<()>,
    /// How the guest ended. It says so before its store can be dropped.
    pub(super) ended: oneshot::Receiver<Result<()>>,
}

impl Guest {
    /// Lets the guest go on without a client.
    pub(super) fn let_go(self) {
        // A guest that has ended does not hear it.
        let _ = self.complete.send(());
    }

    /// Why there will not be more of the response, if the guest did not mean it to end. If a guest trapped or was dropped, the
    /// response is gone with its store, which looks like an end.
    pub(super) fn failure(&mut self) -> Option<wasmtime::Error> {
        match self.ended.try_recv() {
            Ok(Ok(())) | Err(TryRecvError::Empty) => None,
            Ok(Err(error)) => Some(error),
            Err(TryRecvError::Closed) => Some(Error::GuestDropped.into()),
        }
    }
}

impl Body {
    /// Without a guest, everything is written already.
    pub(super) fn of(response: Response<HyperOutgoingBody>, to_head: bool, guest: Option<Guest>) -> Response<Self> {
        let missing = missing(&response, to_head);
        let mut response = response.map(|written| Self { written, missing, guest });
        response.body_mut().let_go_if_complete();
        response
    }

    fn let_go_if_complete(&mut self) {
        if self.missing == Some(0)
            && let Some(guest) = self.guest.take()
        {
            guest.let_go();
        }
    }
}

/// How many bytes will be sent, if that is known.
fn missing(response: &Response<HyperOutgoingBody>, to_head: bool) -> Option<u64> {
    let no_body = to_head || matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if no_body || http_body::Body::is_end_stream(response.body()) {
        return Some(0);
    }
    response.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = wasmtime::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        let frame = match ready!(Pin::new(&mut self.written).poll_frame(cx)) {
            Some(frame) => Some(frame.map_err(wasmtime::Error::from)),
            None => self.guest.as_mut().and_then(Guest::failure).map(Err),
        };
        self.missing = match frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
            Some(data) => self.missing.map(|missing| missing.saturating_sub(data.len() as u64)),
            // Trailers, an error, or the end.
            None => Some(0),
        };
        self.let_go_if_complete();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.written.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.written.size_hint()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body")
            .field("missing", &self.missing)
            .field("complete", &self.guest.is_none())
            .finish_non_exhaustive()
    }
}
