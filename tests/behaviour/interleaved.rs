//! Many calls in flight on one thread, resumed and dropped in random order, with every kind of ending. What one call
//! computes and how it ends must not depend on the other calls.

mod plan;

use crate::common::futures::{CountingWaker, pending};
use crate::common::moving::elsewhere;
use crate::common::random::Random;
use crate::support::{Code, Kind, many, matrix};
use plan::{AsyncRun, Data, ENDINGS, Ending, Mine, Outcome, Plan, STARTER, answer, guest};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use wasmtime::{AsContextMut, Caller, Engine, Func, Instance, Module, Result, Trap, TypedFunc, Val};
use wasmtime_async::{Carries, FuncExt, Store, yield_now};

matrix!(calls_in_random_order);

/// The state that the calls of one test share.
struct World<K: Kind> {
    engine: Engine,
    guest: Module,
    starter: Module,
    random: RefCell<Random>,
    /// Idle stacks. The next call takes one of them.
    stacks: RefCell<Vec<K::Stack>>,
    /// How many calls ended in each way.
    endings: RefCell<BTreeMap<&'static str, usize>>,
    suspended: Cell<usize>,
    most_suspended: Cell<usize>,
    forgotten: Cell<usize>,
}

fn calls_in_random_order<K: Kind<Stack: Carries<Data>>>(code: Code) -> Result<()> {
    // Small, so that the many calls that run out of stack do not take up much memory.
    const GUEST_STACK: usize = 64 << 10;
    let engine = Engine::new(code.config().max_wasm_stack(GUEST_STACK).consume_fuel(true).epoch_interruption(true))?;
    let world = Rc::new(World::<K> {
        guest: Module::new(&engine, guest::<K>())?,
        starter: Module::new(&engine, STARTER)?,
        engine,
        random: RefCell::new(Random::from_environment()),
        stacks: RefCell::default(),
        endings: RefCell::default(),
        suspended: Cell::new(0),
        most_suspended: Cell::new(0),
        forgotten: Cell::new(0),
    });
    let waker = CountingWaker::new();
    let mut inside = Inside::new(&world.engine)?;

    let at_once = many();
    let mut started = 0;
    let mut lives = Vec::new();
    let mut start = || {
        started += 1;
        let life: Pin<Box<dyn Future<Output = ()>>> = Box::pin(Rc::clone(&world).life(started));
        life
    };
    lives.resize_with(at_once, &mut start);
    let mut to_come = at_once;
    while !lives.is_empty() {
        let (chosen, from_inside, to_drop) = {
            let mut random = world.random.borrow_mut();
            (random.below(lives.len()), random.one_in(5), random.one_in(500))
        };
        let ended = if to_drop {
            true
        } else if from_inside {
            let life = lives.swap_remove(chosen);
            let waker = Waker::from(Arc::clone(&waker));
            let (life, ended) = elsewhere(|| inside.poll(life, waker))?;
            lives.push(life);
            let last = lives.len() - 1;
            lives.swap(chosen, last);
            ended
        } else {
            let woken = waker.woken();
            let kept = Waker::from(Arc::clone(&waker));
            let life = &mut lives[chosen];
            let ended = elsewhere(|| life.as_mut().poll(&mut Context::from_waker(&kept)).is_ready());
            assert!(ended || waker.woken() > woken, "pending, and nobody was woken");
            ended
        };
        if ended && to_come > 0 {
            to_come -= 1;
            lives[chosen] = start();
        } else if ended {
            drop(lives.swap_remove(chosen));
        }
    }

    let endings = world.endings.borrow();
    println!("{} suspended at once, {endings:?}", world.most_suspended.get());
    assert_eq!(world.suspended.get(), 0, "calls that were suspended have ended");
    // A forgotten call keeps the waker of its last poll, for each of up to five futures that poll one another.
    assert!(Arc::strong_count(&waker) <= 1 + 5 * world.forgotten.get(), "wakers are left over");
    if at_once >= 1000 {
        assert!(world.most_suspended.get() >= at_once / 2);
        // All endings. Dropping counts as one of them, in three variants.
        assert_eq!(endings.len(), ENDINGS.len() - 1 + 3);
        assert!(endings.values().all(|&times| times >= 10));
        assert!(endings.values().sum::<usize>() >= 3 * at_once);
    }
    Ok(())
}

