//! Runs all tests in the release profile, the one in which the heavy libraries are compiled, and adds up what they say.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use crate::workspace::{Result, Workspace, run};

/// How many tests did what, over all test binaries.
#[derive(Default)]
struct Total {
    passed: u64,
    failed: u64,
    ignored: u64,
}

/// Builds everything once, then runs every test binary to its end, failed ones before it notwithstanding.
pub fn run_all(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    // `--all-targets` includes the programs that the black-box tests start, with the libraries that the tests use.
    run(workspace.cargo(&["build", "--release", "--workspace", "--all-targets"]))?;
    let mut command = workspace.cargo(&["test", "--release", "--workspace", "--all-targets", "--no-fail-fast", "--"]);
    let mut child = command.args(arguments).stdout(Stdio::piped()).spawn()?;
    let total = child.stdout.take().map(forward).transpose()?.unwrap_or_default();
    let status = child.wait()?;
    eprintln!("total: {} passed, {} failed, {} ignored", total.passed, total.failed, total.ignored);
    match (status.success(), total.passed) {
        (true, 0) => Err("no test ran".into()),
        (true, _) => Ok(()),
        (false, _) => Err(format!("tests failed ({status})").into()),
    }
}

/// Copies the tests' output as it comes, and adds up the result lines in it.
fn forward(output: impl std::io::Read) -> Result<Total> {
    let mut total = Total::default();
    let mut reader = BufReader::new(output);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        std::io::stdout().write_all(&line)?;
        total.add(&String::from_utf8_lossy(&line));
        line.clear();
    }
    Ok(total)
}

impl Total {
    /// `test result: ok. 3 passed; 0 failed; 1 ignored; ...`
    fn add(&mut self, line: &str) {
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else {
            return;
        };
        for count in counts.split("; ") {
            let Some((number, what)) = count.split_once(' ') else {
                continue;
            };
            let number = number.parse().unwrap_or(0);
            match what.trim() {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod checks {
    use super::Total;

    #[test]
    fn result_lines_are_added_up_and_others_are_not() {
        let mut total = Total::default();
        total.add("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s\n");
        total.add("test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n");
        total.add("test a_name ... ok 9 passed\n");
        assert_eq!((total.passed, total.failed, total.ignored), (5, 1, 1));
    }
}
