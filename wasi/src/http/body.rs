//! The body of a guest's response. It knows whether the guest that writes it came to its end.

use crate::{Error, Result};
use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body::{Frame, SizeHint};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::sync::oneshot;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

/// The body of a response, as the guest writes it.
///
/// If the guest fails or is dropped before the end has been read, the body ends with [`Error::GuestFailed`] or
/// [`Error::GuestDropped`], so that nobody takes it for complete. (A guest that returns without finishing its body leaves one that
/// looks complete, because wasmtime-wasi-http does not tell the two apart.) If this is dropped before its end, the guest is
/// cancelled.
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
    /// How the guest ended, and if it failed, why. It says so before its store can be dropped. `None` once it ended well.
    pub(super) ended: Option<oneshot::Receiver<Result<(), String>>>,
    /// Tells the guest that the client has everything, so that it may go on as long as it likes, or why it is cancelled.
    pub(super) release: oneshot::Sender<Result<(), Error>>,
}

impl Guest {
    /// Lets the guest go on without a client.
    pub(super) fn let_go(self) {
        // A guest that has ended does not hear it.
        let _ = self.release.send(Ok(()));
    }

    /// Cancels the guest, which can no longer respond.
    pub(super) fn cannot_respond(self) -> wasmtime::Error {
        // As above.
        let _ = self.release.send(Err(Error::NoResponse));
        Error::NoResponse.into()
    }

    /// Why there will not be more of the response, if the guest did not mean it to end. If a guest failed or was dropped, the
    /// response is gone with its store, which looks like an end.
    pub(super) fn failure(&mut self, cx: &mut Context<'_>) -> Option<wasmtime::Error> {
        let Poll::Ready(ended) = Pin::new(self.ended.as_mut()?).poll(cx) else { return None };
        match ended {
            Ok(Ok(())) => {
                self.ended = None;
                None
            }
            Ok(Err(reason)) => Some(Error::GuestFailed { reason }.into()),
            Err(_) => Some(Error::GuestDropped.into()),
        }
    }
}

impl Body {
    pub(super) fn of(response: Response<HyperOutgoingBody>, to_head: bool, guest: Guest) -> Response<Self> {
        let missing = missing(&response, to_head);
        let mut response = response.map(|written| Self { written, missing, guest: Some(guest) });
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
        let written = Pin::new(&mut self.written).poll_frame(cx);
        let failure = match &written {
            Poll::Ready(Some(_)) => None,
            // While a store exists, it keeps the body of a guest that failed open.
            Poll::Ready(None) | Poll::Pending => self.guest.as_mut().and_then(|guest| guest.failure(cx)),
        };
        let frame = match failure {
            Some(failure) => Some(Err(failure)),
            None => ready!(written).map(|frame| frame.map_err(wasmtime::Error::from)),
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
