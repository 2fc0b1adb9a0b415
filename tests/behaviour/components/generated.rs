//! Code from `bindgen!` with async imports and exports, which uses [`for_bindgen`].

use crate::common::futures::{cancel, finish, pending, poll_once};
use crate::support::guest::{assert_usable, stack, store};
use crate::support::{Code, Host, Kind, matrix};
use wasmtime::component::{Component, HasSelf, Resource};
use wasmtime::{Result, StoreContextMut, Trap};
use wasmtime_async::component::for_bindgen::OnStack;
use wasmtime_async::component::for_bindgen::component::Linker;
use wasmtime_async::component::{AsyncFunc, InstancePreExt, LinkerExt, LinkerInstanceExt};
use wasmtime_async::{Error, Store};

matrix!(imports_and_exports, exports_cancelled, instantiated_by_hand);
#[cfg(not(call_hook))]
matrix!(within: called_within);

wasmtime::component::bindgen!({
    inline: "
        package example:shop;
        interface orders {
            resource counter {
                constructor();
                add: func(n: u32) -> u32;
            }
        }
        interface desk {
            total: func(n: u32) -> u32;
        }
        world shop {
            import orders;
            import pause: func(turns: u32);
            export desk;
            export open: func() -> u32;
        }
    ",
    imports: { default: async | trappable },
    exports: { default: async },
    wasmtime_crate: wasmtime_async::component::for_bindgen,
});

use example::shop::orders;

const SHOP: &str = r#"(component
    (import "example:shop/orders" (instance $orders
        (export "counter" (type $counter (sub resource)))
        (export "[constructor]counter" (func (result (own $counter))))
        (export "[method]counter.add" (func (param "self" (borrow $counter)) (param "n" u32) (result u32)))))
    (import "pause" (func $pause (param "turns" u32)))
    (alias export $orders "counter" (type $counter))
    (core func $new (canon lower (func $orders "[constructor]counter")))
    (core func $add (canon lower (func $orders "[method]counter.add")))
    (core func $drop (canon resource.drop $counter))
    (core func $pause (canon lower (func $pause)))
    (core module $guest
        (import "" "new" (func $new (result i32)))
        (import "" "add" (func $add (param i32 i32) (result i32)))
        (import "" "drop" (func $drop (param i32)))
        (import "" "pause" (func $pause (param i32)))
        (global $level (mut i32) (i32.const 0))
        (func $start (call $pause (i32.const 1)) (global.set $level (i32.const 7)))
        (start $start)
        (func (export "total") (param $n i32) (result i32)
            (local $counter i32)
            (local $total i32)
            (local.set $counter (call $new))
            (loop
                (local.set $total (call $add (local.get $counter) (local.get $n)))
                (br_if 0 (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
            (call $drop (local.get $counter))
            (local.get $total))
        (func (export "open") (result i32) (call $pause (i32.const 2)) (global.get $level)))
    (core instance $guest (instantiate $guest (with "" (instance
        (export "new" (func $new)) (export "add" (func $add)) (export "drop" (func $drop)) (export "pause" (func $pause))))))
    (func $total (param "n" u32) (result u32) (canon lift (core func $guest "total")))
    (instance $desk (export "total" (func $total)))
    (export "example:shop/desk" (instance $desk))
    (func (export "open") (result u32) (canon lift (core func $guest "open"))))"#;

impl ShopImports for Host {
    async fn pause(&mut self, turns: u32) -> Result<()> {
        let _dropped = self.log.on_drop("paused");
        pending(turns.try_into()?).await;
        Ok(())
    }
}

impl orders::Host for Host {}

impl orders::HostCounter for Host {
    async fn new(&mut self) -> Result<Resource<orders::Counter>> {
        pending(1).await;
        self.id = 0;
        Ok(Resource::new_own(5))
    }

    async fn add(&mut self, counter: Resource<orders::Counter>, n: u32) -> Result<u32> {
        pending(1).await;
        assert_eq!(counter.rep(), 5);
        self.id += i32::try_from(n)?;
        Ok(self.id.try_into()?)
    }

    async fn drop(&mut self, counter: Resource<orders::Counter>) -> Result<()> {
        pending(1).await;
        self.log.add(format!("dropped {}", counter.rep()));
        Ok(())
    }
}

fn shop(store: &Store<Host>) -> Result<(Component, Linker<Host>)> {
    let mut linker = Linker::new(store.engine());
    Shop::add_to_linker::<_, HasSelf<_>>(&mut linker, |host: &mut Host| host)?;
    Ok((Component::new(store.engine(), SHOP)?, linker))
}

fn imports_and_exports<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let (component, linker) = shop(&store)?;
    let mut context = OnStack::new(&mut stack, &mut store);
    let mut making = Box::pin(Shop::instantiate_async(&mut context, &component, &linker));
    assert!(poll_once(&mut making).is_pending());
    let shop = finish(making)?;
    for _ in 0..2 {
        let mut open = Box::pin(shop.call_open(&mut context));
        for _ in 0..2 {
            assert!(poll_once(&mut open).is_pending());
        }
        assert_eq!(finish(open)?, 7);
    }
    log.take();
    let mut total = Box::pin(shop.example_shop_desk().call_total(&mut context, 3));
    for _ in 0..5 {
        assert!(poll_once(&mut total).is_pending());
    }
    assert_eq!(finish(total)?, 6);
    assert_eq!(log.take(), ["dropped 5"]);
    Ok(())
}

fn exports_cancelled<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let (component, linker) = shop(&store)?;
    let mut context = OnStack::new(&mut stack, &mut store);
    let shop = finish(Box::pin(Shop::instantiate_async(&mut context, &component, &linker)))?;
    log.take();
    let mut open = Box::pin(shop.call_open(&mut context));
    assert!(poll_once(&mut open).is_pending());
    cancel(open);
    assert_eq!(log.take(), ["paused"]);
    let error = finish(Box::pin(shop.call_open(&mut context))).unwrap_err();
    assert_eq!(error.downcast_ref(), Some(&Trap::CannotEnterComponent), "{error:?}");
    assert_usable(&mut stack, &mut store)
}

