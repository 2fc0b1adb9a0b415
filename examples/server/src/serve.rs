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
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::sleep;

/// Serves requests until `end` is ready, and then finishes those that are in flight. Returns the counters, which say whether
/// anything is left.
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
    axum::serve(listener, routes).with_graceful_shutdown(end).await?;
    // The tasks of clients that have just gone may not have ended yet.
    for _ in 0..1000 {
        let Snapshot { in_flight: 0, stores: 0, stacks_in_use: 0, .. } = app.snapshot() else {
            sleep(Duration::from_millis(1)).await;
            continue;
        };
        break;
    }
    Ok(app.snapshot())
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
