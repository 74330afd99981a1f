//! The process in which a component of somebody else's is compiled, looked at from outside while it works.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use holdfast_tests::appliance::Appliance;
use holdfast_tests::{Failure, Result, Workdir, ensure, wait_until};

use super::loading::bomb_of_code;

/// How long an event that must come may take.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn who_compiles_a_plugin_has_given_up_what_that_does_not_need() -> Result {
    let workdir = Workdir::new("hostile-compiler")?;
    let mut appliance = Appliance::on(&workdir.join("appliance"));
    appliance.configure("here", None)?;
    appliance.limit(&[("compile-memory", "\"512MiB\""), ("compile-time", "\"20s\"")])?;
    appliance.start()?;
    let file = workdir.join("bomb.wasm");
    fs::write(&file, bomb_of_code())?;
    let server = appliance.process()?;
    thread::scope(|scope| {
        let installing = scope.spawn(|| appliance.run(["plugin".as_ref(), "install".as_ref(), file.as_os_str()]));
        let found = wait_until("the compiler has limited itself", PATIENCE, || Ok(compiler_of(server)));
        let seen = found.and_then(|compiler| must_be_limited(&compiler));
        let installed = installing.join().map_err(|_| Failure::new("the installation panicked"))?;
        seen?;
        installed?.refused(&["compile-time"]).map(drop)
    })
}

/// The process that compiles for a server, once it can gain no rights any more: that comes before its limits.
fn compiler_of(server: u32) -> Option<PathBuf> {
    let tasks = fs::read_dir(format!("/proc/{server}/task")).into_iter().flatten().flatten();
    let children: Vec<String> =
        tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok()).collect();
    let children = children.iter().flat_map(|children| children.split_whitespace());
    children.map(|child| Path::new("/proc").join(child)).find(|process| {
        let is_compiler = fs::read(process.join("cmdline"))
            .is_ok_and(|words| words.split(|byte| *byte == 0).any(|word| word == b"compile-component"));
        is_compiler && limit(process, "Max open files").as_deref() == Some("0")
    })
}

/// The soft limit of this name.
fn limit(process: &Path, name: &str) -> Option<String> {
    let limits = fs::read_to_string(process.join("limits")).ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next().map(String::from)
}

fn must_be_limited(process: &Path) -> Result {
    let status = fs::read_to_string(process.join("status"))?;
    let gains_nothing = status.lines().any(|line| line.split_whitespace().eq(["NoNewPrivs:", "1"]));
    ensure(gains_nothing, || format!("it could gain rights:\n{status}"))?;
    for (name, most) in [
        ("Max address space", (512_u64 << 20).to_string()),
        ("Max cpu time", "20".into()),
        ("Max core file size", "0".into()),
        ("Max processes", "0".into()),
    ] {
        let found = limit(process, name);
        ensure(found.as_ref() == Some(&most), || format!("{name} is {found:?}, not {most}"))?;
    }
    ensure(fs::read(process.join("environ"))?.is_empty(), || "it has an environment".into())
}
