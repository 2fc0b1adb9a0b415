//! Many calls in flight on one thread, resumed and dropped in random order, with every kind of ending. What one call
//! computes and how it ends must not depend on any other.

use crate::common::futures::{CountingWaker, pending};
use crate::common::random::Random;
use crate::support::{AnyStack, Code, many, matrix};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use wasmtime::{
    AsContextMut, Caller, Engine, Func, Global, GlobalType, Instance, Linker, Module, Mutability, Result, Store, Trap,
    TypedFunc, Val, ValType, WasmBacktrace,
};
use wasmtime_async::{AsyncFunc, Carries, Error, FuncExt, LinkerExt, suspend_until, yield_now};

matrix!(calls_in_random_order);

/// Sums up what it waits for, at each depth, and then ends in the way that it was asked to.
const GUEST: &str = r#"(module
    (import "host" "wait" (func $wait (param i32) (result i32)))
    (import "host" "through" (func $through (param i32 i32 i32) (result i64)))
    (import "host" "through_async" (func $through_async (param i32 i32 i32) (result i64)))
    (import "host" "end" (func $end (param i32)))
    (type $nothing (func))
    (memory 1)
    (table 2 funcref)
    (elem (i32.const 1) $recurse)
    (global $sum (export "sum") (mut i64) (i64.const 0))

    (func $recurse (param i32) (result i32)
        (i32.add (i32.const 1) (call $recurse (i32.add (local.get 0) (i32.const 1)))))

    (func $is (param $ending i32) (param $other i32) (result i32) (i32.eq (local.get 0) (local.get 1)))
    (func $finish (param $ending i32)
        (if (call $is (local.get 0) (i32.const 1)) (then (unreachable)))
        (if (call $is (local.get 0) (i32.const 2)) (then (drop (i32.div_s (i32.const 1) (i32.const 0)))))
        (if (call $is (local.get 0) (i32.const 3)) (then (drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))))
        (if (call $is (local.get 0) (i32.const 4)) (then (drop (i32.trunc_f32_s (f32.const nan)))))
        (if (call $is (local.get 0) (i32.const 5)) (then (drop (i32.load (i32.const 65536)))))
        (if (call $is (local.get 0) (i32.const 6)) (then (call_indirect (type $nothing) (i32.const 2))))
        (if (call $is (local.get 0) (i32.const 7)) (then (call_indirect (type $nothing) (i32.const 0))))
        (if (call $is (local.get 0) (i32.const 8)) (then (call_indirect (type $nothing) (i32.const 1))))
        (if (call $is (local.get 0) (i32.const 9)) (then (drop (call $recurse (i32.const 0)))))
        (if (call $is (local.get 0) (i32.const 10)) (then (loop (br 0))))
        (if (call $is (local.get 0) (i32.const 11)) (then (loop (br 0)))))

    ;; What it sums up at one depth is in a local variable, from there in memory, and summed up for all depths in a
    ;; global. Returns what is in memory.
    (func (export "run") (param $steps i32) (param $depth i32) (param $ending i32) (result i64)
        (local $step i32) (local $answer i64) (local $total i64) (local $below i64)
        (i64.store (i32.mul (local.get $depth) (i32.const 8)) (i64.const 0))
        (loop $next
            (if (i32.lt_s (local.get $step) (local.get $steps)) (then
                (local.set $answer (i64.extend_i32_s (call $wait (local.get $step))))
                (local.set $total (i64.add (local.get $total) (local.get $answer)))
                (global.set $sum (i64.add (global.get $sum) (local.get $answer)))
                (i64.store (i32.mul (local.get $depth) (i32.const 8)) (local.get $total))
                (local.set $step (i32.add (local.get $step) (i32.const 1)))
                (br $next))))
        (if (i32.eqz (local.get $depth))
            (then
                (call $end (local.get $ending))
                (call $finish (local.get $ending)))
            (else
                (local.set $below
                    (if (result i64) (i32.and (local.get $depth) (i32.const 1))
                        (then (call $through
                            (local.get $steps) (i32.sub (local.get $depth) (i32.const 1)) (local.get $ending)))
                        (else (call $through_async
                            (local.get $steps) (i32.sub (local.get $depth) (i32.const 1)) (local.get $ending)))))))
        (i64.add (i64.load (i32.mul (local.get $depth) (i32.const 8))) (local.get $below))))"#;

/// Calls the function above as it starts.
const STARTER: &str = r#"(module
    (import "guest" "run" (func $run (param i32 i32 i32) (result i64)))
    (import "plan" "steps" (global $steps i32))
    (import "plan" "depth" (global $depth i32))
    (import "plan" "ending" (global $ending i32))
    (global (export "result") (mut i64) (i64.const 0))
    (func $start (global.set 3 (call $run (global.get $steps) (global.get $depth) (global.get $ending))))
    (start $start))"#;

