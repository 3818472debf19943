use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use casemate_audit::REGISTRY;
use serde_json::Value;
use time::OffsetDateTime;

use crate::{ConsoleError, Out, arguments::Tail, node::Node, text::plain};

/// The end of the trail is looked for in steps of this many bytes.
const STEP: u64 = 64 * 1024;

const JOURNALCTL: &str = "journalctl";

/// `casemate audit tail`: from journald where it is, else from the file.
pub(crate) fn tail(node: &Node, tail: &Tail, as_json: bool, out: Out<'_>) -> Result<(), ConsoleError> {
    if node.config.audit.journal_socket.exists() {
        return from_journal(tail, as_json, out);
    }
    let path = &node.config.audit.file;
    let unreadable = |source| ConsoleError::File {
        path: path.clone(),
        source,
        hint: "run this as root; the file is made by the first daemon that starts",
    };
    let mut reader = BufReader::new(last_lines(path, tail.lines).map_err(unreadable)?);
    let mut line = Vec::new();
    loop {
        // A line that is still being written stays in `line` until its end is there.
        let read = reader.read_until(b'\n', &mut line).map_err(unreadable)?;
        if line.ends_with(b"\n") {
            print(&line, as_json, out)?;
            line.clear();
        } else if read == 0 {
            if !tail.follow {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(node.settings.follow_ms.max(1)));
        }
    }
}

fn from_journal(tail: &Tail, as_json: bool, out: Out<'_>) -> Result<(), ConsoleError> {
    let cannot = |source| ConsoleError::Program { program: JOURNALCTL.into(), source };
    let mut command = Command::new(JOURNALCTL);
    command.args(["--output=json", "--no-pager", "--quiet", "--lines", &tail.lines.to_string()]);
    if tail.follow {
        command.arg("--follow");
    }
    // Matches of one field are alternatives: every event of the registry, and nothing else of the daemons' logs.
    command.args(REGISTRY.iter().map(|(_, id, _)| format!("MESSAGE_ID={id}")));
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(cannot)?;
    if let Some(lines) = child.stdout.take() {
        for line in BufReader::new(lines).split(b'\n') {
            print(&line.map_err(cannot)?, as_json, out)?;
        }
    }
    let status = child.wait().map_err(cannot)?;
    if status.success() { Ok(()) } else { Err(ConsoleError::ProgramFailed { program: JOURNALCTL.into(), status }) }
}

/// The file, standing before the last `count` whole lines.
fn last_lines(path: &Path, count: usize) -> io::Result<File> {
    let mut file = File::open(path)?;
    let mut start = file.seek(SeekFrom::End(0))?;
    // The ends of `count` lines and of the one before them.
    let mut wanted = count.saturating_add(1);
    let mut from = 0;
    'search: while start > 0 {
        let step = STEP.min(start);
        start -= step;
        file.seek(SeekFrom::Start(start))?;
        let mut block = Vec::new();
        Read::by_ref(&mut file).take(step).read_to_end(&mut block)?;
        while let Some(at) = block.iter().rposition(|byte| *byte == b'\n') {
            wanted -= 1;
            if wanted == 0 {
                from = start + at as u64 + 1;
                break 'search;
            }
            block.truncate(at);
        }
    }
    file.seek(SeekFrom::Start(from))?;
    Ok(file)
}

fn print(line: &[u8], as_json: bool, out: Out<'_>) -> Result<(), ConsoleError> {
    // A line cut by a crash of its writer is no event.
    let Ok(event) = serde_json::from_slice::<Value>(line) else { return Ok(()) };
    if as_json {
        writeln!(out, "{event}")?;
    } else {
        writeln!(out, "{}", render(&event))?;
    }
    Ok(out.flush()?)
}

fn render(event: &Value) -> String {
    let field = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or("-");
    format!(
        "{}  {:<21}  {}",
        moment(field("CASEMATE_TIMESTAMP")),
        plain(field("SYSLOG_IDENTIFIER")),
        plain(field("MESSAGE"))
    )
}

/// Microseconds since 1970 as RFC 3339 in UTC, with milliseconds.
fn moment(micros: &str) -> String {
    let nanos = micros.parse::<i128>().ok().and_then(|micros| micros.checked_mul(1000));
    let moment = nanos.and_then(|nanos| OffsetDateTime::from_unix_timestamp_nanos(nanos).ok());
    moment.map_or_else(
        || "-".to_owned(),
        |moment| {
            let (hour, minute, second, milli) = (moment.hour(), moment.minute(), moment.second(), moment.millisecond());
            format!("{}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z", moment.date())
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: usize) -> String {
        format!(
            "{{\"CASEMATE_TIMESTAMP\":\"1000{number:03}000\",\"SYSLOG_IDENTIFIER\":\"casemate-keyd\",\"MESSAGE\":\"event {number}\"}}\n"
        )
    }

    fn tailed(dir: &Path, count: usize) -> String {
        let mut out = Vec::new();
        let mut reader = BufReader::new(last_lines(&dir.join("journal.jsonl"), count).unwrap());
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).unwrap() > 0 {
            print(&line, false, &mut out).unwrap();
            line.clear();
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_last_lines_are_found_across_steps_and_never_more_than_there_are() {
        let dir = tempfile::tempdir().unwrap();
        let trail: String = (0..2000).map(|number| line(number % 1000)).collect();
        assert!(trail.len() as u64 > 2 * STEP);
        std::fs::write(dir.path().join("journal.jsonl"), trail).unwrap();
        for count in [0, 1, 2, 700, 1999, 2000, 2001, usize::MAX] {
            assert_eq!(tailed(dir.path(), count).lines().count(), count.min(2000));
        }
        assert!(tailed(dir.path(), 2).starts_with("1970-01-01T00:16:40.998Z  casemate-keyd          event 998\n"));
    }

    #[test]
    fn an_empty_trail_and_a_cut_line_are_no_events() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("journal.jsonl"), "").unwrap();
        assert_eq!(tailed(dir.path(), 5), "");
        std::fs::write(dir.path().join("journal.jsonl"), line(1) + "{\"MESS").unwrap();
        assert_eq!(tailed(dir.path(), 5).lines().count(), 1);
    }

    #[test]
    fn a_message_cannot_steer_the_terminal() {
        let event = serde_json::json!({
            "CASEMATE_TIMESTAMP": "0", "SYSLOG_IDENTIFIER": "casemate-tftp", "MESSAGE": "x\u{1b}[2J\ny"
        });
        assert_eq!(render(&event), "1970-01-01T00:00:00.000Z  casemate-tftp          x\\u{1b}[2J\\ny");
    }
}
