//! `make lab`: starts every daemon, provisions, adds a phone, plays it, prints each step with its time, then the addresses and
//! `lab: ready`, and stays until Ctrl-C. `ONCE=1` stops after the phone; the exit code is 0 only if all held. `LAB_ADDRESS` is
//! the address at which it listens, 127.0.0.1 if it is not set: two labs of one machine need two. `TOKENS` says where the keys
//! live: `softhsm` (if it is not set), `kryoptic`, `tpm2-pkcs11`, `tpm` or `split`.
#![forbid(unsafe_code)]

use std::{
    env,
    error::Error,
    io::Write,
    net::{IpAddr, Ipv4Addr},
    process::ExitCode,
    time::Instant,
};

use casemate_harness::{Lab, LabError, LabSettings, Owner, Ports, Tokens, UnknownTokens, programs};
use tokio::signal::unix::{SignalKind, signal};

/// The phone that the lab adds.
const PHONE: &str = "SEP001122334455";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let target = programs();
    let target = target.parent().unwrap_or(&target);
    let started = Instant::now();
    let settings = LabSettings { address: address()?, tokens: tokens()?, ..LabSettings::new(target.join("lab")) };
    let choice = settings.tokens;
    let lab = step("tokens, settings and manifest of the programs", || Lab::prepare(settings))?;
    explain(&lab, choice);
    step("power-on self-test", || lab.postd(&[]))?;
    step("daemons", || lab.start_daemons())?;
    step("seven keys in their tokens, each with its certificate", || lab.casemate(&["provision"]))?;
    step("trust list signed by ITLRecovery", || lab.wait_for_trust_list())?;
    let string = authentication_string()?;
    step("phone added, its configuration signed by CallManager", || lab.add_phone(PHONE, &["--string", &string]))?;
    let tomcat = lab.published("certmgr", "tomcat.pem");
    let told = step("phone: trust list, configuration, TVS, enrolment", || {
        lab.phone(PHONE).play(&["--string", &string, "--ask-about", &tomcat.to_string_lossy()])
    })?;
    print!("{}", indented(&told));
    println!("lab: all of it took {:.1} s", started.elapsed().as_secs_f64());
    addresses(&lab);
    println!("lab: ready");
    if env::var_os("ONCE").is_none_or(|once| once.is_empty() || once == "0") {
        println!("lab: Ctrl-C ends it; try: CASEMATE_LAB={0} {0}/bin/casemate audit tail", lab.layout.root.display());
        wait_for_the_end()?;
    }
    Ok(())
}

fn address() -> Result<IpAddr, String> {
    let Some(text) = env::var_os("LAB_ADDRESS") else { return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)) };
    let address = text.to_str().and_then(|text| text.parse().ok());
    address.ok_or_else(|| format!("LAB_ADDRESS is {}, which is no address", text.display()))
}

fn tokens() -> Result<Tokens, String> {
    let Some(text) = env::var_os("TOKENS").filter(|text| !text.is_empty()) else { return Ok(Tokens::default()) };
    text.to_string_lossy().parse().map_err(|error: UnknownTokens| error.to_string())
}

/// Waits for Ctrl-C or SIGTERM; the daemons are in process groups of their own and end after us, in order.
fn wait_for_the_end() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        Ok(())
    })
}

/// Runs one step and prints it with its time; while it runs, the line stands without.
fn step<T>(name: &str, work: impl FnOnce() -> Result<T, LabError>) -> Result<T, LabError> {
    print!("lab: {name} ...");
    // Nothing is lost if a terminal cannot be flushed.
    let _ = std::io::stdout().flush();
    let started = Instant::now();
    let outcome = work();
    println!(" {} in {:.2} s", if outcome.is_ok() { "done" } else { "FAILED" }, started.elapsed().as_secs_f64());
    outcome
}

fn explain(lab: &Lab, tokens: Tokens) {
    match lab.layout.owner {
        Owner::Each => println!("lab: one uid a daemon, so the key broker's policy is the real one"),
        Owner::One(why) => println!(
            "lab: ONE UID FOR ALL ({why}): this run does not prove that one daemon is refused what only another may ask"
        ),
    }
    println!("lab: {}", tokens.explain(&lab.layout));
}

fn addresses(lab: &Lab) {
    let services = [
        ("TFTP", Ports::TFTP),
        ("HTTP files", Ports::HTTP),
        ("HTTPS files", Ports::HTTPS),
        ("CAPF", Ports::CAPF),
        ("TVS", Ports::TVS),
    ];
    for (service, port) in services {
        println!("lab: {service:<12} {}", lab.address(port));
    }
    let trail = if lab.uses_journald() { "journald".to_owned() } else { lab.layout.journal().display().to_string() };
    println!("lab: {:<12} {trail}", "audit");
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("       {line}\n")).collect()
}

/// Eight random digits.
fn authentication_string() -> std::io::Result<String> {
    let mut random = [0; 8];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut random)?;
    Ok(random.iter().map(|byte| char::from(b'0' + byte % 10)).collect())
}
