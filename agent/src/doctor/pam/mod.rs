//! PAM stacks as libpam reads and walks them. Pure: files come from a function that is given.

pub mod control;
pub mod line;
pub mod load;
pub mod modules;
pub mod step;
pub mod walk;
