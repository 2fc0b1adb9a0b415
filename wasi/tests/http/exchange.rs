//! The two sides of an exchange: what each gets when the other is gone, and when the guest goes wrong.

use crate::common::{NewStack, on_each_stack, stays_pending};
use crate::guests::{Data, ENGINE, GUEST};
use crate::outgoing::listen;
use crate::stacks::{Kind, RequestBody, handle, on_one_thread, request};
use bytes::Bytes;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use futures::future::{Either, join, select};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody};
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use wasmtime::{Result, Trap};
use wasmtime_async::{FiberStack, Store};
use wasmtime_async_wasi::Error;
use wasmtime_async_wasi::http::{Answer, Body, exchange};
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};

on_each_stack! {
    no_response no_response_yet_the_guest_goes_on bad_requests a_trap_in_the_middle_of_a_body
    a_trap_after_the_response the_answer_is_dropped the_body_is_dropped the_guest_is_dropped
    the_store_outlives_the_guest the_store_outlives_a_guest_with_a_body
    a_client_that_reads_slowly work_after_the_response
}

/// Sends the parts of a request's body. The body ends when this is dropped.
type Sender = UnboundedSender<Result<Frame<Bytes>, Infallible>>;

fn open_request(method: &str, path: &str) -> (Sender, Request<RequestBody>) {
    let (sender, parts) = unbounded();
    (sender, request(method, format!("http://host{path}"), StreamBody::new(parts)))
}

/// Runs a guest until its response is there.
async fn answered<F: Future<Output = Result<()>>>(mut guest: Pin<&mut F>, answer: Answer) -> Result<Response<Body>> {
    match select(answer, guest.as_mut()).await {
        Either::Left((response, _)) => response,
        Either::Right((ended, _)) => panic!("the guest has ended: {ended:?}"),
    }
}

fn is_client_gone(ended: Result<()>) -> bool {
    matches!(ended.unwrap_err().downcast_ref(), Some(Error::ClientGone))
}

fn has_trapped(ended: Result<()>) -> bool {
    ended.unwrap_err().downcast_ref() == Some(&Trap::UnreachableCodeReached)
}

fn is_failed(error: &wasmtime::Error, because: &str) -> bool {
    matches!(error.downcast_ref(), Some(Error::GuestFailed { reason }) if reason.contains(because))
}

fn no_response<S: Kind>() {
    on_one_thread(async {
        let fail = async |path| {
            let (responder, answer) = exchange();
            let request = request("GET", format!("http://host{path}"), Empty::new());
            let (ended, answer) = join(handle::<S>(responder, request), answer).await;
            (ended, answer.unwrap_err())
        };
        let (ended, error) = fail("/trap").await;
        assert!(has_trapped(ended));
        assert!(is_failed(&error, "unreachable"), "{error:?}");
        let (ended, error) = fail("/nothing").await;
        ended.unwrap();
        assert!(matches!(error.downcast_ref(), Some(Error::NoResponse)), "{error:?}");
    });
}

fn no_response_yet_the_guest_goes_on<S: Kind>() {
    on_one_thread(async {
        // It will never set a response, so there is no use in going on.
        let (_sender, request) = open_request("POST", "/drop");
        let (responder, answer) = exchange();
        let (ended, answer) = join(handle::<S>(responder, request), answer).await;
        let error = answer.unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(Error::NoResponse)), "{error:?}");
        assert!(matches!(ended.unwrap_err().downcast_ref(), Some(Error::NoResponse)));

        // It has said all that it has to say.
        let (sender, request) = open_request("POST", "/code");
        let (responder, answer) = exchange();
        let mut guest = pin!(handle::<S>(responder, request));
        let error = answered(guest.as_mut(), answer).await.unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(ErrorCode::LoopDetected)), "{error:?}");
        stays_pending(guest.as_mut()).await;
        drop(sender);
        guest.await.unwrap();
    });
}

fn bad_requests<S: Kind>() {
    on_one_thread(async {
        let (responder, answer) = exchange();
        let (ended, answer) = join(handle::<S>(responder, request("GET", "/echo".into(), Empty::new())), answer).await;
        assert!(format!("{:#}", ended.unwrap_err()).contains("missing authority"));
        let error = answer.unwrap_err();
        assert!(is_failed(&error, "missing authority"), "{error:?}");
    });
}

