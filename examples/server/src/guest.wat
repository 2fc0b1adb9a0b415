;; The functions that requests call. Each one takes a number and returns a number.
(module
  (import "host" "sleep" (func $sleep (param i32)))
  (import "host" "ask" (func $ask (param i32) (result i32)))
  (import "host" "visit" (func $visit (result i32)))
  (import "host" "panic" (func $panic))

  (memory (export "memory") 1 16)

  ;; Sleeps for a millisecond, and then asks another service over TCP.
  (func $double (export "double") (param $n i32) (result i32)
    (call $sleep (i32.const 1))
    (call $ask (local.get $n)))

  ;; Sleeps for the given number of milliseconds.
  (func $nap (export "nap") (param $ms i32) (result i32)
    (call $sleep (local.get $ms))
    (local.get $ms))

  ;; Returns how many requests have called this function before.
  (func $visits (export "visits") (param i32) (result i32)
    (call $visit))

  ;; Never ends, and never calls the host.
  (func $spin (export "spin") (param i32) (result i32)
    (loop $again (br $again))
    (unreachable))

  ;; What guests can do wrong.
  (func $trap (export "trap") (param i32) (result i32)
    (unreachable))
  (func $panics (export "panic") (param i32) (result i32)
    (call $panic)
    (local.get 0))
  (func $recurse (export "recurse") (param i32) (result i32)
    (i32.add (call $recurse (local.get 0)) (i32.const 1)))
  ;; Grows the memory by the given number of pages. It can have sixteen.
  (func $grow (export "grow") (param $pages i32) (result i32)
    (if (i32.eq (memory.grow (local.get $pages)) (i32.const -1)) (then (unreachable)))
    (memory.size)))
