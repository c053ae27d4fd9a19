// SPDX-License-Identifier: GPL-2.0

//! Work beside the task that asks for it, waits for its result, and the control groups that pay.
//!
//! | module | is |
//! | --- | --- |
//! | `queue` | work queues and jobs |
//! | `pending` | a count of work that an owner waits for |
//! | `wait` | wait queues with killable waits |
//! | `charge`, `task` | the control groups that pay; scheduling and kills of the current task |

mod charge;
mod pending;
mod queue;
mod task;
mod wait;

pub(crate) use queue::{Job, Run, WorkQueue};
pub(crate) use task::relax;
pub(crate) use wait::WaitQueue;

pub(super) use charge::Charge;
pub(super) use pending::{Pending, PendingWork};
