//! One request and its response: the guest that handles the request, and the answer that a server waits for.

use super::View;
use super::body::{Body, Guest};
use crate::{Error, Result};
use bytes::Bytes;
use http::{Method, Request, Response};
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::oneshot;
use wasmtime_async::component::{AsyncFunc, InstancePreExt};
use wasmtime_async::{Carries, Stack, Store};
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::bindings::{Proxy, ProxyPre};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

/// What the guest sets, and whether it answers a request for the header alone.
type Set = (Result<Response<HyperOutgoingBody>, ErrorCode>, bool);

/// Begins an exchange of a request for a response. The [`Responder`] runs the guest, and the [`Answer`] waits for its response.
///
/// They are two futures because a guest goes on after it has set its response: it writes the body, and may do other work after
/// that. So a server puts the guest into a task of its own.
///
/// # Examples
///
/// This answers a request of hyper's in a task of tokio's. The example `serve` is the whole server.
///
/// ```
/// use http_body_util::Full;
/// use hyper::body::Bytes;
/// use hyper::{Request, Response};
/// use wasmtime::component::ResourceTable;
/// use wasmtime_async::{DEFAULT_STACK_SIZE, SendFiberStack, Stack, Store};
/// use wasmtime_async_wasi::http;
/// use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
/// use wasmtime_wasi_http::p2::bindings::ProxyPre;
/// use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
/// use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};
///
/// #[derive(Default)]
/// struct Data {
///     wasi: WasiCtx,
///     http: WasiHttpCtx,
///     table: ResourceTable,
/// }
///
/// impl WasiView for Data {
///     fn ctx(&mut self) -> WasiCtxView<'_> {
///         WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
///     }
/// }
///
/// impl WasiHttpView for Data {
///     fn http(&mut self) -> WasiHttpCtxView<'_> {
///         WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: Default::default() }
///     }
/// }
///
/// /// For `hyper::service::service_fn`, where `B` is hyper's `Incoming`.
/// async fn serve(proxy: ProxyPre<Data>, request: Request<Full<Bytes>>) -> wasmtime::Result<Response<http::Body>> {
///     let mut stack = SendFiberStack::new(DEFAULT_STACK_SIZE)?;
///     let mut store = Store::new(proxy.engine(), Data::default());
///     let (responder, answer) = http::exchange();
///     tokio::spawn(async move {
///         if let Err(error) = responder.handle(&mut stack, &mut store, &proxy, Scheme::Http, request).await {
///             eprintln!("{error:#}");
///         }
///     });
///     answer.await
/// }
/// ```
pub fn exchange() -> (Responder, Answer) {
    let (set, response) = oneshot::channel();
    let (release, released) = oneshot::channel();
    let (end, ended) = oneshot::channel();
    let responder = Responder { end, set, released };
    (responder, Answer { response, guest: Some(Guest { ended: Some(ended), release }) })
}

/// The side of an exchange where the guest is: see [`exchange`].
#[must_use = "without `handle` there is no response"]
pub struct Responder {
    /// Dropped first, so that the answer does not take this for a guest that cannot respond.
    end: oneshot::Sender<Result<(), String>>,
    set: oneshot::Sender<Set>,
    released: oneshot::Receiver<Result<(), Error>>,
}

