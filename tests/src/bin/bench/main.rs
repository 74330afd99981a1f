//! Speed and memory on this machine, beside others' programs: `postgres`, the product's main job; `repository`, the archive store by
//! itself; and `sandbox`, the border between host and plugin. `--gate` fails where a goal is missed, or was not measured.

mod goal;
mod options;
mod postgres;
mod repository;
mod sandbox;
mod scratch;

use std::process::ExitCode;

use holdfast_tests::Result;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("postgres") => judge(postgres::Options::parse(arguments), postgres::USAGE, |options| {
            Ok(postgres::bench(options)? || !options.common.gate)
        }),
        Some("repository") => judge(repository::Options::parse(arguments), repository::USAGE, |options| {
            Ok(repository::bench(options)? || !options.common.gate)
        }),
        Some("sandbox") => judge(sandbox::Options::parse(arguments), sandbox::USAGE, |options| {
            Ok(sandbox::bench(options)? || !options.common.gate)
        }),
        _ => judge(None::<()>, &[postgres::USAGE, repository::USAGE, sandbox::USAGE].join("\n"), |()| Ok(false)),
    }
}

/// Measures as it was asked to; the exit code says whether what was found is good enough.
fn judge<O>(options: Option<O>, usage: &str, bench: impl FnOnce(&O) -> Result<bool>) -> ExitCode {
    let Some(options) = options else {
        eprint!("{usage}");
        return ExitCode::from(2);
    };
    match bench(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("the bench failed: {failure}");
            ExitCode::FAILURE
        }
    }
}
