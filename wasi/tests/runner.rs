//! The runner, from outside: what it runs, and what it says of bad input, in one line, with nothing on standard output.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use tempfile::TempDir;
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER,
};
use wit_component::ComponentEncoder;

/// Prints `hello` and how many arguments it has, and ends with 3.
const HELLO: &str = r#"(module
    (import "wasi_snapshot_preview1" "args_sizes_get" (func $args (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "\10\00\00\00\08\00\00\00")
    (data (i32.const 16) "hello 0\n")
    (func (export "_start")
        (drop (call $args (i32.const 40) (i32.const 44)))
        (i32.store8 (i32.const 22) (i32.add (i32.const 48) (i32.load (i32.const 40))))
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 48)))
        (call $exit (i32.const 3))))"#;

/// Sleeps for 50 milliseconds.
const SLEEPER: &str = r#"(module
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "_start")
        (i32.store (i32.const 16) (i32.const 1))
        (i64.store (i32.const 24) (i64.const 50_000_000))
        (if (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)) (then unreachable))))"#;

const STACKS: [&str; 3] = ["fiber", "send", "thread"];

static DIR: LazyLock<TempDir> = LazyLock::new(|| TempDir::new().unwrap());

/// A file with a program, by its text.
fn program(name: &str, text: &str) -> String {
    let path = DIR.path().join(name);
    fs::write(&path, wat::parse_str(text).unwrap()).unwrap();
    path.to_str().unwrap().into()
}

fn run(arguments: &[&str]) -> Output {
    runner().args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn runner() -> Command {
    // Tests lie in `deps`, beside `examples`.
    let mut runner: PathBuf = env::current_exe().unwrap();
    runner.pop();
    runner.set_file_name("examples");
    runner.push(format!("run{}", env::consts::EXE_SUFFIX));
    assert!(runner.exists(), "build the runner: cargo build -p wasmtime-async-wasi --example run");
    Command::new(runner)
}

/// One line on standard error, which says this, and this exit code.
fn assert_refused(arguments: &[&str], code: i32, says: &str) {
    assert_complaint(&format!("{arguments:?}"), run(arguments), code, says);
}

fn assert_complaint(what: &str, output: Output, code: i32, says: &str) {
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{what}: {error}");
    assert_eq!(error.lines().count(), 1, "{what}: {error}");
    assert!(error.contains(says), "{what}: {error}");
    assert!(output.stdout.is_empty(), "{what}");
}

#[test]
fn programs() {
    let module = program("hello.wasm", HELLO);
    for stack in STACKS.iter().chain(&["none"]) {
        let output = run(&["--stack", stack, &module, "--an-argument", "another"]);
        assert_eq!(output.status.code(), Some(3), "{stack}");
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "hello 3\n", "{stack}");
        assert!(output.stderr.is_empty(), "{stack}");
    }
}

/// The same program, with an exit code that only tells success from failure.
#[test]
fn components() {
    let component = ComponentEncoder::default()
        .module(&wat::parse_str(HELLO).unwrap())
        .unwrap()
        .adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER)
        .unwrap()
        .encode()
        .unwrap();
    let path = DIR.path().join("hello-component.wasm");
    fs::write(&path, component).unwrap();
    for stack in STACKS.iter().chain(&["none"]) {
        let output = run(&["--stack", stack, path.to_str().unwrap(), "an argument"]);
        assert_eq!(output.status.code(), Some(1), "{stack}");
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "hello 2\n", "{stack}");
        assert!(output.stderr.is_empty(), "{stack}");
    }
}

#[test]
fn copies_at_once() {
    let sleeper = program("sleeper.wasm", SLEEPER);
    for stack in STACKS {
        let output = run(&["--stack", stack, "--copies", "20", &sleeper]);
        assert_eq!(output.status.code(), Some(0));
        let output = String::from_utf8(output.stdout).unwrap();
        let (begin, rest) = output.trim_end().split_once(" ms=").unwrap();
        let (ms, suspensions) = rest.split_once(" suspensions=").unwrap();
        assert_eq!(begin, "copies=20 threads=1");
        assert!(ms.parse::<u64>().is_ok(), "{output}");
        assert!(suspensions.parse::<u32>().unwrap() >= 20, "{output}");
    }
}

