//! The planners: what follows from the state by itself. Level-triggered and keyed: each looks at one object that
//! something happened to, records the next step, and is called again for what that step touched.

mod assignment;
pub(crate) mod claim;
mod placement;
pub(crate) mod pod;
pub(crate) mod set;

pub use assignment::assignment;
