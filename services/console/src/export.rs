//! `casemate audit export`: the audit trail as JSON lines, oldest first, and whether it is all of it.

mod gaps;

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    process::{Command, Stdio},
    thread,
};

use casemate_audit::NUMBER;
use casemate_runtime::daemon::chain;
use serde_json::{Map, Value};

use crate::{
    ConsoleError, Out,
    arguments::Export,
    audit::{JOURNALCTL, matches, recorders, text_of},
    hsm,
    node::Node,
    text::plain,
};
use gaps::Numbers;

/// No event is longer, in bytes: its fields have 2048 bytes each at most, and a byte is five letters at most where journalctl prints
/// it as a number.
const LONGEST: u64 = 1 << 20;

/// So much of what journalctl complains of is told.
const COMPLAINT: u64 = 2048;

/// Fields of the journal that are exported beside our own, as systemd.journal-fields(7) calls them: where and when an event was
/// recorded, by whom, as journald saw it, and where it stands in the journal.
const KEPT: [&str; 18] = [
    "__CURSOR",
    "__MONOTONIC_TIMESTAMP",
    "__REALTIME_TIMESTAMP",
    "__SEQNUM",
    "__SEQNUM_ID",
    "_BOOT_ID",
    "_EXE",
    "_GID",
    "_HOSTNAME",
    "_MACHINE_ID",
    "_PID",
    "_SYSTEMD_UNIT",
    "_UID",
    "MESSAGE",
    "MESSAGE_ID",
    "PRIORITY",
    "SYSLOG_IDENTIFIER",
    "SYSLOG_PID",
];

/// Prints the trail. What it may lack is an error at the end, so that what is there is exported all the same.
pub(crate) fn export(node: &Node, asked: &Export, out: Out<'_>) -> Result<(), ConsoleError> {
    // Asked first: all that is on the broker's record by then was copied to the trail that is read after it.
    let recorded = hsm::status(node).map(|status| status.recorded);
    let broker = node.config.uid_of("keyd").ok().map(|uid| uid.to_string());
    let mut exported = Exported { asked, broker, numbers: Numbers::default(), out };
    let complaint = if node.config.audit.journal_socket.exists() {
        let arguments = ["--output=json", "--no-pager", "--all"].map(str::to_owned).into_iter();
        from_journal(arguments.chain(matches(recorders(node))), &mut exported)?
    } else {
        from_file(node, &mut exported)?
    };
    let numbers = exported.numbers;
    exported.out.flush()?;
    if let Err(error) = &recorded {
        eprintln!("casemate: the end of the trail is not compared with the key broker's record: {}", chain(error));
    }
    if let Some(first) = numbers.first().filter(|first| *first > 1) {
        eprintln!(
            "casemate: the trail begins with number {first} of the key broker's record; it holds no older ones any more"
        );
    }
    let lacking = complaint.into_iter().chain(numbers.lacking(recorded.ok())).collect::<Vec<_>>();
    if lacking.is_empty() { Ok(()) } else { Err(ConsoleError::TrailNotWhole(lacking.join("; "))) }
}

/// What was read so far, and where it goes.
struct Exported<'a> {
    asked: &'a Export,
    /// The user id of the key broker, whose numbers count.
    broker: Option<String>,
    numbers: Numbers,
    out: Out<'a>,
}

impl Exported<'_> {
    /// Takes one event.
    fn event(&mut self, fields: Map<String, Value>) -> io::Result<()> {
        let is_kept = |name: &str| KEPT.contains(&name) || name.starts_with("CASEMATE_");
        let event: Map<_, _> =
            fields.into_iter().filter(|(name, _)| is_kept(name)).map(|(name, value)| (name, text_of(value))).collect();
        let field = |name: &str| event.get(name).and_then(Value::as_str);
        // The file of a lab has no `_UID`.
        let is_brokers = field("_UID").is_none_or(|uid| self.broker.as_deref() == Some(uid));
        if let Some(number) = field(NUMBER).filter(|_| is_brokers) {
            self.numbers.saw(number);
        }
        let micros = field("__REALTIME_TIMESTAMP").or(field("CASEMATE_TIMESTAMP")).and_then(|text| text.parse().ok());
        let is_asked = |micros: i128| {
            self.asked.since.is_none_or(|since| since.0 <= micros)
                && self.asked.until.is_none_or(|until| micros < until.0)
        };
        // Without a readable time it is exported: nothing is left out but what is known to be outside.
        if micros.is_none_or(is_asked) {
            writeln!(self.out, "{}", Value::Object(event))?;
        }
        Ok(())
    }
}

