//! What can go wrong with a request, as a status code and a line in the log.

use axum::http::{StatusCode, header::RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use tokio::task::JoinError;
use wasmtime::{PoolConcurrencyLimitError, Trap};
use wasmtime_async::Error;

/// Why a request has no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// There is no such function.
    NotFound,
    /// There is no capacity now, but there may be some later.
    Busy(&'static str),
    /// The deadline came first.
    Late,
    /// The guest trapped, or a host function failed.
    Guest(wasmtime::Error),
    /// Something panicked outside of a host function's future.
    Panicked(JoinError),
}

impl From<wasmtime::Error> for Failure {
    fn from(error: wasmtime::Error) -> Self {
        match error.downcast_ref() {
            Some(Error::Deadline) => Self::Late,
            Some(Error::StackMemory { .. }) => Self::Busy("no memory for a stack"),
            _ if error.is::<PoolConcurrencyLimitError>() => Self::Busy("no instance is free"),
            _ => Self::Guest(error),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        wasmtime::Error::from(error).into()
    }
}

impl Failure {
    /// Logs what the server's operators should look at.
    pub(crate) fn log(&self, function: &str, n: i32) {
        match self {
            // With the guest's backtrace.
            Self::Guest(error) => tracing::error!(function, n, "{error:?}"),
            Self::Panicked(error) => tracing::error!(function, n, "{error}"),
            Self::Late => tracing::warn!(function, n, "stopped at its deadline"),
            Self::Busy(why) => tracing::warn!(function, n, "refused: {why}"),
            Self::NotFound => (),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match self {
            Self::NotFound => (StatusCode::NOT_FOUND, "there is no such function\n").into_response(),
            Self::Busy(why) => {
                (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")], format!("{why}, try later\n")).into_response()
            }
            Self::Late => (StatusCode::GATEWAY_TIMEOUT, "stopped at its deadline\n").into_response(),
            // Clients learn which trap it was, and nothing else about the guest.
            Self::Guest(error) => {
                let what = error.downcast_ref().map_or_else(|| "it failed".to_owned(), Trap::to_string);
                (StatusCode::INTERNAL_SERVER_ERROR, format!("{what}\n")).into_response()
            }
            Self::Panicked(_) => (StatusCode::INTERNAL_SERVER_ERROR, "it failed\n").into_response(),
        }
    }
}
