//! Cases: made from bytes, run, and compared. The fuzz target uses them, too.

pub(crate) mod case;
pub(crate) mod choices;
pub(crate) mod compare;
pub(crate) mod course;
pub(crate) mod driver;
pub(crate) mod elsewhere;
pub(crate) mod guest;
pub(crate) mod helpers;
pub(crate) mod host;
pub(crate) mod mode;
pub(crate) mod ours;
pub(crate) mod random;
pub(crate) mod run;
pub(crate) mod transcript;
pub(crate) mod values;
pub(crate) mod world;
