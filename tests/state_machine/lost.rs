//! Stores whose call, or a call within it, was forgotten while it was suspended.

use crate::shared::{Shared, World};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use wasmtime_async::Store;

/// Checks what must be true of such a store.
pub(crate) fn check_lost(mut store: Store<World>, shared: &Arc<Shared>) {
    let before = (shared.guards(), Arc::strong_count(shared));
    let panicked = catch_unwind(AssertUnwindSafe(|| store.data_mut().0 = None));
    assert!(panicked.is_err_and(|payload| is_lost(&*payload)), "a lost store can be used");
    assert!(format!("{store:?}").contains("lost: true"), "{store:?}");
    // Runs nothing, and leaves the data alone.
    drop(store);
    assert_eq!((shared.guards(), Arc::strong_count(shared)), before, "a lost store was dropped");
}

/// Whether this is the payload of the panic about a lost store.
pub(crate) fn is_lost(payload: &(dyn Any + Send)) -> bool {
    payload.downcast_ref::<&str>().is_some_and(|text| text.starts_with("this store is lost"))
}