fn a_trap_in_the_middle_of_a_body<S: Kind>() {
    on_one_thread(async {
        let (_sender, request) = open_request("POST", "/half");
        let (responder, answer) = exchange();
        let (ended, response) = join(handle::<S>(responder, request), answer).await;
        assert!(has_trapped(ended));
        let mut body = response.unwrap().into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
        let error = body.frame().await.unwrap().unwrap_err();
        assert!(is_failed(&error, "unreachable"), "{error:?}");
        assert!(body.frame().await.is_none());
    });
}

/// The client needs nothing more, so it does not notice.
fn a_trap_after_the_response<S: Kind>() {
    on_one_thread(async {
        let (_sender, request) = open_request("HEAD", "/half");
        let (responder, answer) = exchange();
        let (ended, response) = join(handle::<S>(responder, request), answer).await;
        assert!(has_trapped(ended));
        drop(response.unwrap());
    });
}

fn the_answer_is_dropped<S: Kind>() {
    on_one_thread(async {
        let (_sender, request) = open_request("POST", "/drop");
        let (responder, answer) = exchange();
        let mut guest = pin!(handle::<S>(responder, request));
        assert!(futures::poll!(guest.as_mut()).is_pending());
        drop(answer);
        assert!(is_client_gone(guest.await));
    });
}

fn the_body_is_dropped<S: Kind>() {
    on_one_thread(async {
        let (sender, request) = open_request("POST", "/echo");
        let (responder, answer) = exchange();
        let mut guest = pin!(handle::<S>(responder, request));
        let mut body = answered(guest.as_mut(), answer).await.unwrap().into_body();
        sender.unbounded_send(Ok(Frame::data("part".into()))).unwrap();
        stays_pending(guest.as_mut()).await;
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "part");
        drop(body);
        assert!(is_client_gone(guest.await));
    });
}

fn the_guest_is_dropped<S: Kind>() {
    on_one_thread(async {
        let (responder, answer) = exchange();
        drop(responder);
        let error = answer.await.unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(Error::GuestDropped)), "{error:?}");

        let (_sender, request) = open_request("POST", "/echo");
        let (responder, answer) = exchange();
        let mut guest = Box::pin(handle::<S>(responder, request));
        let mut body = answered(guest.as_mut(), answer).await.unwrap().into_body();
        drop(guest);
        let error = body.frame().await.unwrap().unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(Error::GuestDropped)), "{error:?}");
    });
}

/// What sets the response is in the store, and will not be used any more.
fn the_store_outlives_the_guest<S: Kind>() {
    on_one_thread(async {
        let (_listener, address) = listen().await;
        let proxy = ProxyPre::new(S::linker().instantiate_pre(&GUEST).unwrap()).unwrap();
        let fail = async |path| {
            let (responder, answer) = exchange();
            let request = request("GET", format!("http://{address}{path}"), Empty::new());
            let mut store = Store::new(&ENGINE, Data::default());
            let mut stack = S::new_stack();
            let mut guest = Box::pin(responder.handle(&mut stack, &mut store, &proxy, Scheme::Http, request));
            // One of them waits for a server.
            let _ = futures::poll!(guest.as_mut());
            drop(guest);
            answer.await.unwrap_err()
        };
        let error = fail("/trap").await;
        assert!(is_failed(&error, "unreachable"), "{error:?}");
        let error = fail("/nothing").await;
        assert!(matches!(error.downcast_ref(), Some(Error::NoResponse)), "{error:?}");
        let error = fail("/wait").await;
        assert!(matches!(error.downcast_ref(), Some(Error::GuestDropped)), "{error:?}");
    });
}

/// The store keeps the body open, which nobody will write any more.
fn the_store_outlives_a_guest_with_a_body<S: Kind>() {
    on_one_thread(async {
        let proxy = ProxyPre::new(S::linker().instantiate_pre(&GUEST).unwrap()).unwrap();
        for path in ["/half", "/stream"] {
            let (_listener, address) = listen().await;
            let (responder, answer) = exchange();
            let request = request("GET", format!("http://{address}{path}"), Empty::new());
            let mut store = Store::new(&ENGINE, Data::default());
            let mut stack = S::new_stack();
            let mut guest = Box::pin(responder.handle(&mut stack, &mut store, &proxy, Scheme::Http, request));
            let mut body = match select(answer, guest.as_mut()).await {
                Either::Left((response, _)) => response.unwrap().into_body(),
                Either::Right((_, answer)) => answer.await.unwrap().into_body(),
            };
            {
                let frame = pin!(body.frame());
                let _either = select(frame, guest.as_mut()).await;
            }
            drop(guest);
            let error = loop {
                match body.frame().await.unwrap() {
                    Ok(frame) => assert_eq!(frame.into_data().unwrap(), "half"),
                    Err(error) => break error,
                }
            };
            match path {
                "/half" => assert!(is_failed(&error, "unreachable"), "{error:?}"),
                _ => assert!(matches!(error.downcast_ref(), Some(Error::GuestDropped)), "{error:?}"),
            }
            drop(store);
        }
    });
}

