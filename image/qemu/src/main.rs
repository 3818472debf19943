//! `casemate-guest`: boots the image, waits for `casemate.target`, lets a phone in and has `casemate-phone` enrol through the
//! forwarded ports; prints each step with its time. Then it stays until Ctrl-C. `ONCE=1` stops after the phone, `KEEP=1` goes on with
//! the disk and the TPM of last time; the exit code is 0 only if all held. `LIMIT` is how many seconds a step may take, 300 if it is
//! not set. Runs as root, in the checkout.
#![forbid(unsafe_code)]

use std::{
    env,
    error::Error,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    thread,
    time::Duration,
};

use casemate_qemu::{Forward, Guest, GuestSettings};

/// The phone that is let in.
const PHONE: &str = "SEP001122334455";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guest: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let limit = env::var("LIMIT").ok().map_or(Ok(300), |text| text.parse()).map(Duration::from_secs)?;
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0");
    let settings = GuestSettings { keep: is_set("KEEP"), ..GuestSettings::new(&env::current_dir()?, "guest")? };
    let (folder, forwarded) = (settings.folder.clone(), settings.forwarded.clone());
    println!(
        "guest: {} under TCG (KVM is not asked for); its files are in {}",
        settings.disk.display(),
        folder.display()
    );
    let mut guest = Guest::start(settings)?;
    let reached = guest.wait_for_unit("casemate.target", limit).inspect_err(|_| explain(&guest))?;
    println!(
        "guest: casemate.target after {:.1} s; its kernel ran {:.1} s of them",
        seconds(guest.on_for()),
        seconds(reached.since_boot().unwrap_or_default())
    );
    enrol(&guest, limit, &folder)?;
    for Forward { protocol, port } in &forwarded {
        println!("guest: {protocol:?} 127.0.0.1:{} is the guest's port {port}", port + 20_000);
    }
    println!("guest: its journal, JSON lines: {}", folder.join("journal.jsonl").display());
    if is_set("ONCE") {
        return Ok(());
    }
    println!("guest: ready; Ctrl-C pulls its plug");
    while !guest.is_off() {
        thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}

/// Lets a phone in at the console, and plays it.
fn enrol(guest: &Guest, limit: Duration, folder: &Path) -> Result<(), Box<dyn Error>> {
    let mut console = guest.console(limit)?;
    let phone = env::current_exe()?.with_file_name("casemate-phone");
    let state = folder.join("phone");
    if state.exists() {
        std::fs::remove_dir_all(&state)?;
    }
    // An authentication string would be in the logs of a developer's terminal; the string's own tests are the lab's.
    console.casemate(&["phone", "add", PHONE, "--null-string", "--key", "p-384"], Duration::from_secs(60))?;
    println!("guest: phone added after {:.1} s", seconds(guest.on_for()));
    // Its configuration is signed within a second or two.
    let mut told = play(&phone, &state)?;
    for _ in 0..20 {
        if told.0 {
            break;
        }
        thread::sleep(Duration::from_secs(1));
        told = play(&phone, &state)?;
    }
    for line in told.1.lines() {
        println!("       {line}");
    }
    if !told.0 {
        return Err("the phone did not enrol".into());
    }
    println!("guest: phone enrolled {:.1} s after power-on", seconds(guest.on_for()));
    Ok(())
}

fn play(phone: &PathBuf, state: &Path) -> Result<(bool, String), Box<dyn Error>> {
    let mut command = Command::new(phone);
    command.args(["--name", PHONE, "--host", "127.0.0.1", "--tftp-port", "20069", "--http-port", "26970"]);
    command.args(["--https-port", "26971", "--capf-port", "23804", "--tvs-port", "22445", "--key", "p-384", "--state"]);
    let output = command.arg(state).output()?;
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    Ok((output.status.success(), text))
}

/// What went wrong, as far as the guest said.
fn explain(guest: &Guest) {
    let entries = guest.journal().entries().unwrap_or_default();
    let serious = |priority: &str| priority.parse::<u8>().is_ok_and(|priority| priority <= 4);
    let wrong: Vec<_> = entries.iter().filter(|entry| entry.field("PRIORITY").is_some_and(serious)).collect();
    for entry in wrong.iter().rev().take(30).rev() {
        let unit = entry.field("_SYSTEMD_UNIT").or(entry.field("SYSLOG_IDENTIFIER")).unwrap_or_default();
        eprintln!("guest: {unit}: {}", entry.field("MESSAGE").unwrap_or_default());
    }
    let serial = guest.serial();
    let tail: Vec<_> = serial.lines().rev().take(15).collect();
    for line in tail.iter().rev() {
        eprintln!("guest: serial: {line}");
    }
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
