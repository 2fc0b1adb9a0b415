//! Thread-local variables that are being initialised, are lent, or are set for the time of a poll.

use crate::{Around, Checked, Ways, assert_usable, checked, pending, poll_once, refused, run, stack};
use std::cell::{Cell, RefCell};
use std::mem;
use std::sync::Arc;
use std::task::Poll;
use wasmtime::{Caller, Engine, Func, Result};
use wasmtime_async::{Store, suspend_until};

checked!(
    an_initialiser_in_a_closure,
    an_initialiser_in_a_host_function,
    a_variable_set_around_each_poll,
    a_vector_lent_in_the_middle_of_a_sort,
    a_vector_lent_while_the_guest_is_called_again,
);

thread_local! {
    static FIRST: Cell<bool> = const { Cell::new(true) };
    /// The first user initialises this. If it were suspended in the middle, a second one would initialise it, too, and
    /// borrow a value that the first one replaces when it resumes.
    static NAME: String = {
        assert!(FIRST.replace(false), "initialised twice");
        format!("{:?}", refused(suspend_until(pending(1))))
    };
}

/// Borrows the name for as long as possible.
fn name() -> String {
    NAME.with(|name| {
        let before = name.clone();
        refused(suspend_until(pending(1)));
        assert_eq!(before, *name);
        before
    })
}

fn an_initialiser_in_a_closure<S: Checked>() -> Result<()> {
    let engine = Engine::default();
    let (mut one, mut two) = (Store::new(&engine, ()), Store::new(&engine, ()));
    let (mut stack_one, mut stack_two) = (stack::<S>(), stack::<S>());
    let mut call_one = stack_one.run_send(&mut one, |_| Ok(name()));
    let mut call_two = stack_two.run_send(&mut two, |_| Ok(name()));
    for call in [&mut call_one, &mut call_two] as [&mut (dyn Future<Output = _> + Unpin); 2] {
        let Poll::Ready(Ok(name)) = poll_once(&mut &mut *call) else { panic!("it was suspended") };
        assert_eq!(name, "Closure");
    }
    drop((call_one, call_two));
    assert_usable(&mut stack_one, &mut two)?;
    assert_usable(&mut stack_two, &mut one)
}

fn an_initialiser_in_a_host_function<S: Checked>() -> Result<()> {
    let mut store = Store::new(&Engine::default(), ());
    let host = Func::wrap(&mut store, || assert_eq!(name(), "HostCode"));
    let mut stack = stack::<S>();
    run(&mut stack, &mut store, host)?;
    run(&mut stack, &mut store, host)
}

/// A variable that is set for the time of a closure, and whose value other code borrows in the meantime. (Lending
/// references to data on the setter's stack takes unsafe code. This one shares the data, and notices the mistake.)
struct Scoped;

thread_local!(static REQUESTS: RefCell<Vec<Arc<str>>> = RefCell::default());

impl Scoped {
    fn set<R>(value: &str, f: impl FnOnce() -> R) -> R {
        REQUESTS.with_borrow_mut(|requests| requests.push(value.into()));
        let result = f();
        REQUESTS.with_borrow_mut(|requests| assert_eq!(requests.pop().as_deref(), Some(value)));
        result
    }

    fn with<R>(f: impl FnOnce(&str) -> R) -> R {
        let current = || REQUESTS.with_borrow(|requests| requests.last().cloned());
        let lent = current().expect("is set");
        let result = f(&lent);
        assert!(current().is_some_and(|current| Arc::ptr_eq(&current, &lent)), "gone while it was lent");
        result
    }
}

fn a_variable_set_around_each_poll<S: Checked>() -> Result<()> {
    let mut store = Store::new(&Engine::default(), ());
    let ways = Ways::new(&mut store)?;
    let host = Func::wrap(&mut store, move |mut caller: Caller<'_, ()>| {
        Scoped::with(|request| {
            assert_eq!(request, "first");
            ways.try_all(&mut caller, Around::HostFunction);
        });
    });
    let run = crate::calls(&mut store, host)?;
    let mut stack = stack::<S>();
    let mut call = run.call(&mut stack, &mut store, ());
    for request in ["first", "second"] {
        assert!(Scoped::set(request, || poll_once(&mut call)).is_pending());
    }
    assert!(matches!(Scoped::set("third", || poll_once(&mut call)), Poll::Ready(Ok(42))));
    Ok(())
}

thread_local!(static LIST: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) });

/// Sorts the list, and runs a closure in the middle of it.
fn sort(mut in_the_middle: impl FnMut()) {
    LIST.with_borrow_mut(|list| {
        list.clear();
        list.extend((0..10).rev());
        let mut comparisons = 0;
        list.sort_by(|a, b| {
            comparisons += 1;
            if comparisons == 5 {
                in_the_middle();
            }
            a.cmp(b)
        });
        assert!(comparisons >= 5);
    });
    assert!(LIST.with_borrow(|list| list.is_sorted()));
}

fn a_vector_lent_in_the_middle_of_a_sort<S: Checked>() -> Result<()> {
    let mut store = Store::new(&Engine::default(), ());
    let ways = Ways::new(&mut store)?;
    let mut stack = stack::<S>();
    let mut call = stack.run_send(&mut store, move |mut store| {
        sort(|| ways.try_all(&mut store, Around::Closure));
        Ok(())
    });
    assert!(matches!(poll_once(&mut call), Poll::Ready(Ok(()))));
    // The thread's variables are dropped when it ends, whether the call is dropped or not.
    mem::forget(call);
    assert_usable(&mut stack, &mut store)
}

fn a_vector_lent_while_the_guest_is_called_again<S: Checked>() -> Result<()> {
    let mut store = Store::new(&Engine::default(), ());
    let ways = Ways::new(&mut store)?;
    let host = Func::wrap(&mut store, move |mut caller: Caller<'_, ()>| {
        sort(|| ways.try_all(&mut caller, Around::HostFunction));
    });
    let mut stack = stack::<S>();
    run(&mut stack, &mut store, host)?;
    // While a call is suspended, other code can use the list.
    let run = crate::calls(&mut store, host)?;
    let mut call = run.call(&mut stack, &mut store, ());
    assert!(poll_once(&mut call).is_pending());
    sort(|| ());
    mem::forget(call);
    sort(|| ());
    assert_usable(&mut stack, &mut Store::new(&Engine::default(), ()))
}
