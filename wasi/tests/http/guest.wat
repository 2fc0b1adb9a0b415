;; Sends requests, and handles requests as their paths say.
(module
    (import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))
    (import "wasi:io/poll@0.2.0" "[resource-drop]pollable" (func $drop_pollable (param i32)))
    (import "wasi:io/streams@0.2.0" "[method]input-stream.blocking-read" (func $blocking_read (param i32 i64 i32)))
    (import "wasi:io/streams@0.2.0" "[resource-drop]input-stream" (func $drop_input (param i32)))
    (import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush"
        (func $blocking_write (param i32 i32 i32 i32)))
    (import "wasi:io/streams@0.2.0" "[resource-drop]output-stream" (func $drop_output (param i32)))
    (import "wasi:http/types@0.2.0" "[constructor]fields" (func $fields (result i32)))
    (import "wasi:http/types@0.2.0" "[method]fields.append" (func $append (param i32 i32 i32 i32 i32 i32)))
    (import "wasi:http/types@0.2.0" "[constructor]outgoing-request" (func $request (param i32) (result i32)))
    (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-method"
        (func $set_method (param i32 i32 i32 i32) (result i32)))
    (import "wasi:http/types@0.2.0" "[method]outgoing-request.body" (func $request_body (param i32 i32)))
    (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-scheme"
        (func $set_scheme (param i32 i32 i32 i32 i32) (result i32)))
    (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-authority"
        (func $set_authority (param i32 i32 i32 i32) (result i32)))
    (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-path-with-query"
        (func $set_path (param i32 i32 i32 i32) (result i32)))
    (import "wasi:http/outgoing-handler@0.2.0" "handle" (func $handle (param i32 i32 i32 i32)))
    (import "wasi:http/types@0.2.0" "[method]future-incoming-response.subscribe"
        (func $subscribe_response (param i32) (result i32)))
    (import "wasi:http/types@0.2.0" "[method]future-incoming-response.get" (func $get_response (param i32 i32)))
    (import "wasi:http/types@0.2.0" "[method]incoming-response.status" (func $status (param i32) (result i32)))
    (import "wasi:http/types@0.2.0" "[method]incoming-response.consume" (func $consume_response (param i32 i32)))
    (import "wasi:http/types@0.2.0" "[method]incoming-body.stream" (func $stream (param i32 i32)))
    (import "wasi:http/types@0.2.0" "[static]incoming-body.finish" (func $finish_incoming (param i32) (result i32)))
    (import "wasi:http/types@0.2.0" "[method]future-trailers.subscribe"
        (func $subscribe_trailers (param i32) (result i32)))
    (import "wasi:http/types@0.2.0" "[method]future-trailers.get" (func $get_trailers (param i32 i32)))
    (import "wasi:http/types@0.2.0" "[method]incoming-request.path-with-query" (func $path (param i32 i32)))
    (import "wasi:http/types@0.2.0" "[method]incoming-request.authority" (func $authority (param i32 i32)))
    (import "wasi:http/types@0.2.0" "[method]incoming-request.consume" (func $consume_request (param i32 i32)))
    (import "wasi:http/types@0.2.0" "[constructor]outgoing-response" (func $response (param i32) (result i32)))
    (import "wasi:http/types@0.2.0" "[method]outgoing-response.body" (func $outgoing_body (param i32 i32)))
    (import "wasi:http/types@0.2.0" "[static]response-outparam.set"
        (func $set (param i32 i32 i32 i32 i64 i32 i32 i32 i32)))
    (import "wasi:http/types@0.2.0" "[resource-drop]response-outparam" (func $drop_set (param i32)))
    (import "wasi:http/types@0.2.0" "[method]outgoing-body.write" (func $write (param i32 i32)))
    (import "wasi:http/types@0.2.0" "[static]outgoing-body.finish" (func $finish_outgoing (param i32 i32 i32 i32)))
    (memory (export "memory") 4)
    (data (i32.const 0) "content-length")
    (data (i32.const 16) "4")
    (data (i32.const 20) "half")
    (data (i32.const 24) "/")
    ;; What the host passes is at 4096. What a stream read last is at 65536, and the body of a response at 131072.
    (global $free (mut i32) (i32.const 4096))
    (func (export "cabi_realloc") (param i32 i32 i32) (param $len i32) (result i32)
        (global.get $free)
        (global.set $free
            (i32.and (i32.add (i32.add (global.get $free) (local.get $len)) (i32.const 7)) (i32.const -8))))
    (func $must (param $failed i32) (if (local.get $failed) (then unreachable)))
    ;; Results are left at 128.
    (func $must_result (call $must (i32.load8_u (i32.const 128))))
    (func $must_be_none (call $must (i32.load8_u (i32.const 128))))
    (func $wait (param $pollable i32)
        (call $block (local.get $pollable))
        (call $drop_pollable (local.get $pollable)))
    ;; How many bytes came, -1 at the end.
    (func $read (param $input i32) (result i32)
        (global.set $free (i32.const 65536))
        (call $blocking_read (local.get $input) (i64.const 65536) (i32.const 128))
        (if (i32.eqz (i32.load8_u (i32.const 128))) (then (return (i32.load (i32.const 136)))))
        (call $must (i32.ne (i32.load8_u (i32.const 132)) (i32.const 1)))
        (i32.const -1))
    (func $write_all (param $output i32) (param $at i32) (param $len i32)
        (call $blocking_write (local.get $output) (local.get $at) (local.get $len) (i32.const 128))
        (call $must_result))
    ;; What `send` returns.
    (func $got (param $status i32) (param $at i32) (param $len i32) (result i32)
        (i32.store16 (i32.const 256) (local.get $status))
        (i32.store (i32.const 260) (local.get $at))
        (i32.store (i32.const 264) (local.get $len))
        (i32.const 256))
    (func $finish (param $body i32) (param $output i32)
        (call $drop_output (local.get $output))
        (call $finish_outgoing (local.get $body) (i32.const 0) (i32.const 0) (i32.const 128))
        (call $must_result))
    ;; Writes blocks that begin with their numbers.
    (func $write_blocks (param $body i32) (param $blocks i32)
        (local $output i32)
        (local $n i32)
        (call $write (local.get $body) (i32.const 128))
        (call $must_result)
        (local.set $output (i32.load (i32.const 132)))
        (loop $more
            (i32.store (i32.const 65536) (local.get $n))
            (call $write_all (local.get $output) (i32.const 65536) (i32.const 4096))
            (local.set $n (i32.add (local.get $n) (i32.const 1)))
            (br_if $more (i32.lt_u (local.get $n) (local.get $blocks))))
        (call $finish (local.get $body) (local.get $output)))
    ;; A request for `/` that nobody has sent yet.
    (func $request_to (param $at i32) (param $len i32) (result i32)
        (local $request i32)
        (local.set $request (call $request (call $fields)))
        (call $must (call $set_scheme
            (local.get $request) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0)))
        (call $must (call $set_authority (local.get $request) (i32.const 1) (local.get $at) (local.get $len)))
        (call $must (call $set_path (local.get $request) (i32.const 1) (i32.const 24) (i32.const 1)))
        (local.get $request))
    (func $send (export "send") (param $at i32) (param $len i32) (param $blocks i32) (result i32)
        (local $handle i32)
        (local $body i32)
        (local $input i32)
        (local $status i32)
        (local $total i32)
        (local.set $handle (call $request_to (local.get $at) (local.get $len)))
        (if (local.get $blocks) (then
            (call $must (call $set_method (local.get $handle) (i32.const 2) (i32.const 0) (i32.const 0)))
            (call $request_body (local.get $handle) (i32.const 128))
            (call $must_result)
            (local.set $body (i32.load (i32.const 132)))))
        (call $handle (local.get $handle) (i32.const 0) (i32.const 0) (i32.const 128))
        (if (i32.load8_u (i32.const 128)) (then (return (call $got (i32.const 0) (i32.const 136) (i32.const 1)))))
        (local.set $handle (i32.load (i32.const 136)))
        (if (local.get $blocks) (then (call $write_blocks (local.get $body) (local.get $blocks))))
        (call $wait (call $subscribe_response (local.get $handle)))
        (call $get_response (local.get $handle) (i32.const 128))
        (call $must (i32.ne (i32.load8_u (i32.const 128)) (i32.const 1)))
        (call $must (i32.load8_u (i32.const 136)))
        (if (i32.load8_u (i32.const 144)) (then (return (call $got (i32.const 0) (i32.const 152) (i32.const 1)))))
        (local.set $handle (i32.load (i32.const 152)))
        (local.set $status (call $status (local.get $handle)))
        (call $consume_response (local.get $handle) (i32.const 128))
        (call $must_result)
        (local.set $body (i32.load (i32.const 132)))
        (call $stream (local.get $body) (i32.const 128))
        (call $must_result)
        (local.set $input (i32.load (i32.const 132)))
        (block $end
            (loop $more
                (local.set $len (call $read (local.get $input)))
                (br_if $end (i32.lt_s (local.get $len) (i32.const 0)))
                (memory.copy (i32.add (i32.const 131072) (local.get $total)) (i32.const 65536) (local.get $len))
                (local.set $total (i32.add (local.get $total) (local.get $len)))
                (br $more)))
        (call $drop_input (local.get $input))
        (local.set $handle (call $finish_incoming (local.get $body)))
        (call $wait (call $subscribe_trailers (local.get $handle)))
        (call $get_trailers (local.get $handle) (i32.const 128))
        (call $must (i32.ne (i32.load8_u (i32.const 128)) (i32.const 1)))
        (call $must (i32.load8_u (i32.const 136)))
        (call $must (i32.load8_u (i32.const 144)))
        (call $got (local.get $status) (i32.const 131072) (local.get $total)))
    (func $read_to_end (param $input i32)
        (loop $more (br_if $more (i32.ge_s (call $read (local.get $input)) (i32.const 0)))))
    (func $respond (param $set i32) (param $response i32)
        (call $set (local.get $set) (i32.const 0) (local.get $response) (i32.const 0) (i64.const 0) (i32.const 0)
            (i32.const 0) (i32.const 0) (i32.const 0)))
    (func (export "wasi:http/incoming-handler@0.2.0#handle") (param $request i32) (param $set i32)
        (local $path i32)
        (local $input i32)
        (local $fields i32)
        (local $response i32)
        (local $body i32)
        (local $output i32)
        (local $len i32)
        (local $times i32)
        (call $path (local.get $request) (i32.const 128))
        ;; The first letter.
        (local.set $path (i32.load8_u offset=1 (i32.load (i32.const 132))))
        ;; /trap
        (if (i32.eq (local.get $path) (i32.const 0x74)) (then unreachable))
        ;; /nothing
        (if (i32.eq (local.get $path) (i32.const 0x6e)) (then return))
        ;; /get
        (if (i32.eq (local.get $path) (i32.const 0x67)) (then
            (call $authority (local.get $request) (i32.const 128))
            (call $handle
                (call $request_to (i32.load (i32.const 132)) (i32.load (i32.const 136)))
                (i32.const 0) (i32.const 0) (i32.const 128))
            (call $must_result)
            (local.set $response (i32.load (i32.const 136)))
            (loop $again
                (call $get_response (local.get $response) (i32.const 128))
                (call $must_be_none)
                (local.set $times (i32.add (local.get $times) (i32.const 1)))
                (br_if $again (i32.lt_u (local.get $times) (i32.const 256))))
            (return)))
        (call $consume_request (local.get $request) (i32.const 128))
        (call $must_result)
        ;; /finish
        (if (i32.eq (local.get $path) (i32.const 0x66)) (then
            (local.set $body (call $finish_incoming (i32.load (i32.const 132))))
            (loop $again
                (call $get_trailers (local.get $body) (i32.const 128))
                (call $must_be_none)
                (local.set $times (i32.add (local.get $times) (i32.const 1)))
                (br_if $again (i32.lt_u (local.get $times) (i32.const 256))))
            (return)))
        (call $stream (i32.load (i32.const 132)) (i32.const 128))
        (call $must_result)
        (local.set $input (i32.load (i32.const 132)))
        ;; /drop
        (if (i32.eq (local.get $path) (i32.const 0x64)) (then
            (call $drop_set (local.get $set))
            (call $read_to_end (local.get $input))
            (return)))
        ;; /code
        (if (i32.eq (local.get $path) (i32.const 0x63)) (then
            (call $set (local.get $set) (i32.const 1) (i32.const 36) (i32.const 0) (i64.const 0) (i32.const 0)
                (i32.const 0) (i32.const 0) (i32.const 0))
            (call $read_to_end (local.get $input))
            (return)))
        ;; /wait
        (if (i32.eq (local.get $path) (i32.const 0x77)) (then
            (call $authority (local.get $request) (i32.const 128))
            (drop (call $send (i32.load (i32.const 132)) (i32.load (i32.const 136)) (i32.const 0)))
            (return)))
        (local.set $fields (call $fields))
        ;; /length
        (if (i32.eq (local.get $path) (i32.const 0x6c)) (then
            (call $append (local.get $fields)
                (i32.const 0) (i32.const 14) (i32.const 16) (i32.const 1) (i32.const 128))
            (call $must_result)))
        (local.set $response (call $response (local.get $fields)))
        ;; /after
        (if (i32.eq (local.get $path) (i32.const 0x61)) (then
            (call $respond (local.get $set) (local.get $response))
            (call $read_to_end (local.get $input))
            (return)))
        (call $outgoing_body (local.get $response) (i32.const 128))
        (call $must_result)
        (local.set $body (i32.load (i32.const 132)))
        (call $write (local.get $body) (i32.const 128))
        (call $must_result)
        (local.set $output (i32.load (i32.const 132)))
        (call $respond (local.get $set) (local.get $response))
        ;; /stream
        (if (i32.eq (local.get $path) (i32.const 0x73)) (then
            (call $write_all (local.get $output) (i32.const 20) (i32.const 4))
            (call $authority (local.get $request) (i32.const 128))
            (drop (call $send (i32.load (i32.const 132)) (i32.load (i32.const 136)) (i32.const 0)))
            (return)))
        ;; /half
        (if (i32.eq (local.get $path) (i32.const 0x68)) (then
            (call $write_all (local.get $output) (i32.const 20) (i32.const 4))
            unreachable))
        (if (i32.eq (local.get $path) (i32.const 0x6c)) (then
            (call $write_all (local.get $output) (i32.const 20) (i32.const 4))
            (call $read_to_end (local.get $input))
            (return)))
        ;; /echo
        (block $end
            (loop $more
                (local.set $len (call $read (local.get $input)))
                (br_if $end (i32.lt_s (local.get $len) (i32.const 0)))
                (call $write_all (local.get $output) (i32.const 65536) (local.get $len))
                (br $more)))
        (call $finish (local.get $body) (local.get $output))))