#[test]
fn what_is_no_program() {
    let text = DIR.path().join("text.wasm");
    fs::write(&text, "not wasm at all").unwrap();
    assert_refused(&[text.to_str().unwrap()], 1, "text.wasm is not WebAssembly: convert text");
    let broken = DIR.path().join("broken.wasm");
    fs::write(&broken, b"\0asm\x01\0\0\0\xff").unwrap();
    assert_refused(&[broken.to_str().unwrap()], 1, "cannot be compiled");
    let broken = DIR.path().join("broken-component.wasm");
    fs::write(&broken, b"\0asm\x0d\0\x01\0\xff").unwrap();
    assert_refused(&[broken.to_str().unwrap()], 1, "cannot be compiled");
    assert_refused(&["/no/such/program.wasm"], 1, "cannot read /no/such/program.wasm");
    assert_refused(&[DIR.path().to_str().unwrap()], 1, "cannot read");
    let library = program("library.wasm", "(module)");
    let component = program("library-component.wasm", "(component)");
    for stack in STACKS {
        assert_refused(&["--stack", stack, &library], 1, "exports no function `_start`");
        assert_refused(&["--stack", stack, &component], 1, "`wasi:cli/run`");
    }
    assert_refused(&["--stack", "none", &library], 1, "`_start`");
    assert_refused(&["--stack", "none", &component], 1, "wasi:cli/run");
}

