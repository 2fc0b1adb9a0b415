//! A type that is `Send` may leave by itself.
use wasmtime_async::{CarriedBy, ThreadStack};

struct Mine(#[expect(dead_code)] i32);

fn is_carried<T: CarriedBy<ThreadStack>>() {}

pub(crate) fn main() {
    is_carried::<Mine>();
}