impl Responder {
    /// Instantiates a component on `stack`, and calls its `wasi:http/incoming-handler` with the request.
    ///
    /// The linker that made `proxy` has the functions of [`http::add_to_linker`](super::add_to_linker) and those of
    /// [`p2::add_to_linker`](crate::p2::add_to_linker). Use a store for each request, and drop it after that: what the guest
    /// has not closed, a request of its own for instance, is closed with the store.
    ///
    /// # Errors
    ///
    /// - whatever makes the guest trap, and the errors of [`Stack::run`];
    /// - a request that is not one, for instance without an authority;
    /// - [`Error::ClientGone`] if the guest was cancelled because the answer or its body was dropped before the response was
    ///   complete;
    /// - [`Error::NoResponse`] if the guest was cancelled because it dropped what sets its response.
    ///
    /// If the response was not complete, the [`Answer`] or its [`Body`] gets [`Error::GuestFailed`], with the text of the error.
    ///
    /// # Panics
    ///
    /// If the component belongs to another engine than the store. `poll` propagates a panic of a host function.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the guest is cancelled wherever it waits: see [`Call`](wasmtime_async::Call). A response
    /// that is not complete ends with [`Error::GuestDropped`].
    pub async fn handle<S, T, B>(
        self,
        stack: &mut S,
        store: &mut Store<T>,
        proxy: &ProxyPre<T>,
        scheme: Scheme,
        request: Request<B>,
    ) -> Result<()>
    where
        S: Stack + Carries<T>,
        T: View + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<wasmtime_wasi_http::Error>,
    {
        let Self { end, set, released } = self;
        let to_head = request.method() == Method::HEAD;
        let set = Arc::new(set);
        // Keeps it if the table has no place for it, until the answer was told what went wrong.
        let mut kept = Some(Arc::clone(&set));
        let guest = async {
            // First, so that it is dropped with the store, after the answer was told what went wrong.
            let set = store.data_mut().http().new_response_outparam_from_callback(move |response| {
                // `kept` has gone, so there is no other.
                if let Some(set) = Arc::into_inner(set) {
                    // The client may have gone.
                    let _ = set.send((response, to_head));
                }
            })?;
            kept = None;
            let request = store.data_mut().http().new_incoming_request(scheme, request)?;
            let instance = proxy.instance_pre().instantiate_on(stack, store).await?;
            let handle = Proxy::new(&mut *store, &instance)?.wasi_http_incoming_handler().func_handle();
            AsyncFunc::from(handle).call(stack, store, (request, set)).await
        };
        let ended = while_wanted(released, guest).await;
        // The client may have everything, or may have gone.
        let _ = end.send(match &ended {
            Ok(()) => Ok(()),
            Err(error) => Err(format!("{error:#}")),
        });
        drop(kept);
        ended
    }
}

/// Runs a guest until it ends, or until its response is dropped or given up before it is complete.
async fn while_wanted(
    released: oneshot::Receiver<Result<(), Error>>,
    guest: impl Future<Output = Result<()>>,
) -> Result<()> {
    let mut guest = pin!(guest);
    let mut released = Some(released);
    poll_fn(|cx| {
        if let Some(Poll::Ready(told)) = released.as_mut().map(|released| Pin::new(released).poll(cx)) {
            match told {
                Ok(Ok(())) => released = None,
                Ok(Err(error)) => return Poll::Ready(Err(error.into())),
                Err(_) => return Poll::Ready(Err(Error::ClientGone.into())),
            }
        }
        guest.as_mut().poll(cx)
    })
    .await
}

/// The side of an exchange where the client is: the future of the response, which is ready when the guest has set it.
///
/// # Errors
///
/// - [`Error::GuestFailed`], which [`Responder::handle`] returns as the error that it is;
/// - wasmtime-wasi-http's [`ErrorCode`] that the guest sets in place of a response;
/// - [`Error::NoResponse`];
/// - [`Error::GuestDropped`].
///
/// # Panics
///
/// If it is polled after it was ready.
///
/// # Cancel safety
///
/// When this is dropped, the guest is cancelled.
#[must_use = "dropping this cancels the guest"]
pub struct Answer {
    response: oneshot::Receiver<Set>,
    guest: Option<Guest>,
}

impl Future for Answer {
    type Output = Result<Response<Body>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut guest = this.guest.take().expect("the answer was polled after it was ready");
        match Pin::new(&mut this.response).poll(cx) {
            Poll::Ready(Ok(set)) => return Poll::Ready(respond(set, guest)),
            // The guest failed, or has dropped what sets it.
            Poll::Ready(Err(_)) => {
                return Poll::Ready(Err(guest.failure(cx).unwrap_or_else(|| guest.cannot_respond())));
            }
            Poll::Pending => {}
        }
        if let Some(failure) = guest.failure(cx) {
            return Poll::Ready(Err(failure));
        }
        if guest.ended.is_some() {
            this.guest = Some(guest);
            return Poll::Pending;
        }
        // The guest may have set it since.
        Poll::Ready(match this.response.try_recv() {
            Ok(set) => respond(set, guest),
            Err(_) => Err(Error::NoResponse.into()),
        })
    }
}

fn respond((response, to_head): Set, guest: Guest) -> Result<Response<Body>> {
    match response {
        Ok(response) => Ok(Body::of(response, to_head, guest)),
        Err(code) => {
            guest.let_go();
            Err(code.into())
        }
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder").finish_non_exhaustive()
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").finish_non_exhaustive()
    }
}
