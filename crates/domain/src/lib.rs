//! What Holdfast decides: objects, commands, events, the state and its planners.
//! Never asks for the time, for chance or for a file: all of these are arguments.

pub mod address;
pub mod agent;
mod apply;
mod budget;
pub mod command;
pub mod config;
mod decide;
mod draft;
pub mod driver;
pub mod event;
pub mod id;
mod labels;
pub mod names;
pub mod object;
mod plan;
mod requests;
pub mod security;
mod server;
pub mod small_map;
pub mod spec;
mod state;
mod subject;
pub mod why;

pub use apply::{ANNOTATION_CHANGE_CAUSE, LABEL_POD_INDEX, LABEL_POD_NAME, LABEL_REVISION};
pub use budget::{BudgetState, budget_state};
pub use command::{Command, Rejection, Request};
pub use draft::{Draft, Outcome};
pub use event::{Batch, Event, revisions_of};
pub use id::uid_text;
pub use names::Names;
pub use plan::{Touch, Touched, assignment, assignment_after};
pub use requests::{REQUESTS_MAX, Requests};
pub use server::{SERVERS_MAX, changes_members};
pub use state::State;
pub use subject::subjects;
pub use why::{Explanation, Reason, explain};
