//! The process in which the module is loaded: it says on its standard output, a line each, what it is doing (`voice` in services/hsm-check).

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use crate::text::plain;

/// No line of the child is longer, and no more of what its module prints is kept.
const LONGEST_LINE: u64 = 4096;

/// No report is longer.
const LONGEST_REPORT: u64 = 4 << 20;

/// How often it is looked whether the child is still there, while it says nothing.
const LOOK: Duration = Duration::from_millis(200);

/// How long it may be silent, and how long it may take in all.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) step: Duration,
    pub(crate) all: Duration,
}

/// What was heard of a child until its end.
pub(crate) struct Heard {
    /// What it was doing last.
    pub(crate) step: String,
    /// The label of its keys, once it began to make them.
    pub(crate) keys: Option<String>,
    /// It removed them, but for so many objects.
    pub(crate) left: Option<usize>,
    pub(crate) error: Option<String>,
    pub(crate) report: Option<Vec<u8>>,
    pub(crate) end: End,
    /// The last line that its module printed.
    pub(crate) printed: String,
}

/// How a child ended.
pub(crate) enum End {
    Exited(ExitStatus),
    /// It was killed, after so long.
    Hung(Duration),
}

impl End {
    pub(crate) fn code(&self) -> Option<i32> {
        match self {
            Self::Exited(status) => status.code(),
            Self::Hung(_) => None,
        }
    }

    /// For a child that did not end as it should.
    pub(crate) fn explain(&self) -> String {
        match self {
            Self::Hung(after) => format!("hung, and its process was killed after {} s", after.as_secs()),
            Self::Exited(status) => match status.signal().map(Signal::try_from) {
                Some(Ok(signal)) => format!("crashed its process with {signal}"),
                Some(Err(_)) => format!("crashed its process ({status})"),
                None => format!("ended its process ({status})"),
            },
        }
    }
}

enum Line {
    Step(String),
    Keys(String),
    Left(usize),
    Error(String),
    Report(Vec<u8>),
}

/// Runs `command` with `input` on its standard input, and shows its steps to `show`.
pub(crate) fn run(mut command: Command, input: &[u8], limits: Limits, show: impl Fn(&str)) -> io::Result<Heard> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Ctrl-C is for us: the child notices that we are gone, and removes its keys first.
    let mut child = command.process_group(0).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that is gone already is told of by its end.
        let _ = stdin.write_all(input);
    }
    // One line that nobody took yet is enough: a child that says more than is taken has to wait.
    let (say, said) = mpsc::sync_channel(1);
    if let Some(output) = child.stdout.take() {
        thread::spawn(move || listen(output, &say));
    }
    let (print, printed) = mpsc::channel();
    if let Some(errors) = child.stderr.take() {
        thread::spawn(move || print.send(last_line(errors)));
    }
    let mut heard = watch(&mut child, &said, limits, show)?;
    // Not for ever: a program that the module started may hold the pipe.
    heard.printed = printed.recv_timeout(LOOK).unwrap_or_default();
    Ok(heard)
}

fn watch(child: &mut Child, said: &Receiver<Line>, limits: Limits, show: impl Fn(&str)) -> io::Result<Heard> {
    let begin = Instant::now();
    let mut last = begin;
    let mut heard = Heard {
        step: "its process is started".to_owned(),
        keys: None,
        left: None,
        error: None,
        report: None,
        end: End::Hung(Duration::ZERO),
        printed: String::new(),
    };
    let mut ended = None;
    loop {
        let is_silent = match said.recv_timeout(LOOK) {
            Ok(line) => {
                last = Instant::now();
                heard.take(line, &show);
                false
            }
            // It closed its output, and is about to end.
            Err(RecvTimeoutError::Disconnected) => {
                thread::sleep(LOOK / 10);
                true
            }
            Err(RecvTimeoutError::Timeout) => true,
        };
        if is_silent {
            if let Some(status) = ended {
                // Everything that it said before its end was heard.
                heard.end = End::Exited(status);
                return Ok(heard);
            }
            ended = child.try_wait()?;
        }
        if ended.is_none() && (last.elapsed() >= limits.step || begin.elapsed() >= limits.all) {
            heard.end = End::Hung(if last.elapsed() >= limits.step { last.elapsed() } else { begin.elapsed() });
            kill(child);
            return Ok(heard);
        }
    }
}