/// The guest has the whole request, and waits until there is room for the rest of its body.
fn a_client_that_reads_slowly<S: Kind>() {
    on_one_thread(async {
        let (sender, request) = open_request("POST", "/echo");
        let (responder, answer) = exchange();
        let mut guest = pin!(handle::<S>(responder, request));
        let body = answered(guest.as_mut(), answer).await.unwrap().into_body();
        for _ in 0..10 {
            sender.unbounded_send(Ok(Frame::data("part".into()))).unwrap();
        }
        drop(sender);
        stays_pending(guest.as_mut()).await;
        let (ended, body) = join(guest, body.collect()).await;
        ended.unwrap();
        assert_eq!(body.unwrap().to_bytes(), "part".repeat(10));
    });
}

/// A response without a body, one of a known length, and one to a request for the header alone: the client needs no more.
fn work_after_the_response<S: Kind>() {
    on_one_thread(async {
        for (method, path) in [("POST", "/after"), ("POST", "/length"), ("HEAD", "/echo")] {
            let (sender, request) = open_request(method, path);
            let (responder, answer) = exchange();
            let mut guest = pin!(handle::<S>(responder, request));
            let mut body = answered(guest.as_mut(), answer).await.unwrap().into_body();
            if path == "/length" {
                stays_pending(guest.as_mut()).await;
                assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
            }
            drop(body);
            stays_pending(guest.as_mut()).await;
            drop(sender);
            guest.await.unwrap();
        }
    });
}

/// Polls an answer as soon as it is woken, in the middle of whatever wakes it.
struct PolledAtOnce {
    answer: Mutex<Answer>,
    got: Mutex<Option<Result<Response<Body>>>>,
}

impl Wake for PolledAtOnce {
    fn wake(self: Arc<Self>) {
        let mut got = self.got.lock().unwrap();
        if got.is_none() {
            let answer = &mut *self.answer.lock().unwrap();
            match Pin::new(answer).poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(answer) => *got = Some(answer),
                Poll::Pending => {}
            }
        }
    }
}

impl PolledAtOnce {
    fn new(answer: Answer) -> Arc<Self> {
        let this = Arc::new(Self { answer: Mutex::new(answer), got: Mutex::default() });
        let waker = Waker::from(this.clone());
        assert!(Pin::new(&mut *this.answer.lock().unwrap()).poll(&mut Context::from_waker(&waker)).is_pending());
        this
    }

    fn failure(&self) -> wasmtime::Error {
        self.got.lock().unwrap().take().expect("it was woken, and ready").unwrap_err()
    }
}

/// What sets the response goes together with what tells how the guest ended.
#[test]
fn answers_that_are_polled_while_the_other_side_goes() {
    let (responder, answer) = exchange();
    let answer = PolledAtOnce::new(answer);
    drop(responder);
    let error = answer.failure();
    assert!(matches!(error.downcast_ref(), Some(Error::GuestDropped)), "{error:?}");

    on_one_thread(async {
        let (responder, answer) = exchange();
        let answer = PolledAtOnce::new(answer);
        handle::<FiberStack>(responder, request("GET", "/echo".into(), Empty::new())).await.unwrap_err();
        let error = answer.failure();
        assert!(is_failed(&error, "missing authority"), "{error:?}");

        // There is no place for what sets the response.
        let (responder, answer) = exchange();
        let answer = PolledAtOnce::new(answer);
        let proxy = ProxyPre::new(FiberStack::linker().instantiate_pre(&GUEST).unwrap()).unwrap();
        let mut store = Store::new(&ENGINE, Data::full());
        let mut stack = FiberStack::new_stack();
        let request = request("GET", "http://host/echo".into(), Empty::new());
        responder.handle(&mut stack, &mut store, &proxy, Scheme::Http, request).await.unwrap_err();
        let error = answer.failure();
        assert!(is_failed(&error, "no free keys"), "{error:?}");
    });
}