/// The exit code tells what was not run from what failed while it ran.
#[test]
fn programs_that_fail_at_once() {
    // No machine has that many addresses.
    let large = program("large.wasm", r#"(module (memory i64 0x10_0000_0000) (func (export "_start")))"#);
    let start = program("start.wasm", r#"(module (func $f unreachable) (start $f) (func (export "_start")))"#);
    let segment = program("segment.wasm", r#"(module (memory 0) (data (i32.const 1) "x") (func (export "_start")))"#);
    let no_memory = program(
        "no-memory.wasm",
        r#"(module
            (import "wasi_snapshot_preview1" "args_sizes_get" (func $args (param i32 i32) (result i32)))
            (func (export "_start") (drop (call $args (i32.const 0) (i32.const 4)))))"#,
    );
    for stack in STACKS.iter().chain(&["none"]) {
        assert_refused(&["--stack", stack, &large], 1, "large.wasm: ");
        assert_refused(&["--stack", stack, &start], 134, "trapped: wasm `unreachable`");
        assert_refused(&["--stack", stack, &segment], 134, "trapped: out of bounds memory access");
        assert_refused(&["--stack", stack, &no_memory], 134, "memory");
    }
}

#[test]
fn imports_that_are_not_there() {
    let module = program("elsewhere.wasm", r#"(module (import "elsewhere" "f" (func)) (func (export "_start")))"#);
    assert_refused(&[&module], 1, "it imports `f` from `elsewhere`");
    assert_eq!(run(&["--trap-unknown-imports", &module]).status.code(), Some(0));
    let module = program("other.wasm", r#"(module (import "wasix_32v1" "f" (func)) (func (export "_start")))"#);
    assert_refused(&[&module], 1, "`wasix_32v1`");
    let module = program("wasi.wasm", r#"(module (import "wasi_2" "f" (func)) (func (export "_start")))"#);
    assert_refused(&[&module], 1, "another WASI");
    let component =
        program("newer.wasm", r#"(component (import "wasi:cli/stdin@0.9.0" (instance (export "f" (func)))))"#);
    assert_refused(&[&component], 1, "wasi:cli/stdin@0.9.0");
}

#[test]
fn components_for_wasi_0_3() {
    let by_name = program(
        "newer-by-name.wasm",
        r#"(component (import "wasi:cli/stdin@0.3.0" (instance (export "f" (func async)))))"#,
    );
    let by_intrinsic = program("newer-by-intrinsic.wasm", "(component (core func (canon task.return (result u32))))");
    for stack in STACKS.iter().chain(&["none"]) {
        assert_refused(&["--stack", stack, &by_name], 1, "WASI 0.3");
        assert_refused(&["--stack", stack, &by_intrinsic], 1, "WASI 0.3");
    }
}

#[test]
fn command_lines() {
    let module = program("hello-too.wasm", HELLO);
    assert_refused(&[], 2, "no program was named");
    assert_refused(&["--stack", "pile", &module], 2, "the kinds of stack are");
    assert_refused(&["--copies", "0", &module], 2, "above 0");
    assert_refused(&["--copies", "10001", &module], 2, "at most 10,000 copies");
    assert_refused(&["--timeout", "soon", &module], 2, "above 0");
    assert_refused(&["--dir", "here", &module], 2, "HOST::GUEST");
    assert_refused(&["--env", "name", &module], 2, "NAME=VALUE");
    assert_refused(&["--nonsense", &module], 2, "nonsense");
    assert_refused(&["--stack", "none", "--timeout", "50", &module], 2, "`--timeout` needs a stack");
    assert_refused(&["--env"], 2, "missing argument");
    for copies in ["1", "3"] {
        assert_refused(&["--copies", copies, "--dir", "/no/such/directory::/", &module], 1, "/no/such/directory");
        let file = format!("{module}::/");
        assert_refused(&["--copies", copies, "--dir", &file, &module], 1, "cannot open the directory");
    }
}

/// A module's text, and that of a component that does the same.
fn both(body: &str) -> [String; 2] {
    let code = format!(
        r#"(func $f (export "_start") {body})
        (func (export "run") (result i32) (call $f) (i32.const 0))"#
    );
    let component = format!(
        r#"(component
            (core module $program {code})
            (core instance $program (instantiate $program))
            (func $run (result (result)) (canon lift (core func $program "run")))
            (instance $exports (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $exports)))"#
    );
    [format!("(module {code})"), component]
}

#[test]
fn programs_that_fail() {
    for kind in [0, 1] {
        let file = |name: &str, body: &str| program(&format!("{name}-{kind}.wasm"), &both(body)[kind]);
        let (trap, endless, deep) =
            (file("trap", "unreachable"), file("endless", "(loop (br 0))"), file("deep", "(call $f)"));
        for stack in STACKS.iter().chain(&["none"]) {
            assert_refused(&["--stack", stack, &trap], 134, "trapped: wasm `unreachable`");
            assert_refused(&["--stack", stack, &deep], 134, "trapped: call stack exhausted");
        }
        for stack in STACKS {
            assert_refused(&["--stack", stack, "--timeout", "50", &endless], 124, "after 50 ms");
        }
    }
}

/// The copies that fail are named, each in a line.
#[test]
fn copies_that_fail() {
    let trap = program("traps.wasm", &both("unreachable")[0]);
    let output = run(&["--copies", "3", &trap]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(134), "{error}");
    assert_eq!(error.lines().count(), 3, "{error}");
    assert!((1..=3).all(|copy| error.contains(&format!("copy {copy} of 3: trapped"))), "{error}");
}

/// Ends at the timeout, although nothing comes and the pipe stays open.
#[test]
fn programs_that_wait_for_input() {
    let reader = program(
        "reader.wasm",
        r#"(module
            (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "\10\00\00\00\08\00\00\00")
            (func (export "_start") (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 48)))))"#,
    );
    for stack in STACKS {
        let mut runner = runner();
        runner.args(["--stack", stack, "--timeout", "50", &reader]).stdin(Stdio::piped());
        let mut running = runner.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let _open = running.stdin.take();
        assert_complaint(stack, running.wait_with_output().unwrap(), 124, "after 50 ms");
    }
}

/// What the runner itself prints cannot be written.
#[test]
fn full_output() {
    let module = program("sleeper-too.wasm", SLEEPER);
    for arguments in [vec!["--help"], vec!["--copies", "2", &module]] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let output = runner().args(&arguments).stdin(Stdio::null()).stdout(full).output().unwrap();
        assert_complaint(&format!("{arguments:?}"), output, 1, "cannot write to standard output");
    }
}
