//! The commands of docs/guides do what the guides say: each guide is followed from its top, on ports of its own.
//!
//! Blocks after a line `<!-- run -->` are run: lines that begin with `$ ` are commands, the others show what they
//! print. A command that serves goes on beside those after it.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::command::{finish, gatewright, python, told, workspace};

/// What a guide's servers may take to start.
const PATIENCE: Duration = Duration::from_secs(30);
/// Guides show long runs; here it is enough that they end well.
const SHORT: &str = "--duration 5s";

/// The commands of a guide, in order.
fn commands(guide: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    let mut blocks = guide.split("<!-- run");
    blocks.next();
    for block in blocks {
        let text = block.split("```console\n").nth(1).expect("a block follows the mark");
        let text = text.split("```").next().expect("the block ends");
        let mut continued = false;
        for line in text.lines() {
            match line.strip_prefix("$ ") {
                Some(command) => commands.push(command.to_owned()),
                None if continued => {
                    let last = commands.last_mut().expect("a command was begun");
                    last.push_str(line.trim_start());
                }
                None => continue,
            }
            let last = commands.last_mut().expect("a command was begun");
            continued = last.ends_with('\\');
            *last = last.trim_end_matches('\\').to_owned();
        }
    }
    assert!(!commands.is_empty(), "the guide has no commands to run");
    commands
}

/// Someone who follows a guide.
struct Reader {
    /// A copy of the examples.
    root: tempfile::TempDir,
    folder: PathBuf,
    listen: u16,
    admin: u16,
    upstream: u16,
    mock: u16,
    serving: Option<Child>,
    /// Servers that go on beside the gateway.
    others: Vec<Child>,
}

impl Reader {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for example in ["square", "lunch", "functions", "edge-cluster"] {
            let to = root.path().join("examples").join(example);
            std::fs::create_dir_all(&to).unwrap();
            for entry in std::fs::read_dir(workspace().join("examples").join(example)).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_file() {
                    std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
                }
            }
        }
        // Held together, so that they differ.
        let free = [(); 4].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [listen, admin, upstream, mock] =
            free.each_ref().map(|socket| socket.local_addr().unwrap().port());
        let folder = root.path().to_owned();
        let (serving, others) = (None, Vec::new());
        Self { root, folder, listen, admin, upstream, mock, serving, others }
    }

    fn follow(&mut self, guide: &str) {
        let text = std::fs::read_to_string(workspace().join("docs/guides").join(guide)).unwrap();
        for command in commands(&text) {
            self.run(&command);
        }
    }

    fn run(&mut self, command: &str) {
        if let Some(folder) = command.strip_prefix("cd ") {
            self.folder = self.root.path().join(folder);
        } else if command.starts_with("gatewright serve") {
            self.stop_serving();
            let child = self.shell(&format!("exec {command}")).spawn().unwrap();
            self.serving = Some(child);
            self.wait_for("the gateway", self.admin, "GET /healthz HTTP/1.0\r\n\r\n");
        } else if command.starts_with("python3 upstream.py") {
            let command = format!("exec {command} --port {}", self.upstream);
            let child = self.shell(&command).spawn().unwrap();
            self.others.push(child);
            self.wait_for("the upstream", self.upstream, "GET /count HTTP/1.0\r\n\r\n");
        } else if command.starts_with("gatewright mock") {
            let child = self.shell(&format!("exec {command}")).spawn().unwrap();
            self.others.push(child);
            self.wait_for("the mock server", self.mock, "GET /health HTTP/1.0\r\n\r\n");
        } else {
            if command.starts_with("gatewright calibrate") {
                self.stop_serving();
            }
            let output = finish(&mut self.shell(&shortened(command)));
            // A benchmark on a busy machine may say that it was itself the limit.
            let is_limited =
                command.starts_with("gatewright bench") && output.status.code() == Some(4);
            assert!(output.status.success() || is_limited, "{command}\n{}", told(&output));
        }
    }

    /// A shell with the command on its path and the ports of this reader.
    fn shell(&self, command: &str) -> Command {
        let command = command
            .replace("127.0.0.1:8080", &format!("127.0.0.1:{}", self.listen))
            .replace("127.0.0.1:8000", &format!("127.0.0.1:{}", self.mock))
            .replace("127.0.0.1:9100", &format!("127.0.0.1:{}", self.upstream));
        let binaries = Path::new(env!("CARGO_BIN_EXE_gatewright")).parent().unwrap();
        let path = format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap());
        let mut shell = Command::new("sh");
        // Whatever this process was told by variables is not for the guide.
        let template = gatewright(&self.folder);
        for (name, _) in template.get_envs() {
            shell.env_remove(name);
        }
        shell.args(["-c", &command]).current_dir(&self.folder).env("PATH", path);
        shell.env("GATEWRIGHT_GATEWAY__LISTEN", format!("127.0.0.1:{}", self.listen));
        shell.env("GATEWRIGHT_GATEWAY__ADMIN", format!("127.0.0.1:{}", self.admin));
        shell.env("GATEWRIGHT_ADMIN", format!("http://127.0.0.1:{}", self.admin));
        shell.env("GATEWRIGHT_PYTHON", python());
        if self.folder.ends_with("lunch") {
            let upstream = format!("http://127.0.0.1:{}", self.upstream);
            shell.env("GATEWRIGHT_FUNCTION__MENUS__HTTP", upstream);
        }
        shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        shell
    }

    /// Waits until `request` is answered with 200 at `port`.
    fn wait_for(&mut self, who: &str, port: u16, request: &str) {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
                let mut answer = String::new();
                let sent = stream.write_all(request.as_bytes());
                let read = stream.read_to_string(&mut answer);
                let good = answer.split_whitespace().nth(1) == Some("200");
                if sent.is_ok() && read.is_ok() && good {
                    return;
                }
            }
            if let Some(child) = &mut self.serving {
                let ended = child.try_wait().unwrap();
                assert!(ended.is_none(), "{who} ended before it answered: {ended:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{who} did not answer in time");
    }

    /// Ctrl-C in the gateway's terminal.
    fn stop_serving(&mut self) {
        if let Some(mut child) = self.serving.take() {
            let id = child.id().to_string();
            assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
            assert_eq!(child.wait().unwrap().code(), Some(0), "the gateway did not end well");
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        for mut child in self.serving.take().into_iter().chain(self.others.drain(..)) {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn shortened(command: &str) -> String {
    let mut words: Vec<_> = command.split(' ').collect();
    let is_long = |at: &usize| !["1s", "2s", "5s"].contains(&words[at + 1]);
    let at = words.iter().position(|word| *word == "--duration");
    if let Some(at) = at.filter(is_long) {
        words.splice(at..at + 2, SHORT.split(' '));
    }
    words.join(" ")
}

#[test]
fn serve_a_python_model() {
    Reader::new().follow("serve-a-python-model.md");
}

#[test]
fn functions() {
    Reader::new().follow("functions.md");
}

#[test]
fn relay() {
    Reader::new().follow("relay.md");
}

#[test]
fn benchmark() {
    Reader::new().follow("benchmark.md");
}

#[test]
fn from_guidellm() {
    Reader::new().follow("from-guidellm.md");
}

#[test]
fn simulate_a_cluster() {
    Reader::new().follow("simulate-a-cluster.md");
}

#[test]
fn rehearse() {
    Reader::new().follow("rehearse.md");
}
