//! `casemate-guest`: boots the image, waits for `casemate.target`, lets a phone in and has `casemate-phone` enrol through the
//! forwarded ports; prints each step with its time. Then it stays until Ctrl-C. `ONCE=1` stops after the phone, `KEEP=1` goes on with
//! the disk and the TPM of last time; the exit code is 0 only if all held. `LIMIT` is how many seconds a step may take, 300 if it is
//! not set. Runs as root, in the checkout.
#![forbid(unsafe_code)]

use std::{env, error::Error, path::Path, process::ExitCode, thread, time::Duration};

use casemate_qemu::{Forward, Guest, GuestSettings, Phone};

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
    let reached = guest.wait_for_unit("casemate.target", limit).inspect_err(|_| eprint!("{}", guest.troubles()))?;
    println!(
        "guest: casemate.target after {:.1} s; its kernel ran {:.1} s of them",
        seconds(guest.on_for()),
        seconds(reached.since_boot().unwrap_or_default())
    );
    enrol(&guest, limit)?;
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
fn enrol(guest: &Guest, limit: Duration) -> Result<(), Box<dyn Error>> {
    let mut console = guest.console(limit)?;
    let programs = env::current_exe()?.parent().map(Path::to_owned).unwrap_or_default();
    let phone = Phone::new(guest.settings(), &programs, PHONE);
    phone.reset()?;
    phone.let_in(&mut console, limit)?;
    println!("guest: phone added after {:.1} s", seconds(guest.on_for()));
    for line in phone.enrol(limit)?.lines() {
        println!("       {line}");
    }
    println!("guest: phone enrolled {:.1} s after power-on", seconds(guest.on_for()));
    Ok(())
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
