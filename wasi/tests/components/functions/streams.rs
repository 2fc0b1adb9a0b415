//! What a guest does with streams, clocks and what else it has from the start.

use super::cases::{BYTES, FILE, POLLABLES, prepare};
use super::{Guest, Host};

/// Copies standard input to a file and to standard output, in each of the ways that there are.
pub(super) async fn streams<H: Host>(guest: &mut Guest<H>) {
    let dir = prepare(guest).await;
    let file = guest.call("types-descriptor-open-at", [dir, 0, FILE[0], FILE[1], 0, 3]).await.handle();
    let stdin = guest.call("stdin-get-stdin", []).await.u32(0);
    let stdout = guest.call("stdout-get-stdout", []).await.u32(0);
    let writer = guest.call("types-descriptor-write-via-stream", [file, 2]).await.handle();
    let appender = guest.call("types-descriptor-append-via-stream", [file]).await.handle();
    for output in [writer, appender, stdout] {
        output_stream(guest, output, stdin).await;
    }
    failure(guest, file).await;
    let reader = guest.call("types-descriptor-read-via-stream", [file, 1]).await.handle();
    input_stream(guest, reader).await;
    input_stream(guest, stdin).await;
    for output in [writer, appender, stdout] {
        guest.call("streams-drop-output-stream", [output]).await;
    }
}

async fn output_stream<H: Host>(guest: &mut Guest<H>, output: u64, input: u64) {
    let ready = guest.call("streams-output-stream-subscribe", [output]).await.u32(0);
    guest.call("streams-output-stream-blocking-write-and-flush", [output, BYTES, 5]).await;
    guest.call("streams-output-stream-blocking-write-zeroes-and-flush", [output, 3]).await;
    for (name, arguments) in [("write", vec![output, BYTES, 4]), ("write-zeroes", vec![output, 2])] {
        guest.call("poll-pollable-block", [ready]).await;
        guest.call("poll-pollable-ready", [ready]).await;
        guest.call("streams-output-stream-check-write", [output]).await;
        guest.call(&format!("streams-output-stream-{name}"), arguments).await;
        guest.call("streams-output-stream-flush", [output]).await;
        guest.call("streams-output-stream-blocking-flush", [output]).await;
    }
    guest.call("streams-output-stream-splice", [output, input, 2]).await;
    guest.call("poll-pollable-block", [ready]).await;
    guest.call("streams-output-stream-blocking-splice", [output, input, 3]).await;
    guest.call("poll-drop-pollable", [ready]).await;
}

/// Nothing can be written so far out in a file.
async fn failure<H: Host>(guest: &mut Guest<H>, file: u64) {
    let writer = guest.call("types-descriptor-write-via-stream", [file, 1 << 62]).await.handle();
    let error = guest.call("streams-output-stream-blocking-write-and-flush", [writer, BYTES, 5]).await;
    assert_eq!(error.0[..5], [1, 0, 0, 0, 0], "last-operation-failed");
    guest.call("types-filesystem-error-code", [error.u32(8)]).await;
    let text = guest.call("error-error-to-debug-string", [error.u32(8)]).await;
    guest.wipe(4..8);
    // A backtrace may follow.
    guest.peek(text.u32(0), 20).await;
    guest.call("error-drop-error", [error.u32(8)]).await;
    guest.call("streams-drop-output-stream", [writer]).await;
}

/// Reads all of it.
async fn input_stream<H: Host>(guest: &mut Guest<H>, input: u64) {
    let ready = guest.call("streams-input-stream-subscribe", [input]).await.u32(0);
    guest.poke(POLLABLES, &[ready, ready].map(|ready| u32::try_from(ready).unwrap().to_le_bytes()).concat()).await;
    let list = guest.call("poll-poll", [POLLABLES, 2]).await;
    guest.peek(list.u32(0), 4 * list.u32(4)).await;
    guest.call("streams-input-stream-skip", [input, 1]).await;
    guest.call("streams-input-stream-blocking-skip", [input, 2]).await;
    for name in ["blocking-read", "read", "blocking-read", "blocking-read", "blocking-skip"] {
        let read = guest.call(&format!("streams-input-stream-{name}"), [input, 6]).await;
        if read.0[0] == 0 && name != "blocking-skip" {
            guest.peek(read.u32(4), read.u32(8)).await;
        }
    }
    guest.call("poll-drop-pollable", [ready]).await;
    guest.call("streams-drop-input-stream", [input]).await;
}

/// Clocks and random numbers, which differ from run to run, and what the program has from the start.
pub(super) async fn surroundings<H: Host>(guest: &mut Guest<H>) {
    for clock in ["monotonic-clock", "wall-clock"] {
        guest.call(&format!("{clock}-now"), []).await;
        guest.wipe(0..16);
        guest.call(&format!("{clock}-resolution"), []).await;
    }
    for (name, time) in [("subscribe-instant", 1), ("subscribe-duration", 1), ("subscribe-duration", 0)] {
        let ready = guest.call(&format!("monotonic-clock-{name}"), [time]).await.u32(0);
        guest.call("poll-pollable-block", [ready]).await;
        guest.call("poll-drop-pollable", [ready]).await;
    }
    guest.call("random-get-random-bytes", [16]).await;
    guest.call("insecure-get-insecure-random-bytes", [16]).await;
    for name in ["random-get-random-u64", "insecure-get-insecure-random-u64", "insecure-seed-insecure-seed"] {
        guest.call(name, []).await;
        guest.wipe(0..16);
    }
    for what in ["get-arguments", "get-environment", "initial-cwd"] {
        guest.call(&format!("environment-{what}"), []).await;
    }
    for stream in ["stdin", "stdout", "stderr"] {
        guest.call(&format!("{stream}-get-{stream}"), []).await;
        guest.call(&format!("terminal-{stream}-get-terminal-{stream}"), []).await;
    }
}
