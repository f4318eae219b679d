//! Packets by the million between two network namespaces of a throw-away system, and what receiving one costs.
//!
//! * [`scene`]: what a flood is made of, the same file as in its kernel program.
//! * [`template`]: the frames that a flood is made from.
//! * [`programs`]: the benchmark's object, loaded.
//! * [`generator`]: one flood, on one processor.
//! * [`port`]: a veth pair; the receiving end has a kernel thread of its own.
//! * [`watch`]: what that thread uses, what arrives, what gets through.
//!
//! Invariants: frames leave by the sending end of a [`port::Port`] and by nothing else; a flood ends with its
//! [`generator::Flood`], with this process, and after 2^32 frames.

pub mod generator;
pub mod port;
pub mod programs;
#[path = "../../ebpf/src/bench/scene.rs"]
pub mod scene;
pub mod template;
pub mod watch;

use crate::{Error, Result};

/// An answer that is none, for `map_err`.
pub(crate) fn refused<E: std::error::Error>(what: &str) -> impl FnOnce(E) -> Error {
    move |error| {
        let mut words = error.to_string();
        let mut cause = error.source();
        while let Some(next) = cause {
            words = format!("{words}: {next}");
            cause = next.source();
        }
        Error::Answer { program: what.to_owned(), output: words }
    }
}

/// Runs a program; its words are an error when it fails.
pub(crate) fn must(program: &str, arguments: &[&str]) -> Result<String> {
    match crate::system::run(program, arguments)? {
        (true, output) => Ok(output),
        (false, output) => {
            Err(Error::Answer { program: format!("{program} {}", arguments.join(" ")), output })
        }
    }
}
