//! An HTTP server whose requests are answered by guests.
//!
//! ```sh
//! cargo run --release -p server-example -- --address 127.0.0.1:8080
//! curl 'http://127.0.0.1:8080/call/double?n=21'
//! ```
//!
//! and a page to look at, on <http://127.0.0.1:8080/>. `--runtime own` has guests run in a runtime of their own.
//!
//! `cargo test -p server-example` puts the server under bad luck, `examples/server/page-test` looks at the page in Chromium,
//! and `cargo bench -p server-example` measures requests beside guests that spin.
//!
//! | file | what is in it |
//! |---|---|
//! | `config.rs` | what the server is told by its arguments |
//! | `app.rs` | what all requests share: the compiled guest, the pool of stacks, the counters |
//! | `host.rs` | the host functions, and the data of a request's store |
//! | `request.rs` | one request: a stack, a store, an instance, a call, each until the deadline |
//! | `failure.rs` | what can go wrong with it, as a status code and a line in the log |
//! | `stats.rs` | the counters |
//! | `serve.rs` | the routes, and the end of the server |
//! | `service.rs` | another server, for the guests to ask |

mod app;
mod config;
mod failure;
mod host;
mod request;
mod serve;
mod service;
mod stats;

pub use app::App;
pub use config::{Config, Where};
pub use serve::serve;
pub use stats::Snapshot;
