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

pub(crate) const JOURNALCTL: &str = "journalctl";

/// journalctl refuses a larger number of lines.
const MOST_LINES: usize = i32::MAX as usize;

/// Who records events, beside root, under whom the self-test runs.
const RECORDERS: [&str; 6] = ["keyd", "certmgr", "capf", "ctlprovider", "tftp", "tvs"];

/// `casemate audit tail`: from journald where it is, else from the file.
pub(crate) fn tail(node: &Node, tail: &Tail, as_json: bool, out: Out<'_>) -> Result<(), ConsoleError> {
    if node.config.audit.journal_socket.exists() {
        return from_journal(node, tail, as_json, out);
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

fn from_journal(node: &Node, tail: &Tail, as_json: bool, out: Out<'_>) -> Result<(), ConsoleError> {
    let cannot = |source| ConsoleError::Program { program: JOURNALCTL.into(), source };
    let mut command = Command::new(JOURNALCTL);
    command.args(journal_arguments(tail, recorders(node)));
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(cannot)?;
    if let Some(lines) = child.stdout.take() {
        for line in BufReader::new(lines).split(b'\n') {
            print(&line.map_err(cannot)?, as_json, out)?;
        }
    }
    let status = child.wait().map_err(cannot)?;
    if status.success() { Ok(()) } else { Err(ConsoleError::ProgramFailed { program: JOURNALCTL.into(), status }) }
}

/// Matches of one field are alternatives, those of several must all hold (journalctl(1)): every event of the registry, and
/// nothing else of the daemons' logs; and only from the users in `uids` and root, for any local user may send journald what
/// looks like one of our events, but who sent it journald says itself (`_UID`, systemd.journal-fields(7)).
fn journal_arguments(tail: &Tail, uids: impl Iterator<Item = u32>) -> Vec<String> {
    let mut arguments: Vec<String> = ["--output=json", "--no-pager"].map(str::to_owned).into();
    arguments.push(format!("--lines={}", tail.lines.min(MOST_LINES)));
    if tail.follow {
        arguments.push("--follow".to_owned());
    }
    arguments.extend(matches(uids));
    arguments
}

/// The users under whom events are recorded, beside root.
pub(crate) fn recorders(node: &Node) -> impl Iterator<Item = u32> {
    RECORDERS.iter().filter_map(|daemon| node.config.uid_of(daemon).ok())
}

/// The matches of which [`journal_arguments`] tells.
pub(crate) fn matches(uids: impl Iterator<Item = u32>) -> impl Iterator<Item = String> {
    let events = REGISTRY.iter().map(|(_, id, _)| format!("MESSAGE_ID={id}"));
    events.chain(uids.chain([0]).map(|uid| format!("_UID={uid}")))
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
    let Ok(Value::Object(fields)) = serde_json::from_slice(line) else { return Ok(()) };
    let event = Value::Object(fields.into_iter().map(|(name, value)| (name, text_of(value))).collect());
    if as_json {
        writeln!(out, "{event}")?;
    } else {
        writeln!(out, "{}", render(&event))?;
    }
    Ok(out.flush()?)
}

/// The value of a field as text where it is bytes. journalctl prints a field that is not UTF-8, or has control characters in
/// it, as an array of its bytes (<https://systemd.io/JOURNAL_EXPORT_FORMATS/>, Journal JSON Format): a peer could hide what it
/// did by a control character in its name.
pub(crate) fn text_of(value: Value) -> Value {
    let byte = |value: &Value| value.as_u64().and_then(|byte| u8::try_from(byte).ok());
    let bytes = value.as_array().and_then(|values| values.iter().map(byte).collect::<Option<Vec<u8>>>());
    bytes.map_or(value, |bytes| String::from_utf8_lossy(&bytes).into_owned().into())
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

    /// What journalctl 252 of Debian 12 printed for datagrams that were sent to its journald, without the fields of the machine.
    #[test]
    fn what_journalctl_prints_is_read_also_where_a_message_is_bytes() {
        let fields = "\"_TRANSPORT\":\"journal\",\"PRIORITY\":\"4\",\"SYSLOG_IDENTIFIER\":\"casemate-tftp\",\
                      \"CASEMATE_TIMESTAMP\":\"1790000000000000\",\"CASEMATE_EVENT\":\"FileRefused\",\
                      \"__MONOTONIC_TIMESTAMP\":\"12043109456\",\"_UID\":\"0\"";
        let printed = |message: &str, as_json| {
            let mut out = Vec::new();
            print(format!("{{\"MESSAGE\":{message},{fields}}}").as_bytes(), as_json, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        for (message, shown) in [
            ("\"plain\"", "plain"),
            ("\"with\\nline\"", "with\\nline"),
            ("[101,115,99,27,91,50,74]", "esc\\u{1b}[2J"),
            ("[98,97,100,255]", "bad\u{fffd}"),
            // Larger than 4096 bytes, which no record of ours is.
            ("null", "-"),
        ] {
            assert_eq!(printed(message, false), format!("2026-09-21T14:13:20.000Z  casemate-tftp          {shown}\n"));
        }
        let event: Value = serde_json::from_str(&printed("[101,115,99,27,91,50,74]", true)).unwrap();
        assert_eq!((&event["MESSAGE"], &event["_UID"]), (&"esc\u{1b}[2J".into(), &"0".into()));
        let mut out = Vec::new();
        print(b"-- Boot 023babe35f134675967b32591802f6ce --", false, &mut out).unwrap();
        assert!(out.is_empty(), "what is no event is not shown");
    }

    #[test]
    fn journalctl_is_asked_for_every_event_and_for_events_of_our_users_alone() {
        let arguments = journal_arguments(&Tail { lines: usize::MAX, follow: true }, [64001, 64004].into_iter());
        let starting = |start: &str| arguments.iter().filter(|argument| argument.starts_with(start)).count();
        assert_eq!((starting("MESSAGE_ID="), starting("_UID=")), (REGISTRY.len(), 3));
        for expected in ["--output=json", "--follow", "--lines=2147483647", "_UID=0", "_UID=64001", "_UID=64004"] {
            assert!(arguments.iter().any(|argument| argument == expected), "{expected} is not in {arguments:?}");
        }
        let arguments = journal_arguments(&Tail { lines: 5, follow: false }, std::iter::empty());
        assert!(arguments.contains(&"--lines=5".to_owned()) && !arguments.contains(&"--follow".to_owned()));
    }

    #[test]
    fn a_message_cannot_steer_the_terminal() {
        let event = serde_json::json!({
            "CASEMATE_TIMESTAMP": "0", "SYSLOG_IDENTIFIER": "casemate-tftp", "MESSAGE": "x\u{1b}[2J\ny"
        });
        assert_eq!(render(&event), "1970-01-01T00:00:00.000Z  casemate-tftp          x\\u{1b}[2J\\ny");
    }
}
