//! Components.

#[cfg(feature = "component-model")]
mod generated;
mod in_closures;
#[cfg(feature = "component-model")]
mod on_stacks;
#[cfg(feature = "component-model")]
mod resources;
