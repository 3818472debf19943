//! `casemate` without arguments at a terminal: the operator's `admin:` prompt, one command a line. It is what stands on the console
//! of the image, in the place of a shell: no line starts another program than the commands here.

use std::{
    ffi::OsString,
    io::{self, BufRead, Read, Write},
};

const PROMPT: &str = "admin: ";

/// A terminal gives no longer line.
const LONGEST: u64 = 4096;

/// Reads lines by `read` until there are no more, or one says `exit` or `quit`, and has `obey` do each.
///
/// # Errors
/// The terminal cannot be written to or read.
pub(crate) fn converse(
    out: &mut dyn Write,
    mut read: impl FnMut() -> io::Result<Option<String>>,
    mut obey: impl FnMut(Vec<OsString>),
) -> io::Result<()> {
    loop {
        out.write_all(PROMPT.as_bytes())?;
        out.flush()?;
        let line = match read() {
            Ok(Some(line)) => line,
            Ok(None) => return writeln!(out),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                writeln!(out, "casemate: that line is not UTF-8")?;
                continue;
            }
            Err(error) => return Err(error),
        };
        match words(&line) {
            None => writeln!(out, "casemate: a quotation mark is not closed")?,
            Some(words) if words.is_empty() => {}
            Some(words) if words.len() == 1 && matches!(words.first().map(String::as_str), Some("exit" | "quit")) => {
                return Ok(());
            }
            Some(words) => obey(["casemate".to_owned()].into_iter().chain(words).map(Into::into).collect()),
        }
    }
}

/// A line of standard input; nothing at its end. The lock is given back, for commands read from there too.
///
/// # Errors
/// It cannot be read, or is not UTF-8.
pub(crate) fn line_of_input() -> io::Result<Option<String>> {
    let mut line = String::new();
    let read = io::stdin().lock().take(LONGEST).read_line(&mut line)?;
    Ok((read > 0).then_some(line))
}

/// The words of a line: separated by white space, or within double quotation marks. Nothing if one of those is not closed.
fn words(line: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quoted) = (Vec::new(), None::<String>, false);
    for letter in line.chars() {
        match letter {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            letter if letter.is_whitespace() && !quoted => words.extend(word.take()),
            letter => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    (!quoted).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_what_stands_between_spaces_or_quotation_marks() {
        let of = |line: &str| words(line).map(|words| words.join("|"));
        assert_eq!(of("  show \t itl\n").as_deref(), Some("show|itl"));
        assert_eq!(of("a \"b c\"d \"\"").as_deref(), Some("a|b cd|"));
        assert_eq!(of(" \n").as_deref(), Some(""));
        assert_eq!(of("a \"b"), None);
    }

    #[test]
    fn each_line_is_a_command_until_one_ends_it() {
        let mut lines = ["show itl\n", "\n", "\"open\n", "$(reboot) ; ls\n", "exit\n", "never\n"].into_iter();
        let (mut out, mut obeyed) = (Vec::new(), Vec::new());
        converse(&mut out, || Ok(lines.next().map(str::to_owned)), |words| obeyed.push(words)).unwrap();
        assert_eq!(obeyed, [vec!["casemate", "show", "itl"], vec!["casemate", "$(reboot)", ";", "ls"]]);
        assert_eq!(lines.next(), Some("never\n"));
        let out = String::from_utf8(out).unwrap();
        assert_eq!(out, "admin: admin: admin: casemate: a quotation mark is not closed\nadmin: admin: ");
    }

    #[test]
    fn nonsense_ends_nothing_and_the_end_of_input_does() {
        let mut given = [Err(io::Error::from(io::ErrorKind::InvalidData)), Ok(None)].into_iter();
        let mut out = Vec::new();
        converse(&mut out, || given.next().unwrap(), |_| panic!("nothing was said")).unwrap();
        assert!(String::from_utf8(out).unwrap().contains("not UTF-8"));
        let broken = converse(&mut Vec::new(), || Err(io::ErrorKind::UnexpectedEof.into()), |_| {});
        assert_eq!(broken.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
