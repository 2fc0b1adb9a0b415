//! The routes, and the end of the server.

use crate::app::App;
use crate::failure::Failure;
use crate::request::answer;
use crate::stats::Snapshot;
use axum::extract::{Path, Query, State};
use axum::response::Html;
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use std::future::{Future, pending};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::sleep;

/// How long tasks may take to end that nobody waits for any more.
const PATIENCE: Duration = Duration::from_mins(1);

/// How long clients may take beyond the deadline of their requests when the server ends: to send the rest of a request, and to
/// read the answer.
const TO_SEND: Duration = Duration::from_secs(5);

/// Serves requests until `end` is ready, and then finishes those that are in flight. It does not wait for clients much longer
/// than the deadline. Returns the counters, which say whether anything is left.
///
/// # Errors
///
/// If the listener fails.
pub async fn serve(
    listener: TcpListener,
    app: Arc<App>,
    end: impl Future<Output = ()> + Send + 'static,
) -> io::Result<Snapshot> {
    let routes = Router::new()
        .route("/", get(|| async { Html(include_str!("page.html")) }))
        .route("/stats", get(async |State(app): State<Arc<App>>| Json(app.snapshot())))
        .route("/call/{function}", get(call))
        .with_state(app.clone());
    let (tell, told) = oneshot::channel();
    let end = async move {
        end.await;
        let _ = tell.send(());
    };
    let patience = app.config.deadline.saturating_add(TO_SEND);
    let too_late = async {
        match told.await {
            Ok(()) => sleep(patience).await,
            Err(_) => pending().await,
        }
    };
    tokio::select! {
        served = axum::serve(listener, routes).with_graceful_shutdown(end) => served?,
        () = too_late => tracing::warn!("some clients have not sent a whole request, or do not read their answers"),
    }
    // The tasks of clients that have just gone may not have ended yet.
    let begun = Instant::now();
    loop {
        let now = app.snapshot();
        let is_clean = matches!(now, Snapshot { in_flight: 0, stores: 0, stacks_in_use: 0, waiting: 0, .. });
        if is_clean || begun.elapsed() >= PATIENCE {
            return Ok(now);
        }
        sleep(Duration::from_millis(1)).await;
    }
}

#[derive(Deserialize)]
struct Parameters {
    #[serde(default)]
    n: i32,
}

async fn call(
    State(app): State<Arc<App>>,
    Path(function): Path<String>,
    Query(Parameters { n }): Query<Parameters>,
) -> Result<String, Failure> {
    answer(app, function, n).await.map(|answer| format!("{answer}\n"))
}
