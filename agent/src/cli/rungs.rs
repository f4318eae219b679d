//! `portcullis mode` and `portcullis breaker`.

use clap::{Args, ValueEnum};

use super::{CliError, Context, need_root, show};
use crate::api::view::{BreakerRequest, BreakerView, Done, ModeRequest};
use crate::exit::Exit;

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ModeWord {
    /// Everything is counted, computed and told; nothing is refused or done.
    Monitor,
    /// Locks lock.
    Enforce,
    /// What the configuration says.
    File,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum BreakerWord {
    /// Withhold the rungs above the lock.
    Open,
    /// Withhold nothing.
    Close,
    /// Let its rules decide.
    Auto,
}

/// What `mode` takes.
#[derive(Debug, Args)]
pub struct ModeArguments {
    /// Which mode.
    mode: ModeWord,
    /// Of this class alone.
    #[arg(long, value_name = "NAME")]
    class: Option<String>,
}

/// What `breaker` takes.
#[derive(Debug, Args)]
pub struct BreakerArguments {
    /// What it is to be; how it is, without.
    state: Option<BreakerWord>,
}

impl Context {
    pub(super) async fn mode(&self, arguments: &ModeArguments) -> Result<Exit, CliError> {
        need_root()?;
        let mode = match arguments.mode {
            ModeWord::Monitor => "monitor",
            ModeWord::Enforce => "enforce",
            ModeWord::File => "file",
        };
        let asked = ModeRequest { mode: mode.to_owned(), class: arguments.class.clone() };
        let done: Done = self.client.post("/v1/mode", &asked).await?;
        self.done(&done)
    }

    pub(super) async fn breaker(&self, arguments: &BreakerArguments) -> Result<(), CliError> {
        need_root()?;
        let word = arguments.state.map(|word| match word {
            BreakerWord::Open => "open",
            BreakerWord::Close => "close",
            BreakerWord::Auto => "auto",
        });
        let view: BreakerView = match word {
            Some(word) => {
                self.client.post("/v1/breaker", &BreakerRequest { breaker: word.to_owned() }).await?
            }
            None => self.client.get("/v1/breaker").await?,
        };
        self.print(&view, |view| format!("{}\n", show::breaker(view)))
    }
}