/// How a call is to end, unless it is dropped before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Result,
    Trap(Trap),
    HostError,
    HostPanic,
    /// Waits for ever, to be dropped.
    Never,
}

/// The endings, each at the number that the guest knows it by.
const ENDINGS: [Ending; 15] = [
    Ending::Result,
    Ending::Trap(Trap::UnreachableCodeReached),
    Ending::Trap(Trap::IntegerDivisionByZero),
    Ending::Trap(Trap::IntegerOverflow),
    Ending::Trap(Trap::BadConversionToInteger),
    Ending::Trap(Trap::MemoryOutOfBounds),
    Ending::Trap(Trap::TableOutOfBounds),
    Ending::Trap(Trap::IndirectCallToNull),
    Ending::Trap(Trap::BadSignature),
    Ending::Trap(Trap::StackOverflow),
    Ending::Trap(Trap::OutOfFuel),
    Ending::Trap(Trap::Interrupt),
    Ending::HostError,
    Ending::HostPanic,
    Ending::Never,
];

/// The error of a host function, and the payload of a host function's panic: whose it was.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Mine {
    id: i32,
}

impl fmt::Display for Mine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an error of store {}", self.id)
    }
}

impl std::error::Error for Mine {}

/// A store's own data.
pub(crate) struct Data {
    id: i32,
    random: Random,
    /// The sum of all answers that the guest was given in this call.
    answered: i64,
    /// The guest's function, for host functions that call back.
    run: Option<Run>,
}

type Run = TypedFunc<(i32, i32, i32), i64>;
type AsyncRun = AsyncFunc<(i32, i32, i32), i64>;

/// What the guest waits for, different for each store.
fn answer(id: i32, step: i32) -> i32 {
    id.wrapping_mul(0x01f3_5a7d) ^ step
}

/// All that the calls of one test share.
struct World<S> {
    engine: Engine,
    guest: Module,
    starter: Module,
    random: RefCell<Random>,
    /// Stacks that are not in use, to be taken by whichever call comes next.
    stacks: RefCell<Vec<S>>,
    /// How often calls ended how.
    endings: RefCell<BTreeMap<&'static str, usize>>,
    suspended: Cell<usize>,
    most_suspended: Cell<usize>,
    forgotten: Cell<usize>,
}

fn calls_in_random_order<S: AnyStack + Carries<Data>>(code: Code) -> Result<()> {
    // Small, so that the many calls that end for lack of it do not take up much memory.
    const GUEST_STACK: usize = 64 << 10;
    let engine = Engine::new(code.config().max_wasm_stack(GUEST_STACK).consume_fuel(true).epoch_interruption(true))?;
    let world = Rc::new(World::<S> {
        guest: Module::new(&engine, GUEST)?,
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
            let (life, ended) = inside.poll(life, Waker::from(Arc::clone(&waker)))?;
            lives.push(life);
            let last = lives.len() - 1;
            lives.swap(chosen, last);
            ended
        } else {
            let woken = waker.woken();
            let kept = Waker::from(Arc::clone(&waker));
            let ended = lives[chosen].as_mut().poll(&mut Context::from_waker(&kept)).is_ready();
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
    // A forgotten call keeps that of its last poll, for each of up to five futures that poll one another.
    assert!(Arc::strong_count(&waker) <= 1 + 5 * world.forgotten.get(), "wakers are left over");
    if at_once >= 1000 {
        assert!(world.most_suspended.get() >= at_once / 2);
        // All endings, and that by dropping in three ways.
        assert_eq!(endings.len(), ENDINGS.len() - 1 + 3);
        assert!(endings.values().all(|&times| times >= 10));
        assert!(endings.values().sum::<usize>() >= 3 * at_once);
    }
    Ok(())
}

impl<S: AnyStack + Carries<Data>> World<S> {
    /// One store, and a few calls one after another, each on any stack.
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

            let plan = Plan::random(&mut self.random.borrow_mut());
            let mut lease = Lease::new(&self);
            let call = plan.call(lease.stack(), &mut store, &instance, &run, &self.starter);
            let outcome = Attempt { world: &self, call: Some(call), plan, suspended: false }.await;
            drop(lease);

            let kind = plan.check(&outcome, id);
            *self.endings.borrow_mut().entry(kind).or_default() += 1;
            if let Outcome::Forgotten = outcome {
                // Its store is not to be used again.
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
        let wait = Func::wrap_suspending(&mut *store, async |mut caller: Caller<'_, Data>, step: i32| {
            let polls = caller.data_mut().random.below(3);
            pending(polls).await;
            let answer = answer(caller.data().id, step);
            caller.data_mut().answered += i64::from(answer);
            answer
        });
        let through = Func::wrap(&mut *store, |mut caller: Caller<'_, Data>, steps: i32, depth: i32, ending: i32| {
            let run = caller.data().run.clone().expect("was set after instantiation");
            run.call(&mut caller, (steps, depth, ending))
        });
        let through_async = Func::wrap_suspending(
            &mut *store,
            async |mut caller: Caller<'_, Data>, steps: i32, depth: i32, ending: i32| {
                pending(1).await;
                let run = caller.data().run.clone().expect("was set after instantiation");
                run.call(&mut caller, (steps, depth, ending))
            },
        );
        let end = Func::wrap_suspending(&mut *store, end);
        let imports = [wait.into(), through.into(), through_async.into(), end.into()];
        let instance = Instance::new(&mut *store, &self.guest, &imports)?;
        let run = instance.get_func(&mut *store, "run").expect("is exported").get_async(store).typed()?;
        Ok((instance, run))
    }
}

