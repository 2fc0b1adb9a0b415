//! An HTTP server whose requests are answered by guests.
//!
//! ```sh
//! cargo run --release -p server-example -- --address 127.0.0.1:8080
//! curl 'http://127.0.0.1:8080/call/double?n=21'
//! ```
//!
//! A page shows what the guests are doing: <http://127.0.0.1:8080/>. With `--runtime own`, guests run in a runtime of their own.
//!
//! `cargo test -p server-example` tests what can go wrong. `examples/server/page-test` looks at the page in Chromium.
//! `cargo bench -p server-example` measures requests beside guests that spin.
//!
//! | file | what is in it |
//! |---|---|
//! | `config.rs` | the server's arguments |
//! | `app.rs` | what all requests share: the compiled guest, the pool of stacks, the counters |
//! | `host.rs` | the host functions, and the data of a request's store |
//! | `request.rs` | one request: a stack, a store, an instance, a call, each until the deadline |
//! | `failure.rs` | what can go wrong with a request, as a status code and a line in the log |
//! | `stats.rs` | the counters |
//! | `serve.rs` | the routes, and the end of the server |
//! | `service.rs` | another server, which the guests ask |
//! | `guest.wat`, `page.html` | the guest, and the page |

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
