//! Other crates cannot declare that a type that is not `Send` may leave a thread stack.

use std::rc::Rc;
use wasmtime_async::{CarriedBy, ThreadStack};

struct Mine(Rc<i32>);

impl CarriedBy<ThreadStack> for Mine {}

fn main() {}