impl<K: Kind<Stack: Carries<Data>>> World<K> {
    /// One store, and a few calls in sequence, each on any stack.
    async fn life(self: Rc<Self>, id: i32) {
        let random = self.random.borrow_mut().fork();
        let mut store = Store::new(&self.engine, Data { id, random, answered: 0, run: None });
        let (instance, run) = self.instantiate(&mut store).expect("the guest fits its imports");
        store.data_mut().run = Some(run.as_typed().clone());
        let sum = instance.get_global(&mut store, "sum").expect("is exported");

        for _ in 0..3 {
            store.set_fuel(1 << 40).expect("fuel is on");
            store.set_epoch_deadline(1 << 40);
            store.data_mut().answered = 0;
            sum.set(&mut store, Val::I64(0)).expect("is mutable");

            let plan = Plan::random::<K>(&mut self.random.borrow_mut());
            let mut lease = Lease::new(&self);
            let call = plan.call(lease.stack(), &mut store, &instance, &run, &self.starter);
            let outcome = Attempt { world: &self, call: Some(call), plan, suspended: false }.await;
            drop(lease);

            let kind = plan.check(&outcome, id);
            *self.endings.borrow_mut().entry(kind).or_default() += 1;
            if let Outcome::Forgotten = outcome {
                // The store must not be used again.
                return;
            }
            let summed = sum.get(&mut store).unwrap_i64();
            assert_eq!(summed, store.data().answered, "what the guest got is what it was given: {plan:?}");
            if !outcome.is_dropped() {
                assert_eq!(summed, plan.expected(id), "{plan:?}");
            }
        }
    }

    fn instantiate(&self, store: &mut Store<Data>) -> Result<(Instance, AsyncRun)> {
        let through = Func::wrap(&mut *store, |mut caller: Caller<'_, Data>, steps: i32, depth: i32, ending: i32| {
            let run = caller.data().run.clone().expect("was set after instantiation");
            run.call(&mut caller, (steps, depth, ending))
        });
        let [wait, through_async, end] = if K::MOVES {
            [
                Func::wrap_suspending_boxed(&mut *store, |caller, (step,): (i32,)| Box::new(wait(caller, step))),
                Func::wrap_suspending_boxed(&mut *store, |caller, (steps, depth, ending): (i32, i32, i32)| {
                    Box::new(through_async(caller, steps, depth, ending))
                }),
                Func::wrap_suspending_boxed(&mut *store, |caller, (ending,): (i32,)| {
                    Box::new(end::<K>(caller, ending))
                }),
            ]
        } else {
            [
                Func::wrap_suspending(&mut *store, wait),
                Func::wrap_suspending(&mut *store, through_async),
                Func::wrap_suspending(&mut *store, end::<K>),
            ]
        };
        let imports = [wait.into(), through.into(), through_async.into(), end.into()];
        let instance = Instance::new(&mut *store, &self.guest, &imports)?;
        let run = instance.get_func(&mut *store, "run").expect("is exported").get_async(store).typed()?;
        Ok((instance, run))
    }
}

async fn wait(mut caller: Caller<'_, Data>, step: i32) -> i32 {
    let polls = caller.data_mut().random.below(3);
    pending(polls).await;
    let answer = answer(caller.data().id, step);
    caller.data_mut().answered += i64::from(answer);
    answer
}

async fn through_async(mut caller: Caller<'_, Data>, steps: i32, depth: i32, ending: i32) -> Result<i64> {
    pending(1).await;
    let run = caller.data().run.clone().expect("was set after instantiation");
    run.call(&mut caller, (steps, depth, ending))
}

/// Causes the endings that need the host, or prepares them.
async fn end<K: Kind>(mut caller: Caller<'_, Data>, ending: i32) -> Result<()> {
    let polls = caller.data_mut().random.below(3);
    pending(polls).await;
    let mine = Mine { id: caller.data().id };
    match ENDINGS[usize::try_from(ending)?] {
        Ending::Trap(Trap::OutOfFuel) => caller.set_fuel(1000)?,
        Ending::Trap(Trap::Interrupt) => caller.as_context_mut().set_epoch_deadline(0),
        Ending::HostError => return Err(mine.into()),
        // Like a panic, but nothing is printed.
        Ending::HostPanic => resume_unwind(Box::new(mine)),
        Ending::Never if mine.id % 2 == 0 || !K::ANYTHING => pending(usize::MAX).await,
        Ending::Never => loop {
            yield_now()?;
        },
        Ending::Result | Ending::Trap(_) => (),
    }
    Ok(())
}