/// Brings about the endings that need the host, or gets them ready.
async fn end(mut caller: Caller<'_, Data>, ending: i32) -> Result<()> {
    let polls = caller.data_mut().random.below(3);
    pending(polls).await;
    let mine = Mine { id: caller.data().id };
    match ENDINGS[usize::try_from(ending)?] {
        Ending::Trap(Trap::OutOfFuel) => caller.set_fuel(1000)?,
        Ending::Trap(Trap::Interrupt) => caller.as_context_mut().set_epoch_deadline(0),
        Ending::HostError => return Err(mine.into()),
        // Like a panic that nothing is printed of.
        Ending::HostPanic => resume_unwind(Box::new(mine)),
        Ending::Never if mine.id % 2 == 0 => pending(usize::MAX).await,
        Ending::Never => loop {
            yield_now()?;
        },
        Ending::Result | Ending::Trap(_) => (),
    }
    Ok(())
}

/// What one call is to do.
#[derive(Clone, Copy, Debug)]
struct Plan {
    way: Way,
    steps: i32,
    depth: i32,
    ending: usize,
    /// After how many polls the call is to be dropped.
    drop_after: Option<usize>,
    /// Not dropped then, but forgotten.
    forget: bool,
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Untyped,
    Typed,
    Closure,
    Start,
}

impl Plan {
    fn random(random: &mut Random) -> Self {
        let ending = random.below(ENDINGS.len());
        let to_drop = ENDINGS[ending] == Ending::Never || random.one_in(10);
        Self {
            way: *random.pick(&[Way::Untyped, Way::Typed, Way::Closure, Way::Start]),
            steps: *random.pick(&[0, 1, 2, 5]),
            depth: *random.pick(&[0, 1, 2, 3]),
            ending,
            drop_after: to_drop.then(|| random.below(20)),
            forget: to_drop && random.one_in(10),
        }
    }

    fn ending(&self) -> Ending {
        ENDINGS[self.ending]
    }

    /// The sum of all answers.
    fn expected(&self, id: i32) -> i64 {
        i64::from(self.depth + 1) * (0..self.steps).map(|step| i64::from(answer(id, step))).sum::<i64>()
    }

    fn call<'a, S: AnyStack + Carries<Data>>(
        self,
        stack: &'a mut S,
        store: &'a mut Store<Data>,
        guest: &Instance,
        run: &'a AsyncRun,
        starter: &'a Module,
    ) -> Pin<Box<dyn Future<Output = Result<i64>> + 'a>> {
        let ending = i32::try_from(self.ending).expect("few endings");
        let params = (self.steps, self.depth, ending);
        match self.way {
            Way::Typed => Box::pin(run.call(stack, store, params)),
            Way::Untyped => Box::pin(async move {
                let params = [params.0, params.1, params.2].map(Val::I32);
                let mut results = [Val::I64(0)];
                run.as_typed().func().call_on(stack, store, &params, &mut results).await?;
                Ok(results[0].unwrap_i64())
            }),
            Way::Closure => Box::pin(stack.go(store, move |mut store| {
                let result = run.as_typed().call(&mut store, params);
                // Whatever came of it, the stack can wait again, unless the call was dropped.
                match suspend_until(pending(1)) {
                    Ok(()) | Err(Error::Cancelled) => result,
                    Err(error) => Err(error.into()),
                }
            })),
            Way::Start => {
                let mut linker = Linker::new(store.engine());
                for (name, value) in [("steps", params.0), ("depth", params.1), ("ending", params.2)] {
                    let ty = GlobalType::new(ValType::I32, Mutability::Const);
                    let global = Global::new(&mut *store, ty, Val::I32(value)).expect("the type is right");
                    linker.define(&mut *store, "plan", name, global).expect("is new");
                }
                linker.instance(&mut *store, "guest", *guest).expect("is new");
                Box::pin(async move {
                    let instance = linker.instantiate_on(stack, store, starter).await?;
                    Ok(instance.get_global(&mut *store, "result").expect("is exported").get(store).unwrap_i64())
                })
            }
        }
    }

    /// Checks how the call ended, and names that.
    fn check(&self, outcome: &Outcome, id: i32) -> &'static str {
        match (self.ending(), outcome) {
            (_, Outcome::Unstarted) => "dropped before the start",
            (_, Outcome::Dropped) => "dropped",
            (_, Outcome::Forgotten) => "forgotten",
            (Ending::Result, Outcome::Ended(Ok(result))) => {
                assert_eq!(*result, self.expected(id), "{self:?}");
                "result"
            }
            (Ending::Trap(expected), Outcome::Ended(Err(error))) => {
                assert_eq!(error.downcast_ref(), Some(&expected), "{self:?}: {error:?}");
                assert!(error.is::<WasmBacktrace>(), "{self:?}: {error:?}");
                // As long as the program runs.
                trap_name(expected)
            }
            (Ending::HostError, Outcome::Ended(Err(error))) => {
                assert_eq!(error.downcast_ref(), Some(&Mine { id }), "{self:?}: {error:?}");
                assert!(error.is::<WasmBacktrace>(), "{self:?}: {error:?}");
                "host error"
            }
            (Ending::HostPanic, Outcome::Panicked(payload)) => {
                assert_eq!(payload.downcast_ref(), Some(&Mine { id }), "{self:?}");
                "host panic"
            }
            (_, outcome) => panic!("{self:?} of store {id} ended in {outcome:?}"),
        }
    }
}