/// Uses wasmtime's types, and what this crate adds to them.
fn instantiated_by_hand<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let (component, linker) = shop(&store)?;
    let pre = linker.instantiate_pre(&component)?;
    let instance = finish(pre.instantiate_on(&mut stack, &mut store))?;
    let shop = Shop::new(&mut store, &instance.into())?;
    let open = AsyncFunc::from(*shop.func_open());
    assert_eq!(finish(open.call(&mut stack, &mut store, ()))?, (7,));

    let linker = linker.into_inner();
    let instance = finish(linker.instantiate_on(&mut stack, &mut store, &component))?;
    let shop = ShopPre::new(linker.instantiate_pre(&component)?.into())?;
    let shop = finish(Box::pin(shop.instantiate_async(OnStack::new(&mut stack, &mut store))))?;
    assert_eq!(finish(Box::pin(shop.call_open(OnStack::new(&mut stack, &mut store))))?, 7);
    assert!(instance.get_func(&mut store, "open").is_some());
    Ok(())
}

/// An async host function instantiates the component and calls it, with the context of its store.
#[cfg_attr(call_hook, allow(dead_code, reason = "nested calls are an error there"))]
fn called_within<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let (component, shops) = shop(&store)?;
    let mut linker = Linker::new(store.engine());
    linker.root().func_wrap_suspending_boxed("nest", move |mut store: StoreContextMut<'_, Host>, (): ()| {
        let (component, shops) = (component.clone(), shops.clone());
        Box::new(async move {
            let shop = Shop::instantiate_async(&mut store, &component, &shops).await?;
            let total = shop.example_shop_desk().call_total(&mut store, 4).await?;
            Ok((total + shop.call_open(&mut store).await?,))
        })
    })?;
    let component = Component::new(store.engine(), super::on_stacks::OUTER)?;
    let instance = finish(linker.instantiate_on(&mut stack, &mut store, &component))?;
    let run = AsyncFunc::from(instance.get_typed_func::<(), (u32,)>(&mut store, "run")?);
    assert_eq!(finish(run.call(&mut stack, &mut store, ()))?, (10 + 7,));

    Ok(())
}

/// A plain store has no stack to call on.
#[test]
fn without_a_stack() -> Result<()> {
    let mut store = store(Code::Native);
    let (component, linker) = shop(&store)?;
    let error = finish(Box::pin(Shop::instantiate_async(&mut store, &component, &linker))).err().expect("has no stack");
    assert!(matches!(error.downcast_ref(), Some(Error::NotWithin)), "{error:?}");
    assert!(error.to_string().contains("OnStack"), "{error}");
    Ok(())
}

/// Generated code can be spawned wherever its stack can.
#[cfg(fiber_stack)]
#[test]
fn spawned() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build()?;
    let mut store = store(Code::Native);
    let (component, linker) = shop(&store)?;
    let mut stack = stack::<crate::support::SendFiber>();
    let total = runtime.block_on(runtime.spawn(async move {
        let mut store = OnStack::new(&mut stack, &mut store);
        let shop = Shop::instantiate_async(&mut store, &component, &linker).await?;
        shop.example_shop_desk().call_total(&mut store, 100).await
    }));
    assert_eq!(total??, 5050);
    Ok(())
}
