//! The example `serve`, from outside.

use crate::guests::COMPONENT;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// Ends the server with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn serves_a_component() {
    let dir = TempDir::new().unwrap();
    let component = dir.path().join("proxy.wasm");
    fs::write(&component, &*COMPONENT).unwrap();
    // Tests lie in `deps`, beside `examples`.
    let mut serve = env::current_exe().unwrap();
    serve.pop();
    serve.set_file_name("examples");
    serve.push(format!("serve{}", env::consts::EXE_SUFFIX));
    assert!(serve.exists(), "build the server: cargo build -p wasmtime-async-wasi --features http --example serve");
    let mut serve = Command::new(serve);
    let serve = serve.arg("127.0.0.1:0").arg(component).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut server = Server(serve.spawn().unwrap());
    let mut url = String::new();
    BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut url).unwrap();
    let address = url.trim().trim_start_matches("http://").trim_end_matches('/');

    for (path, status, body) in
        [("/echo", "200", "a body"), ("/trap", "500", "the guest failed\n"), ("/echo", "200", "a body")]
    {
        let mut client = TcpStream::connect(address).unwrap();
        write!(client, "POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 6\r\n\r\na body")
            .unwrap();
        let mut response = String::new();
        client.read_to_string(&mut response).unwrap();
        assert!(response.starts_with(&format!("HTTP/1.1 {status}")), "{response}");
        assert!(response.contains(body), "{response}");
    }
}
