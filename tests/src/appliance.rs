//! The product as an operator has it: `holdfast serve` on a data directory, and the command line that talks to it.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::daemon::leashed;
use crate::{Daemon, Failure, Result, ensure, program, wait_until};

/// Seconds after which a command that has not ended counts as hung.
const COMMAND_SECONDS: &str = "600";

/// How long a server may take to answer after its start.
const START: Duration = Duration::from_secs(60);

/// What a command left behind.
#[derive(Debug)]
pub struct Answer {
    /// The command, for messages.
    pub command: String,
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Results.
    pub stdout: String,
    /// Talk and errors.
    pub stderr: String,
}

impl Answer {
    /// Runs a command to its end.
    pub fn of(command: &mut Command) -> Result<Self> {
        let output = command.output()?;
        let words = std::iter::once(command.get_program()).chain(command.get_args()).map(OsStr::to_string_lossy);
        Ok(Self {
            command: words.collect::<Vec<_>>().join(" "),
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Fails unless the command succeeded.
    pub fn done(self) -> Result<Self> {
        ensure(self.code == Some(0), || self.to_string())?;
        Ok(self)
    }

    /// Fails unless the command ended with this exit code.
    pub fn ended(self, code: i32) -> Result<Self> {
        ensure(self.code == Some(code), || format!("exit code {code} was expected: {self}"))?;
        Ok(self)
    }

    /// The result of a successful command, as JSON.
    pub fn json(self) -> Result<Value> {
        let answer = self.done()?;
        serde_json::from_str(&answer.stdout).map_err(|error| Failure::from(error).during(answer))
    }

    /// Fails unless the command was refused in a way that helps: an exit code that is not 0, a hint, and every one of these
    /// words in what it said, in whatever case.
    pub fn refused(self, words: &[&str]) -> Result<Self> {
        ensure(self.code.is_some_and(|code| code != 0 && code != 124 && code != 101), || {
            format!("it was to be refused: {self}")
        })?;
        let said = format!("{}\n{}", self.stdout, self.stderr).to_lowercase();
        for word in words.iter().chain(&["hint"]) {
            ensure(said.contains(&word.to_lowercase()), || format!("it did not say {word:?}: {self}"))?;
        }
        ensure(!said.contains("panicked"), || format!("it panicked: {self}"))?;
        Ok(self)
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { command, code, stdout, stderr } = self;
        write!(formatter, "{command}: exit code {code:?}\n{stdout}{stderr}")
    }
}

/// Reads on until this was shown after all that was shown before.
fn show_until(screen: &mut BufReader<ChildStdout>, shown: &mut Vec<u8>, awaited: &str) -> Result {
    let begin = shown.len();
    for byte in screen.bytes() {
        shown.push(byte?);
        if shown[begin..].ends_with(awaited.as_bytes()) {
            return Ok(());
        }
    }
    Err(Failure::new(format!("{awaited:?} was not asked: {}", String::from_utf8_lossy(shown))))
}

/// A data directory and, while it runs, the appliance on it.
pub struct Appliance {
    data: PathBuf,
    log: PathBuf,
    listen: String,
    environment: Vec<(String, String)>,
    server: Option<Daemon>,
}

impl Appliance {
    /// An appliance on this data directory, which may be absent. Its log goes to `NAME.log` beside it.
    pub fn on(data: &Path) -> Self {
        Self {
            data: data.into(),
            log: data.with_extension("log"),
            listen: "127.0.0.1:0".into(),
            environment: Vec::new(),
            server: None,
        }
    }

    /// Sets an environment variable for every command and for the server.
    pub fn environment(mut self, key: &str, value: &str) -> Self {
        self.environment.push((key.into(), value.into()));
        self
    }

    /// Listens on a port that is known beforehand.
    pub fn listen(mut self, port: u16) -> Self {
        self.listen = format!("127.0.0.1:{port}");
        self
    }

    /// Writes the configuration file: the primary target's site, and its URL where it is not the default.
    pub fn configure(&self, site: &str, url: Option<&str>) -> Result {
        fs::create_dir_all(&self.data)?;
        let url = url.map(|url| format!("url = {url:?}\n")).unwrap_or_default();
        Ok(fs::write(self.data.join("holdfast.toml"), format!("[repository]\nsite = {site:?}\n{url}"))?)
    }

    /// Adds bounds to the configuration file: keys of `[limits]` and their values in TOML.
    pub fn limit(&self, limits: &[(&str, &str)]) -> Result {
        let mut file = fs::OpenOptions::new().append(true).open(self.data.join("holdfast.toml"))?;
        let lines: String = limits.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        Ok(write!(file, "[limits]\n{lines}")?)
    }

    /// Serves, and returns when it answers.
    pub fn start(&mut self) -> Result {
        let log = fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = leashed(&program("holdfast")?, "KILL", &[]);
        command.args(["serve", "--listen", &self.listen]).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.surround(&mut command);
        let mut server = Daemon::spawn("holdfast serve", &mut command, Signal::TERM)?;
        let mut asking = self.ask_until_it_answers()?;
        wait_until("the appliance answers", START, || {
            if let Some(status) = server.ended()? {
                return Err(Failure::new(format!("the appliance ended ({status}), its log:\n{}", self.log_text())));
            }
            // 3 says that something wants attention, such as a missing recovery recipient.
            Ok(asking.ended()?.filter(|status| matches!(status.code(), Some(0 | 3))).map(drop))
        })
        .map_err(|failure| failure.during(self.log.display()))?;
        self.server = Some(server);
        Ok(())
    }

    /// `holdfast status --wait`, which returns when the appliance answers.
    fn ask_until_it_answers(&self) -> Result<Daemon> {
        let mut command = leashed(&program("holdfast")?, "KILL", &[]);
        command.args(["status", "--wait"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.surround(&mut command);
        Daemon::spawn("holdfast status", &mut command, Signal::TERM)
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) -> Result {
        match self.server.take() {
            Some(mut server) => server.kill(),
            None => Err(Failure::new("the appliance was to be killed, but it does not run")),
        }
    }

    /// Ends it in good order.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        match self.server.take() {
            Some(mut server) => server.stop(),
            None => Err(Failure::new("the appliance was to be stopped, but it does not run")),
        }
    }

    /// The most memory it had resident since its start, in bytes.
    pub fn peak_memory_bytes(&self) -> Result<u64> {
        self.server.as_ref().ok_or_else(|| Failure::new("the appliance does not run"))?.peak_memory_bytes()
    }

    /// Its process id.
    pub fn process(&self) -> Result<u32> {
        self.server.as_ref().map(Daemon::pid).ok_or_else(|| Failure::new("the appliance does not run"))
    }

    /// Runs `holdfast` with these arguments against this appliance.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<Answer> {
        let mut command = Command::new("timeout");
        command
            .args(["--kill-after=5", COMMAND_SECONDS])
            .arg(program("holdfast")?)
            .args(arguments)
            .stdin(Stdio::null());
        self.surround(&mut command);
        Answer::of(&mut command)
    }

    /// Runs `holdfast` with these arguments at a terminal where somebody answers these questions, in this order. What the terminal
    /// showed is the answer's standard output.
    pub fn run_at_a_terminal(&self, arguments: &str, dialogue: &[(&str, &str)]) -> Result<Answer> {
        let line = format!("{} {arguments}", program("holdfast")?.display());
        let mut command = Command::new("timeout");
        command.args(["--foreground", "--kill-after=5", COMMAND_SECONDS]);
        command.args(["script", "--quiet", "--return", "--flush", "--command", &line, "/dev/null"]);
        command.env("SHELL", "/bin/sh").stdin(Stdio::piped()).stdout(Stdio::piped());
        self.surround(&mut command);
        let mut child = command.spawn()?;
        let mut keyboard = child.stdin.take();
        let mut screen = BufReader::new(child.stdout.take().ok_or_else(|| Failure::new("the terminal shows nothing"))?);
        let mut shown = Vec::new();
        for (question, answer) in dialogue {
            show_until(&mut screen, &mut shown, question)?;
            keyboard.as_mut().map(|keyboard| writeln!(keyboard, "{answer}")).transpose()?;
        }
        screen.read_to_end(&mut shown)?;
        let stdout = String::from_utf8_lossy(&shown).into_owned();
        Ok(Answer { command: line, code: child.wait()?.code(), stdout, stderr: String::new() })
    }

    /// As [`run`](Self::run) with `-o json`, and must succeed.
    pub fn json<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<Value> {
        let mut words: Vec<std::ffi::OsString> = arguments.into_iter().map(|word| word.as_ref().into()).collect();
        words.extend(["-o".into(), "json".into()]);
        self.run(words)?.json()
    }

    /// Our own environment must not decide what a test sees.
    fn surround(&self, command: &mut Command) {
        for name in ["HOLDFAST_URL", "HOLDFAST_TOKEN", "HOLDFAST_CA", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
            command.env_remove(name);
        }
        command.env("HOLDFAST_DATA_DIR", &self.data).env("RUST_BACKTRACE", "1").current_dir("/");
        command.envs(self.environment.iter().map(|(key, value)| (key, value)));
    }

    /// Its data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Where its log goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// What it logged until now.
    pub fn log_text(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// All items of a list, page after page.
    pub fn list(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        let page = self.json(arguments)?;
        ensure(page["next"].is_null(), || format!("{arguments:?} has more than one page"))?;
        page["items"].as_array().cloned().ok_or_else(|| Failure::new(format!("{arguments:?} is no list: {page}")))
    }
}