fn trap_name(trap: Trap) -> &'static str {
    match trap {
        Trap::UnreachableCodeReached => "unreachable",
        Trap::IntegerDivisionByZero => "division by zero",
        Trap::IntegerOverflow => "integer overflow",
        Trap::BadConversionToInteger => "bad conversion",
        Trap::MemoryOutOfBounds => "out of memory's bounds",
        Trap::TableOutOfBounds => "out of table's bounds",
        Trap::IndirectCallToNull => "null call",
        Trap::BadSignature => "bad signature",
        Trap::StackOverflow => "stack overflow",
        Trap::OutOfFuel => "out of fuel",
        Trap::Interrupt => "interrupt",
        other => panic!("not among the endings: {other:?}"),
    }
}

/// How a call did end.
#[derive(Debug)]
enum Outcome {
    Ended(Result<i64>),
    Panicked(Box<dyn std::any::Any + Send>),
    /// Dropped before it was polled.
    Unstarted,
    Dropped,
    Forgotten,
}

impl Outcome {
    fn is_dropped(&self) -> bool {
        matches!(self, Outcome::Unstarted | Outcome::Dropped | Outcome::Forgotten)
    }
}

/// A call that is dropped or forgotten when its time has come, and whose panics are caught.
struct Attempt<'a, S> {
    world: &'a World<S>,
    call: Option<Pin<Box<dyn Future<Output = Result<i64>> + 'a>>>,
    plan: Plan,
    suspended: bool,
}

impl<S> Attempt<'_, S> {
    fn set_suspended(&mut self, now: bool) {
        let was = mem::replace(&mut self.suspended, now);
        let count = self.world.suspended.get() + usize::from(now) - usize::from(was);
        self.world.suspended.set(count);
        self.world.most_suspended.set(self.world.most_suspended.get().max(count));
    }
}

impl<S> Future for Attempt<'_, S> {
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

impl<S> Drop for Attempt<'_, S> {
    fn drop(&mut self) {
        self.set_suspended(false);
    }
}

/// A stack that is on loan to one call.
struct Lease<'a, S> {
    world: &'a World<S>,
    stack: Option<S>,
}

impl<'a, S: AnyStack> Lease<'a, S> {
    fn new(world: &'a World<S>) -> Self {
        const SIZE: usize = 512 << 10;
        let mut stacks = world.stacks.borrow_mut();
        let stack = if stacks.is_empty() {
            S::new(SIZE).expect("there is memory")
        } else {
            let chosen = world.random.borrow_mut().below(stacks.len());
            stacks.swap_remove(chosen)
        };
        Self { world, stack: Some(stack) }
    }

    fn stack(&mut self) -> &mut S {
        self.stack.as_mut().expect("taken on drop")
    }
}

impl<S> Drop for Lease<'_, S> {
    fn drop(&mut self) {
        self.world.stacks.borrow_mut().extend(self.stack.take());
    }
}

/// Polls a future from within a host function, inside an activation that was there before, in a store of its own.
struct Inside {
    store: Store<Option<Passed>>,
    run: TypedFunc<(), ()>,
}

type Life = Pin<Box<dyn Future<Output = ()>>>;

/// What goes in, and comes out.
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
