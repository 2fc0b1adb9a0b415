//! One request: a stack, a store, an instance, and a call. All waiting ends at the deadline.

use crate::app::App;
use crate::failure::Failure;
use crate::host::Host;
use crate::stats::{OneMore, Stats};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};
use wasmtime_async::{AsyncFunc, InstancePreExt, PooledStack, SendFiberStack, Store};

/// Answers a request. axum drops this future when the client goes away, which also drops the guest's call.
pub(crate) async fn answer(app: Arc<App>, function: String, n: i32) -> Result<i32, Failure> {
    if !app.has(&function) {
        return Err(Failure::NotFound);
    }
    let deadline = Instant::now() + app.config.deadline;
    let course = Course::new(&app.stats);
    // The call is a task of its own, so it can run in another runtime, and a panic is a result like any other. When the
    // set is dropped, it aborts the task.
    let mut task = JoinSet::new();
    task.spawn_on(call(app.clone(), function.clone(), n, deadline), &app.runtime);
    let result =
        task.join_next().await.expect("the set has a task").unwrap_or_else(|error| Err(Failure::Panicked(error)));
    if let Err(failure) = &result {
        failure.log(&function, n);
    }
    course.end(&result);
    result
}

/// Calls the guest's function. Nothing in it ties it to a thread.
async fn call(app: Arc<App>, function: String, n: i32, deadline: Instant) -> Result<i32, Failure> {
    let mut stack = stack(&app, deadline).await?;
    let mut store = Store::new(app.guest.module().engine(), Host::new(&app));
    store.set_epoch_deadline(1);
    store.epoch_deadline_wait_and_update(1, tokio::task::yield_now);
    let instance = app.guest.instantiate_on(&mut *stack, &mut store).until(sleep_until(deadline)).await?;
    let function = AsyncFunc::from(instance.get_typed_func::<i32, i32>(&mut store, &function)?);
    Ok(function.call(&mut *stack, &mut store, n).until(sleep_until(deadline)).await?)
}

/// Takes a stack from the pool. Fails if too many requests wait for one already.
async fn stack(app: &App, deadline: Instant) -> Result<PooledStack<SendFiberStack>, Failure> {
    if let Some(stack) = app.stacks.try_get()? {
        return Ok(stack);
    }
    // Waiting requests take memory, and with too many of them, the last ones would miss their deadline.
    let _place = app.places.try_acquire().map_err(|_| Failure::Busy("too many requests wait"))?;
    let stack = timeout_at(deadline, app.stacks.get()).await;
    Ok(stack.map_err(|_| Failure::Busy("no stack was free in time"))??)
}

/// Counts a request, however it ends.
struct Course {
    stats: Arc<Stats>,
    ending: fn(&Stats) -> &AtomicUsize,
    _in_flight: OneMore,
}

impl Course {
    fn new(stats: &Arc<Stats>) -> Self {
        Self {
            stats: stats.clone(),
            // This is how it ends if `end` is not called.
            ending: |stats| &stats.cancelled,
            _in_flight: OneMore::new(stats, |stats| &stats.in_flight),
        }
    }

    fn end(mut self, result: &Result<i32, Failure>) {
        self.ending = match result {
            Ok(_) => |stats| &stats.answered,
            Err(Failure::Late) => |stats| &stats.timed_out,
            Err(Failure::Busy(_)) => |stats| &stats.refused,
            Err(_) => |stats| &stats.failed,
        };
    }
}

impl Drop for Course {
    fn drop(&mut self) {
        (self.ending)(&self.stats).fetch_add(1, Relaxed);
    }
}