/// One line more of `lines`, without its end; nothing at the end of all. The error is a sentence.
fn line(lines: &mut impl BufRead) -> Result<Option<Vec<u8>>, String> {
    let mut line = Vec::new();
    lines.take(LONGEST).read_until(b'\n', &mut line).map_err(|error| format!("it cannot be read on: {error}"))?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        Some(_) if line.len() as u64 + 1 == LONGEST => Err(format!("a line is longer than {LONGEST} bytes")),
        Some(_) => Err("its last line has no end".to_owned()),
    }
}

fn parsed(line: &[u8]) -> Option<Map<String, Value>> {
    serde_json::from_slice(line).ok()
}

/// Exports the file of a lab; gives back what is wrong with it.
fn from_file(node: &Node, exported: &mut Exported<'_>) -> Result<Option<String>, ConsoleError> {
    let path = &node.config.audit.file;
    let unreadable = |source| ConsoleError::File {
        path: path.clone(),
        source,
        hint: "run this as root; the file is made by the first daemon that starts",
    };
    let mut lines = BufReader::new(File::open(path).map_err(unreadable)?);
    let complaint = |number: usize, what: &str| Some(format!("{}, line {number}: {what}", path.display()));
    for number in 1.. {
        match line(&mut lines) {
            Ok(None) => break,
            Ok(Some(line)) => match parsed(&line) {
                Some(fields) => exported.event(fields)?,
                None => return Ok(complaint(number, "it is no event, and nothing behind it is exported")),
            },
            Err(what) => return Ok(complaint(number, &what)),
        }
    }
    Ok(None)
}

/// Exports what journalctl prints, given `arguments`; gives back what it complains of. It leaves out a file that it cannot read or
/// that is damaged, says so, and ends as if nothing were the matter: so whatever it says there means that something is missing.
fn from_journal(
    arguments: impl Iterator<Item = String>,
    exported: &mut Exported<'_>,
) -> Result<Option<String>, ConsoleError> {
    let cannot = |source| ConsoleError::Program { program: JOURNALCTL.into(), source };
    let mut command = Command::new(JOURNALCTL);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(cannot)?;
    let said = child.stderr.take();
    let said = thread::spawn(move || said.map(begin_of).unwrap_or_default());
    let mut unread = None;
    if let Some(stdout) = child.stdout.take() {
        let mut lines = BufReader::new(stdout);
        unread = loop {
            match line(&mut lines) {
                Ok(None) => break None,
                Ok(Some(line)) => match parsed(&line) {
                    Some(fields) => exported.event(fields)?,
                    None if line.starts_with(b"-- ") => {}
                    None => break Some("journalctl printed what is no event".to_owned()),
                },
                Err(what) => break Some(format!("journalctl's output: {what}")),
            }
        };
    }
    // Its output is closed by now, so that it ends.
    let status = child.wait().map_err(cannot)?;
    let said = said.join().unwrap_or_default();
    if let Some(unread) = unread {
        return Ok(Some(unread));
    }
    let failed = (!status.success()).then(|| format!("journalctl failed ({status})"));
    let said = (!said.is_empty()).then(|| format!("journalctl says: {}", plain(&said)));
    Ok(failed.into_iter().chain(said).reduce(|failed, said| format!("{failed}, {said}")))
}

