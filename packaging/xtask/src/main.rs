//! `cargo xtask`: sets the machine up, then builds the product, runs its tests or shows its main job.
//!
//! Every command does all the set-up it needs by itself and does nothing twice. Nothing of the product lives here.

mod minio;
mod plugins;
mod python;
mod servers;
mod setup;
mod tests;
mod workspace;

use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use workspace::{Result, Workspace, run};

const USAGE: &str = "\
usage: cargo xtask COMMAND

  setup            install what building and testing need: the wasm target, PostgreSQL of all versions, MinIO, Python
  build            plugins and binary, to target/release/holdfast
  test [ARGUMENT]  everything, with the arguments handed to the test binaries
  demo [OPTION]    the main job on a throw-away PostgreSQL; `demo --help` lists its options
  bench NOUN       speed and memory beside other programs: `postgres`, `repository` or `sandbox`; `--help` lists options
  golden           make tests/fixtures of the current version anew
";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    let done = match command.as_str() {
        "setup" => set_up(),
        "build" => build(),
        "test" => test(&rest),
        "demo" => built_program("demo", &rest),
        "bench" => bench(&rest),
        "golden" => built_program("golden", &rest),
        "help" | "--help" | "-h" => {
            eprint!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask {command}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<()> {
    setup::toolchain()?;
    let workspace = Workspace::locate()?;
    plugins::build(&workspace)?;
    plugins::build_guests(&workspace)?;
    build_programs(&workspace)?;
    eprintln!("built {}", workspace.program("holdfast").display());
    Ok(())
}

/// All that any command needs.
fn set_up() -> Result<()> {
    setup::all()?;
    let workspace = Workspace::locate()?;
    servers::fetch(&workspace)?;
    minio::build(&workspace)?;
    python::prepare(&workspace)
}

fn test(arguments: &[String]) -> Result<()> {
    set_up()?;
    let workspace = Workspace::locate()?;
    plugins::build(&workspace)?;
    plugins::build_guests(&workspace)?;
    tests::run_all(&workspace, arguments)
}

/// All programs, as the tests build them: the heavy libraries have one set of features then and are compiled once.
fn build_programs(workspace: &Workspace) -> Result<()> {
    run(workspace.cargo(&["build", "--release", "--workspace", "--bins"]))
}

/// Measures on this machine, beside others' programs.
fn bench(arguments: &[String]) -> Result<()> {
    match arguments.first().map(String::as_str) {
        Some("postgres") => setup::peers()?,
        Some("repository") => {
            setup::peers()?;
            let workspace = Workspace::locate()?;
            run(workspace.cargo(&["build", "--release", "--workspace", "--example", "store"]))?;
        }
        Some("sandbox") => {
            let workspace = Workspace::locate()?;
            plugins::build(&workspace)?;
            plugins::build_guests(&workspace)?;
            run(workspace.cargo(&["build", "--release", "--workspace", "--example", "boundary"]))?;
        }
        _ => {}
    }
    built_program("bench", arguments)
}

/// Builds the product and a program of the tests crate, then becomes that program: what ends us, ends it.
fn built_program(name: &str, arguments: &[String]) -> Result<()> {
    setup::all()?;
    let workspace = Workspace::locate()?;
    plugins::build(&workspace)?;
    build_programs(&workspace)?;
    let mut program = std::process::Command::new(workspace.program(name));
    Err(program.args(arguments).exec().into())
}
