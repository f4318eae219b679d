//! `cargo xtask <verb>`: reads the command line and calls the library.

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use xtask::error::Result;
use xtask::workspace::Workspace;
use xtask::{bench, build, checks, demo, ebpf, install, mutations, sandbox, vm};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Developer verbs of Portcullis")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Build and check the eBPF object
    BuildEbpf(BuildEbpf),
    /// Build everything that is installed
    Build,
    /// Open a throw-away system with Portcullis running, for a shell or one command
    Sandbox(sandbox::Options),
    /// See it happen: three wrong passwords at su lock the account
    Demo,
    /// All checks: format, clippy, unit, property and whole-system tests
    Test {
        /// Part of a test's name; or `mutations`: break each invariant and see that a test notices;
        /// or `leaks`: the tests of leaks, with their long numbers; or `vm`: other kernels, in qemu
        filter: Option<String>,
        /// After `vm`: this kernel only; after `mutations`: those with this in their names
        which: Option<String>,
    },
    /// Measure, in a throw-away system
    Bench {
        #[command(subcommand)]
        what: bench::Bench,
    },
    /// Format and clippy, host and eBPF
    Lint,
    /// Install the release build
    Install(Root),
    /// Take Portcullis out again, the PAM line first
    Uninstall(Uninstall),
    #[command(hide = true)]
    SandboxInit(sandbox::init::Init),
    #[command(hide = true)]
    SandboxLayer { layer: PathBuf },
    #[command(hide = true)]
    SandboxCgroup(sandbox::cgroup::Keeper),
    #[command(hide = true)]
    VmBoot(vm::Boot),
    #[command(hide = true)]
    VmGuest(vm::Guest),
}

#[derive(Args)]
struct Root {
    /// The system's root folder
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

#[derive(Args)]
struct Uninstall {
    #[command(flatten)]
    root: Root,
    /// Remove the configuration and the store too
    #[arg(long)]
    purge: bool,
}

#[derive(Args)]
struct BuildEbpf {
    /// Features of the eBPF crate, separated by commas
    #[arg(long)]
    features: Option<String>,
    /// Where the object goes (default: ebpf/portcullis.bpf.o in the target folder)
    #[arg(long)]
    out: Option<PathBuf>,
    /// The compiler to use (default: Debian's where it is, else nightly)
    #[arg(long, value_name = "COMPILER")]
    with: Option<ebpf::Way>,
}

fn main() -> ExitCode {
    match dispatch(Cli::parse().verb) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(verb: Verb) -> Result<u8> {
    // These two run where there is no work tree.
    match &verb {
        Verb::VmBoot(options) => return vm::boot(options),
        Verb::VmGuest(options) => return vm::guest(options),
        _ => {}
    }
    let workspace = Workspace::find()?;
    match verb {
        Verb::BuildEbpf(args) => {
            ebpf::build(
                &workspace,
                &ebpf::Options { features: args.features, out: args.out, way: args.with },
            )?;
        }
        Verb::Build => build::build(&workspace)?,
        Verb::Sandbox(options) => return sandbox::run(&workspace, &options),
        Verb::Demo => return demo::demo(&workspace),
        Verb::Test { filter, which } => {
            return match filter.as_deref() {
                Some("vm") => vm::test(&workspace, which.as_deref()),
                Some("mutations") => mutations::run(&workspace, which.as_deref().unwrap_or_default()),
                Some("leaks") => checks::leaks(&workspace),
                filter => checks::test(&workspace, filter),
            };
        }
        Verb::Bench { what } => return bench::bench(&workspace, &what),
        Verb::Lint => return checks::lint(&workspace),
        Verb::VmBoot(_) | Verb::VmGuest(_) => {}
        Verb::SandboxInit(init) => return sandbox::init::run(&workspace, &init),
        Verb::SandboxCgroup(keeper) => sandbox::cgroup::keep(&keeper)?,
        Verb::SandboxLayer { layer } => sandbox::layer::make(&workspace, &layer)?,
        Verb::Install(Root { root }) => {
            build::refresh(&workspace)?;
            let config = install::install(&workspace, &root)?;
            println!("Portcullis is installed below {}.\n{}", root.display(), install::next_steps(config));
        }
        Verb::Uninstall(args) => {
            install::uninstall(&args.root.root, args.purge)?;
            println!("Portcullis is gone from {}.", args.root.root.display());
        }
    }
    Ok(0)
}