/// The beginning of a text, which is read to its end.
fn begin_of(mut from: impl Read) -> String {
    let mut begin = Vec::new();
    let read = from.by_ref().take(COMPLAINT).read_to_end(&mut begin);
    if let Err(error) = read.and_then(|_| io::copy(&mut from, &mut io::sink())) {
        return format!("(what it says cannot be read: {error})");
    }
    String::from_utf8_lossy(&begin).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use casemate_audit::{Event, Record};
    use clap::Parser;

    use super::*;
    use crate::arguments::Arguments;

    /// A node with the trail `trail` and no key broker.
    fn node(folder: &Path, trail: &[u8]) -> Node {
        let config = folder.join("casemate.toml");
        let folder = folder.display();
        let text = format!(
            "[paths]\nrun = '{folder}'\n[audit]\nfile = '{folder}/journal.jsonl'\njournal-socket = '{folder}/none'\n\
             [users]\nkeyd = 64001\n"
        );
        fs::write(&config, text).unwrap();
        fs::write(config.with_file_name("journal.jsonl"), trail).unwrap();
        let line = ["casemate", "--config", config.to_str().unwrap(), "audit", "export"];
        Node::find(&Arguments::try_parse_from(line).unwrap()).unwrap()
    }

    fn exported(trail: &[u8], asked: &Export) -> (String, Result<(), String>) {
        let folder = tempfile::tempdir().unwrap();
        let mut out = Vec::new();
        let outcome = export(&node(folder.path(), trail), asked, &mut out).map_err(|error| error.to_string());
        (String::from_utf8(out).unwrap(), outcome)
    }

    const ALL: Export = Export { since: None, until: None };

    /// An event with a number of the broker's record, at a moment in microseconds.
    fn told(number: u64, micros: u64) -> Vec<u8> {
        let record =
            Record::new("casemate-keyd", &Event::ServiceStopped { reason: "\u{1b}\n".into() }).numbered(number);
        let mut event: Map<_, _> = serde_json::from_slice(&record.json_line()).unwrap();
        event.insert("CASEMATE_TIMESTAMP".into(), micros.to_string().into());
        let line = Value::Object(event);
        format!("{line}\n").into_bytes()
    }

    #[test]
    fn a_whole_trail_is_exported_in_its_order_and_within_the_moments_asked_for() {
        let trail = [told(1, 5), told(2, 9), told(3, 7)].concat();
        let (text, outcome) = exported(&trail, &ALL);
        assert_eq!((text.as_bytes(), outcome), (trail.as_slice(), Ok(())));
        let moment = |micros| Some(crate::arguments::Moment(micros));
        let (text, outcome) = exported(&trail, &Export { since: moment(7), until: moment(9) });
        assert_eq!((text.into_bytes(), outcome), (told(3, 7), Ok(())), "a clock that was set back hides nothing");
    }

    #[test]
    fn what_is_missing_is_an_error_after_what_is_there() {
        let (text, outcome) = exported(&[told(1, 5), told(4, 6)].concat(), &ALL);
        assert_eq!(text.lines().count(), 2);
        let error = outcome.unwrap_err();
        assert!(error.contains("2 to 3 of the key broker's record"), "{error}");
        for (tail, complaint) in [
            (&b"{\"CASEMATE_EV"[..], "line 2: its last line has no end"),
            (b"not JSON\n", "line 2: it is no event"),
            (&[b'x'; LONGEST as usize], "line 2: a line is longer"),
        ] {
            let (text, outcome) = exported(&[&told(1, 5), tail].concat(), &ALL);
            assert_eq!(text.lines().count(), 1);
            let error = outcome.unwrap_err();
            assert!(error.contains(complaint), "{error}");
        }
    }

    #[test]
    fn fields_of_the_journal_that_matter_are_kept_and_only_the_brokers_numbers_count() {
        let mut out = Vec::new();
        let mut exported =
            Exported { asked: &ALL, broker: Some("64001".into()), numbers: Numbers::default(), out: &mut out };
        let event = |uid: &str, number: u64| {
            let text = format!(
                "{{\"__CURSOR\":\"c\",\"_BOOT_ID\":\"b\",\"_CMDLINE\":\"x\",\"_UID\":\"{uid}\",\"MESSAGE\":[101,27],\
                 \"CASEMATE_RECORD\":\"{number}\"}}"
            );
            parsed(text.as_bytes()).unwrap()
        };
        exported.event(event("64001", 1)).unwrap();
        exported.event(event("64004", 9)).unwrap();
        assert_eq!(exported.numbers.lacking(Some(1)), Vec::<String>::new());
        let first = String::from_utf8(out).unwrap().lines().next().unwrap().to_owned();
        assert_eq!(
            first,
            "{\"CASEMATE_RECORD\":\"1\",\"MESSAGE\":\"e\\u001b\",\"_BOOT_ID\":\"b\",\"_UID\":\"64001\",\"__CURSOR\":\"c\"}"
        );
    }

    /// journalctl itself, given a folder whose only journal is cut: it ends with 0.
    #[test]
    fn a_damaged_journal_is_an_error_that_says_so() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("system.journal"), b"LPKSHHRH cut here").unwrap();
        let from = |folder: &Path| {
            let mut out = Vec::new();
            let mut exported = Exported { asked: &ALL, broker: None, numbers: Numbers::default(), out: &mut out };
            let arguments = [format!("--directory={}", folder.display()), "--output=json".to_owned()];
            let complaint = from_journal(arguments.into_iter(), &mut exported).unwrap();
            (complaint, out)
        };
        let (complaint, out) = from(folder.path());
        let complaint = complaint.expect("journalctl of package systemd told of the damage");
        assert!(complaint.starts_with("journalctl says: Journal file ") && out.is_empty(), "{complaint}");
        fs::remove_file(folder.path().join("system.journal")).unwrap();
        assert!(from(&folder.path().join("no/such")).0.is_some_and(|complaint| complaint.contains("failed")));
    }
}