/// Ends the child and what its module started.
fn kill(child: &mut Child) {
    // It may have ended in this moment, which is all that is wanted.
    let _ = i32::try_from(child.id()).map(|id| killpg(Pid::from_raw(id), Signal::SIGKILL));
    let _ = child.kill();
    let _ = child.wait();
}

impl Heard {
    fn take(&mut self, line: Line, show: impl Fn(&str)) {
        match line {
            Line::Step(step) => {
                show(&step);
                self.step = step;
            }
            Line::Keys(label) => self.keys = Some(label),
            Line::Left(count) => self.left = Some(count),
            Line::Error(error) => self.error = Some(error),
            Line::Report(report) => self.report = Some(report),
        }
    }
}

/// Reads what the child says until its end.
fn listen(output: ChildStdout, say: &SyncSender<Line>) {
    let mut output = BufReader::new(output);
    loop {
        let mut bytes = Vec::new();
        match output.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut bytes) {
            Ok(1..) => {}
            _ => return,
        }
        let text = String::from_utf8_lossy(&bytes);
        let line = match text.trim_end().split_once(' ') {
            Some(("step", step)) => Line::Step(plain(step)),
            Some(("keys", label)) => Line::Keys(plain(label)),
            Some(("error", error)) => Line::Error(plain(error)),
            Some(("left", count)) if count.parse::<usize>().is_ok() => Line::Left(count.parse().unwrap_or_default()),
            None if text.trim_end() == "report" => {
                let mut report = Vec::new();
                let _ = output.by_ref().take(LONGEST_REPORT).read_to_end(&mut report);
                Line::Report(report)
            }
            // Not ours: something else in the process writes there.
            _ => continue,
        };
        if say.send(line).is_err() {
            return;
        }
    }
}

/// Reads what the module prints, and keeps the last line that says something.
fn last_line(errors: ChildStderr) -> String {
    let (mut errors, mut last) = (BufReader::new(errors), String::new());
    loop {
        let mut bytes = Vec::new();
        match errors.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut bytes) {
            Ok(1..) => {}
            _ => return last,
        }
        let text = plain(String::from_utf8_lossy(&bytes).trim_end());
        if !text.is_empty() {
            last = text;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn heard(script: &str, step_ms: u64, all_ms: u64) -> (Heard, Vec<String>) {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let limits = Limits { step: Duration::from_millis(step_ms), all: Duration::from_millis(all_ms) };
        let shown = RefCell::new(Vec::new());
        let heard = run(command, b"in\n", limits, |step| shown.borrow_mut().push(step.to_owned())).unwrap();
        (heard, shown.into_inner())
    }

    #[test]
    fn what_a_child_says_is_taken_line_by_line_and_noise_is_not() {
        let script = "read x; echo \"step $x\"; echo noise; echo 'left many'; echo 'step a\u{1b}b'; echo keys a b; echo 'left 2'; \
                      echo last >&2; echo report; echo 'step of the report'; exit 3";
        let (heard, shown) = heard(script, 20_000, 20_000);
        assert_eq!(shown, ["in", "a\\u{1b}b"]);
        assert_eq!((heard.keys.as_deref(), heard.left, heard.error), (Some("a b"), Some(2), None));
        assert_eq!(heard.report.as_deref(), Some(&b"step of the report\n"[..]));
        assert_eq!((heard.end.code(), heard.printed.as_str()), (Some(3), "last"));
    }

    #[test]
    fn a_child_whose_own_child_holds_the_pipe_has_ended_when_it_has() {
        let begin = Instant::now();
        let (heard, shown) = heard("sleep 30 & echo 'step a'; kill -SEGV $$", 20_000, 20_000);
        assert_eq!(shown, ["a"]);
        assert_eq!((heard.end.code(), heard.report), (None, None));
        assert!(heard.end.explain().contains("crashed its process with SIGSEGV"), "{}", heard.end.explain());
        assert!(begin.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_child_that_is_silent_or_takes_too_long_is_killed() {
        let chatty = "while true; do echo 'step a'; sleep 0.05; done";
        for (script, step, all) in [("echo 'step a'; sleep 60", 300, 60_000), (chatty, 60_000, 600)] {
            let begin = Instant::now();
            let (heard, _) = heard(script, step, all);
            assert!(matches!(heard.end, End::Hung(_)) && heard.step == "a");
            assert!(begin.elapsed() < Duration::from_secs(10), "{script}");
        }
    }
}
