//! `casemate hsm change-pin` as an operator uses it, on a PKCS#11 token and on a TPM: the daemons serve before, after, and when keyd
//! is killed and comes back.
#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use std::{
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use casemate_harness::{DAEMONS, Lab, LabSettings, Tokens};
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    pty::{OpenptyResult, openpty},
    sys::termios::{LocalFlags, tcgetattr},
};
use serde_json::{Value, json};

const NEW: &str = "8642097531864";

/// What the console made of a line on its standard input.
fn change(lab: &Lab, arguments: &[&str], line: &str) -> Output {
    let mut command = lab.console();
    command.args(["hsm", "change-pin"]).args(arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It may have ended without a look at it.
    let _ = child.stdin.take().unwrap().write_all(line.as_bytes());
    child.wait_with_output().unwrap()
}

fn refused(lab: &Lab, arguments: &[&str], line: &str, what: &str) {
    let output = change(lab, arguments, line);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && text.contains(what), "{what:?} is not in {text:?}");
    let repeated = !line.trim().is_empty() && text.contains(line.trim());
    assert!(text.lines().count() == 1 && !repeated, "{text:?}");
}

fn state(lab: &Lab) -> Value {
    let listed: Value = serde_json::from_str(&lab.casemate(&["hsm", "list", "--json"]).unwrap()).unwrap();
    assert!(listed["keys"].as_array().unwrap().iter().all(|key| key["on-token"] == true), "{listed}");
    listed["state"].clone()
}

fn enrol(lab: &Lab, phone: &str) {
    lab.add_phone(phone, &["--string", "4711"]).unwrap();
    let tomcat = lab.published("certmgr", "tomcat.pem");
    lab.phone(phone).play(&["--string", "4711", "--ask-about", tomcat.to_str().unwrap()]).unwrap();
}

/// Files under `folder` in which the PIN stands.
fn holding(folder: &Path, pin: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().filter_map(Result::ok) {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(holding(&entry.path(), pin));
        } else if kind.is_file() {
            let content = fs::read(entry.path()).unwrap_or_default();
            if content.windows(pin.len()).any(|window| window == pin.as_bytes()) {
                found.push(entry.path());
            }
        }
    }
    found
}

