//! Resources whose destructors wait: resources of the host, and resources of a guest.

use crate::common::futures::{cancel, finish, pending, poll_once};
use crate::support::guest::{assert_usable, stack, store};
use crate::support::{Code, Host, Kind, matrix};
use wasmtime::component::{Component, Linker, Resource, ResourceAny, ResourceType};
use wasmtime::{Result, StoreContextMut};
use wasmtime_async::Store;
use wasmtime_async::component::{AsyncFunc, LinkerExt, LinkerInstanceExt, ResourceAnyExt};

matrix!(of_the_host, of_a_guest);
matrix!(local: by_an_async_closure);

/// Stands for a file.
struct File;

/// Opens two files, and closes one.
const OPENER: &str = r#"(component
    (import "file" (type $file (sub resource)))
    (import "open" (func $open (result (own $file))))
    (core func $open (canon lower (func $open)))
    (core func $close (canon resource.drop $file))
    (core module $guest
        (import "" "open" (func $open (result i32)))
        (import "" "close" (func $close (param i32)))
        (func (export "run") (drop (call $open)) (call $close (call $open))))
    (core instance $guest (instantiate $guest
        (with "" (instance (export "open" (func $open)) (export "close" (func $close))))))
    (func (export "run") (canon lift (core func $guest "run"))))"#;

fn open(linker: &mut Linker<Host>) -> Result<()> {
    linker.root().func_wrap("open", |mut store: StoreContextMut<'_, Host>, (): ()| {
        store.data_mut().id += 1;
        Ok((Resource::<File>::new_own(u32::try_from(store.data().id)?),))
    })
}

fn run<K: Kind>(stack: &mut K::Stack, store: &mut Store<Host>, linker: &Linker<Host>) -> Result<AsyncFunc<(), ()>> {
    let component = Component::new(store.engine(), OPENER)?;
    let instance = finish(linker.instantiate_on(stack, store, &component))?;
    Ok(instance.get_typed_func::<(), ()>(store, "run")?.into())
}

fn of_the_host<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let mut linker = Linker::<Host>::new(store.engine());
    open(&mut linker)?;
    linker.root().resource_suspending_boxed(
        "file",
        ResourceType::host::<File>(),
        |store: StoreContextMut<'_, Host>, rep| {
            Box::new(async move {
                let _dropped = store.data().log.on_drop("destructor");
                pending(2).await;
                store.data().log.add(format!("closed {rep}"));
                Ok(())
            })
        },
    )?;
    let close = run::<K>(&mut stack, &mut store, &linker)?;
    let mut call = close.call(&mut stack, &mut store, ());
    for _ in 0..2 {
        assert!(poll_once(&mut call).is_pending());
    }
    finish(call)?;
    assert_eq!(log.take(), ["closed 2", "destructor"]);

    let mut call = close.call(&mut stack, &mut store, ());
    assert!(poll_once(&mut call).is_pending());
    cancel(call);
    assert_eq!(log.take(), ["destructor"]);
    assert_usable(&mut stack, &mut store)
}

fn by_an_async_closure<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let mut linker = Linker::<Host>::new(store.engine());
    open(&mut linker)?;
    linker.root().resource_suspending(
        "file",
        ResourceType::host::<File>(),
        async |mut store: StoreContextMut<'_, Host>, rep: u32| {
            let local = std::rc::Rc::new(rep);
            pending(1).await;
            store.data_mut().id += 10 * i32::try_from(*local)?;
            Ok(())
        },
    )?;
    let close = run::<K>(&mut stack, &mut store, &linker)?;
    let mut call = close.call(&mut stack, &mut store, ());
    assert!(poll_once(&mut call).is_pending());
    finish(call)?;
    assert_eq!(store.data().id, 22);
    Ok(())
}

/// The host drops the resource. Its destructor belongs to the guest, and calls an async host function.
fn of_a_guest<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let component = Component::new(
        store.engine(),
        r#"(component
            (import "flush" (func $flush (param "n" u32)))
            (core func $flush (canon lower (func $flush)))
            (core module $destructor
                (import "" "flush" (func $flush (param i32)))
                (func (export "destructor") (param i32) (call $flush (local.get 0))))
            (core instance $destructor (instantiate $destructor
                (with "" (instance (export "flush" (func $flush))))))
            (type $log' (resource (rep i32) (dtor (core func $destructor "destructor"))))
            (export $log "log" (type $log'))
            (core func $new (canon resource.new $log'))
            (core module $guest
                (import "" "new" (func $new (param i32) (result i32)))
                (func (export "make") (param i32) (result i32) (call $new (local.get 0))))
            (core instance $guest (instantiate $guest (with "" (instance (export "new" (func $new))))))
            (func (export "make") (param "n" u32) (result (own $log)) (canon lift (core func $guest "make"))))"#,
    )?;
    let mut linker = Linker::<Host>::new(store.engine());
    linker.root().func_wrap_suspending_boxed("flush", |store: StoreContextMut<'_, Host>, (n,): (u32,)| {
        Box::new(async move {
            let _dropped = store.data().log.on_drop("flush");
            pending(2).await;
            store.data().log.add(format!("flushed {n}"));
            Ok(())
        })
    })?;
    let instance = finish(linker.instantiate_on(&mut stack, &mut store, &component))?;
    let make = AsyncFunc::from(instance.get_typed_func::<(u32,), (ResourceAny,)>(&mut store, "make")?);
    let (first,) = finish(make.call(&mut stack, &mut store, (1,)))?;
    let (second,) = finish(make.call(&mut stack, &mut store, (2,)))?;

    let mut call = first.drop_on(&mut stack, &mut store);
    for _ in 0..2 {
        assert!(poll_once(&mut call).is_pending());
    }
    finish(call)?;
    assert_eq!(log.take(), ["flushed 1", "flush"]);

    let mut call = second.drop_on(&mut stack, &mut store);
    assert!(poll_once(&mut call).is_pending());
    cancel(call);
    assert_eq!(log.take(), ["flush"]);
    assert_usable(&mut stack, &mut store)
}
