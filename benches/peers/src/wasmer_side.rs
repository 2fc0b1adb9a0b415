//! The guest under Wasmer.

use crate::sides::futures::Pending;
use crate::sides::guest;
use wasmer::sys::{Cranelift, EngineBuilder};
use wasmer::{Engine, Function, Instance, Module, Store, StoreAsync, TypedFunction, imports};

/// The guest, compiled.
pub(crate) struct WasmerGuest {
    engine: Engine,
    module: Module,
}

/// The guest, instantiated in a store of its own.
pub(crate) struct WasmerLive {
    store: StoreAsync,
    func: TypedFunction<i32, i32>,
}

impl WasmerGuest {
    pub(crate) fn new() -> Self {
        let engine: Engine = EngineBuilder::new(Cranelift::default()).engine().into();
        let module = Module::new(&engine, guest("")).expect("the guest compiles");
        Self { engine, module }
    }

    /// With a host function that is pending this many times.
    pub(crate) fn live(&self, pending: u32) -> WasmerLive {
        let mut store = Store::new(self.engine.clone());
        let call = Function::new_typed_async(&mut store, move |n: i32| async move {
            Pending::times(pending).await;
            n
        });
        let imports = imports! { "host" => { "call" => call } };
        let instance = Instance::new(&mut store, &self.module, &imports).expect("the guest can be instantiated");
        let func = instance.exports.get_typed_function(&store, "loop").expect("the guest exports it");
        WasmerLive { store: store.into_async(), func }
    }

    /// A new store, a new instance and one call. It calls the host function once, which is pending this many times.
    pub(crate) async fn request(&self, pending: u32) -> i32 {
        self.live(pending).call(1).await
    }
}

impl WasmerLive {
    pub(crate) async fn call(&self, n: i32) -> i32 {
        self.func.call_async(&self.store, n).await.expect("the guest does not trap")
    }
}