fn a_pin_is_changed(name: &str, tokens: Tokens, place: &str, file: fn(&Lab) -> PathBuf) {
    let lab = Lab::start(LabSettings { tokens, ..LabSettings::for_test(name) }).unwrap();
    let old = fs::read_to_string(file(&lab)).unwrap();
    refused(&lab, &[], "\n", "no PIN was taken");
    refused(&lab, &["--token", "another"], "86420975\n", place);
    assert_eq!(fs::read_to_string(file(&lab)).unwrap(), old);

    let output = change(&lab, &["--token", place, "--json"], &format!("{NEW}\n"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let shown: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(shown["token"], place);
    let changed = lab.wait_for_events("PinChanged", 1).unwrap();
    assert_eq!((&changed[0]["CASEMATE_TOKEN"], &changed[0]["CASEMATE_PLACE"]), (&shown["serial"], &json!(place)));
    assert_eq!(lab.audited("PinNotChanged").unwrap().len(), 1, "the console asked for no PIN that it had not");
    assert_eq!(holding(&lab.layout.root, NEW), [file(&lab)], "the PIN is in its file alone");
    assert!(holding(&lab.layout.root, old.trim()).is_empty(), "and the old one nowhere");

    // The login that holds goes on, and the next one is with the new PIN.
    enrol(&lab, "SEP001122334455");
    let starts = lab.starts("keyd");
    assert!(lab.kill("keyd").unwrap());
    lab.wait_for("keyd to serve again", Duration::from_secs(60), || {
        lab.starts("keyd") > starts && lab.casemate(&["hsm", "list"]).is_ok()
    })
    .unwrap();
    assert_eq!(state(&lab), "serving");
    enrol(&lab, "SEP001122334466");
    // And back, where the name of the only token may be left out.
    let named = if tokens == Tokens::Tpm2Pkcs11 { &["--token", place][..] } else { &[] };
    let output = change(&lab, named, &old);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains(place), "{text}{}", String::from_utf8_lossy(&output.stderr));
    for (daemon, _) in DAEMONS {
        lab.stop_daemon(daemon).unwrap();
    }
    assert!(holding(&lab.layout.root, NEW).is_empty());
    assert_eq!(lab.audited("TokenRefused").unwrap(), [] as [Value; 0], "no PIN was tried in vain");
}

#[test]
fn the_pin_of_softhsm_is_changed() {
    a_pin_is_changed("pin-softhsm", Tokens::SoftHsm, "pkcs11:token=casemate-lab", |lab| lab.layout.pin());
}

#[test]
fn the_pin_of_kryoptic_is_changed() {
    a_pin_is_changed("pin-kryoptic", Tokens::Kryoptic, "pkcs11:token=casemate-lab", |lab| lab.layout.pin());
}

#[test]
fn the_pin_of_tpm2_pkcs11_is_changed() {
    a_pin_is_changed("pin-tpm2-pkcs11", Tokens::Tpm2Pkcs11, "pkcs11:token=casemate-lab", |lab| lab.layout.pin());
}

/// A console at a terminal of its own.
struct Terminal {
    /// The person's side.
    keys: File,
    /// The console's side, which stays open here.
    screen: File,
    console: Child,
}

impl Terminal {
    fn at(lab: &Lab) -> Self {
        let OpenptyResult { master, slave } = openpty(None, None).unwrap();
        let screen = File::from(slave);
        let mut command = lab.console();
        command.args(["hsm", "change-pin"]).stdin(screen.try_clone().unwrap());
        let console = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Self { keys: File::from(master), screen, console }
    }

    /// Types `line` when it is asked for so.
    fn answers(&mut self, question: &str, line: &str) {
        let asked = self.console.stderr.as_mut().unwrap();
        let mut said = vec![0; question.len()];
        asked.read_exact(&mut said).unwrap();
        assert_eq!(String::from_utf8_lossy(&said), question);
        assert!(!tcgetattr(&self.screen).unwrap().local_flags.intersects(LocalFlags::ECHO | LocalFlags::ISIG));
        self.keys.write_all(line.as_bytes()).unwrap();
        // The end of the line that was not shown.
        if line.ends_with('\n') {
            asked.read_exact(&mut [0]).unwrap();
        }
    }

    /// How it ended: the code, and what it said and showed.
    fn ends(mut self) -> (Option<i32>, String) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.console.try_wait().unwrap().is_none() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
        // One that waits for more than was typed has no code.
        let _ = self.console.kill();
        let output = self.console.wait_with_output().unwrap();
        let restored = tcgetattr(&self.screen).unwrap().local_flags;
        let as_before = restored.contains(LocalFlags::ECHO | LocalFlags::ISIG);
        assert!(as_before, "the terminal is not as it was: {}", String::from_utf8_lossy(&output.stderr));
        fcntl(&self.keys, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let mut shown = Vec::new();
        // It ends with what there is: nobody else writes.
        let _ = (&self.keys).read_to_end(&mut shown);
        let said = [output.stdout, output.stderr, shown].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    }
}

/// At a terminal the PIN is asked for twice, and never shown; what is not the same twice, or is interrupted, changes nothing.
#[test]
fn at_a_terminal_a_pin_is_asked_for_twice_and_not_shown() {
    let lab = Lab::start(LabSettings::for_test("pin-terminal")).unwrap();
    let file = lab.layout.pin();
    let old = fs::read_to_string(&file).unwrap();

    let mut terminal = Terminal::at(&lab);
    terminal.answers("new PIN: ", &format!("{NEW}\n"));
    terminal.answers("the same again: ", "8642097531865\n");
    let (code, text) = terminal.ends();
    assert!(code == Some(1) && text.contains("the two are not the same"), "{code:?} {text}");
    assert!(!text.contains("864209"), "{text}");

    let mut terminal = Terminal::at(&lab);
    terminal.answers("new PIN: ", "864\x03");
    let (code, text) = terminal.ends();
    assert!(code == Some(1) && text.contains("interrupted"), "{code:?} {text}");
    assert_eq!((fs::read_to_string(&file).unwrap(), lab.audited("PinNotChanged").unwrap().len()), (old.clone(), 0));

    let mut terminal = Terminal::at(&lab);
    terminal.answers("new PIN: ", &format!("{NEW}\n"));
    terminal.answers("the same again: ", &format!("{NEW}\n"));
    let (code, text) = terminal.ends();
    assert!(code == Some(0) && text.contains("is changed") && !text.contains(NEW), "{code:?} {text}");
    assert_eq!(fs::read_to_string(&file).unwrap().trim(), NEW);
    assert_eq!(state(&lab), "serving");
}

#[test]
fn the_pin_of_a_tpm_is_changed() {
    a_pin_is_changed("pin-tpm", Tokens::Tpm, "tpm", |lab| lab.layout.tpm_pin());
}