/// A call that is dropped or forgotten when its time comes, and whose panics are caught.
struct Attempt<'a, K: Kind> {
    world: &'a World<K>,
    call: Option<Pin<Box<dyn Future<Output = Result<i64>> + 'a>>>,
    plan: Plan,
    suspended: bool,
}

impl<K: Kind> Attempt<'_, K> {
    fn set_suspended(&mut self, now: bool) {
        let was = mem::replace(&mut self.suspended, now);
        let count = self.world.suspended.get() + usize::from(now) - usize::from(was);
        self.world.suspended.set(count);
        self.world.most_suspended.set(self.world.most_suspended.get().max(count));
    }
}

impl<K: Kind> Future for Attempt<'_, K> {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let this = self.get_mut();
        if this.plan.drop_after == Some(0) {
            let call = this.call.take();
            let suspended = this.suspended;
            this.set_suspended(false);
            return Poll::Ready(if !suspended {
                Outcome::Unstarted
            } else if this.plan.forget {
                mem::forget(call);
                this.world.forgotten.set(this.world.forgotten.get() + 1);
                Outcome::Forgotten
            } else {
                Outcome::Dropped
            });
        }
        if let Some(polls) = &mut this.plan.drop_after {
            *polls -= 1;
        }
        let call = this.call.as_mut().expect("not polled after its end");
        let outcome = match catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(cx))) {
            Ok(Poll::Pending) => {
                this.set_suspended(true);
                return Poll::Pending;
            }
            Ok(Poll::Ready(result)) => Outcome::Ended(result),
            Err(payload) => Outcome::Panicked(payload),
        };
        this.call = None;
        this.set_suspended(false);
        Poll::Ready(outcome)
    }
}

impl<K: Kind> Drop for Attempt<'_, K> {
    fn drop(&mut self) {
        self.set_suspended(false);
    }
}

/// A stack that one call has borrowed.
struct Lease<'a, K: Kind> {
    world: &'a World<K>,
    stack: Option<K::Stack>,
}

impl<'a, K: Kind> Lease<'a, K> {
    fn new(world: &'a World<K>) -> Self {
        const SIZE: usize = 512 << 10;
        let mut stacks = world.stacks.borrow_mut();
        let stack = if stacks.is_empty() {
            K::stack_of(SIZE).expect("there is memory")
        } else {
            let chosen = world.random.borrow_mut().below(stacks.len());
            stacks.swap_remove(chosen)
        };
        Self { world, stack: Some(stack) }
    }

    fn stack(&mut self) -> &mut K::Stack {
        self.stack.as_mut().expect("taken on drop")
    }
}

impl<K: Kind> Drop for Lease<'_, K> {
    fn drop(&mut self) {
        self.world.stacks.borrow_mut().extend(self.stack.take());
    }
}

/// Polls a future from within a host function, inside an existing activation, in a store of its own.
struct Inside {
    store: Store<Option<Passed>>,
    run: TypedFunc<(), ()>,
}

type Life = Pin<Box<dyn Future<Output = ()>>>;

/// The data that is passed in and out.
struct Passed {
    life: Life,
    waker: Waker,
    ended: bool,
}

impl Inside {
    fn new(engine: &Engine) -> Result<Self> {
        let mut store = Store::new(engine, None::<Passed>);
        store.set_fuel(u64::MAX)?;
        store.set_epoch_deadline(1 << 40);
        let poll = Func::wrap(&mut store, |mut caller: Caller<'_, Option<Passed>>| {
            let passed = caller.data_mut().as_mut().expect("was passed");
            passed.ended = passed.life.as_mut().poll(&mut Context::from_waker(&passed.waker)).is_ready();
        });
        let module = r#"(module (import "" "" (func)) (func (export "run") (call 0)))"#;
        let instance = Instance::new(&mut store, &Module::new(engine, module)?, &[poll.into()])?;
        let run = instance.get_typed_func(&mut store, "run")?;
        Ok(Self { store, run })
    }

    fn poll(&mut self, life: Life, waker: Waker) -> Result<(Life, bool)> {
        *self.store.data_mut() = Some(Passed { life, waker, ended: false });
        self.run.call(&mut self.store, ())?;
        let passed = self.store.data_mut().take().expect("was passed");
        Ok((passed.life, passed.ended))
    }
}
