//! Code can be generic over stacks.

use wasmtime_async::{DEFAULT_STACK_SIZE, Error, FiberStack, Stack};

fn largest<S: Stack>(mut stacks: Vec<S>) -> Option<S> {
    stacks.sort_by_key(Stack::size);
    stacks.pop()
}

pub(crate) fn main() {
    let stacks: Result<Vec<_>, Error> =
        [DEFAULT_STACK_SIZE, 2 * DEFAULT_STACK_SIZE].map(FiberStack::new).into_iter().collect();
    assert_eq!(largest(stacks.unwrap()).unwrap().size(), 2 * DEFAULT_STACK_SIZE);
}
