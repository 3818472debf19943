//! Many handshakes signed by one keyd: its memory stays, its trail shows no stall, and nothing is left behind in a TPM. A hundred
//! thousand, and two thousand on a TPM, which is slower.

use std::{
    env,
    os::unix::net::UnixStream,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use casemate_faults::Bus;
use casemate_harness::{Owner, Tokens};
use casemate_hsm_api::{KeyRole, SignatureScheme};
use casemate_keyring::{FRAMING, Purpose, Request, Response, SignRequest};

use crate::stage::{Stage, prepared, start, with_bus};

const CALLERS: usize = 4;

/// Longer than this between two signatures is a stall.
const STALL: Duration = Duration::from_secs(5);

/// More memory after the load than after its first hundredth is a leak.
const GROWTH: u64 = 8 << 20;

const SOCKET: &str = "CASEMATE_DRILL_SOCKET";
const COUNT: &str = "CASEMATE_DRILL_COUNT";

/// One caller under tftp's uid, which asks for one handshake after the other.
fn ask(socket: &str, count: usize) {
    let message = [&[0x20; 64][..], b"TLS 1.3, server CertificateVerify\0", &[7; 48]].concat();
    let mut socket = UnixStream::connect(socket).unwrap();
    for _ in 0..count {
        let (role, scheme) = (KeyRole::CallManagerEcdsa, SignatureScheme::EcdsaP384Sha384);
        let request = SignRequest { role, key: None, scheme, purpose: Purpose::TlsHandshake, message: message.clone() };
        FRAMING.write(&mut socket, &Request::Sign(request)).unwrap();
        let answer: Option<Response> = FRAMING.read(&mut socket).unwrap();
        assert!(matches!(answer, Some(Response::Signature(_))), "{answer:?}");
    }
}

/// Has `count` handshakes signed by callers that are this program again, in its test `test`.
fn load(stage: &Stage<'_>, test: &str, count: usize) {
    let lab = stage.lab;
    let Owner::Each = lab.layout.owner else { panic!("this drill needs root: {:?}", lab.layout.owner) };
    let program = lab.layout.root.join("caller");
    if !program.exists() {
        std::fs::copy(env::current_exe().unwrap(), &program).unwrap();
        lab.layout.own(&program, 0o755, None).unwrap();
    }
    let uid = format!("--reuid={}", lab.layout.owner.uid("tftp"));
    let output = Command::new("setpriv")
        .args(["--clear-groups", &format!("--regid={}", lab.layout.owner.gid()), &uid, "--"])
        .arg(program)
        .args([test, "--exact"])
        .env(SOCKET, lab.layout.run().join("keyd.sock"))
        .env(COUNT, (count / CALLERS).to_string())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
}

/// Whether this process is one of the callers; if so it has asked.
fn is_caller() -> bool {
    let (Ok(socket), Ok(count)) = (env::var(SOCKET), env::var(COUNT)) else { return false };
    let count = count.parse().unwrap();
    thread::scope(|scope| (0..CALLERS).for_each(|_| drop(scope.spawn(|| ask(&socket, count)))));
    true
}

fn without_leak_or_stall(stage: &Stage<'_>, test: &str, signatures: usize) {
    let lab = stage.lab;
    load(stage, test, signatures / 100);
    let before = lab.memory("keyd").unwrap();
    let begin = Instant::now();
    load(stage, test, signatures);
    let (after, took) = (lab.memory("keyd").unwrap(), begin.elapsed().as_secs_f64());
    println!("{signatures} signatures in {took:.1} s; keyd's memory {} KiB, then {} KiB", before >> 10, after >> 10);
    assert!(after < before + GROWTH, "{before} bytes, then {after}");
    let time = |event: &serde_json::Value| event["CASEMATE_TIMESTAMP"].as_str().unwrap().parse::<u64>().unwrap();
    let used = lab.audited("KeyUsed").unwrap();
    let handshakes: Vec<_> = used
        .iter()
        .filter(|event| event["CASEMATE_ROLE"] == "CallManager-ECDSA" && event["CASEMATE_PURPOSE"] == "tls-handshake")
        .map(time)
        .collect();
    let last = &handshakes[handshakes.len() - signatures..];
    let longest = last.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap();
    println!("longest pause in the trail: {} ms", longest / 1000);
    assert!(Duration::from_micros(longest) < STALL, "{longest} microseconds without a signature");
    stage.only_keyd_restarted(0);
    stage.nothing_was_lost();
}

fn a_hundred_thousand(name: &str, tokens: Tokens, test: &str) {
    if is_caller() {
        return;
    }
    let lab = prepared(name, tokens);
    start(&lab);
    without_leak_or_stall(&Stage::of(&lab, name), test, 100_000);
}

#[test]
fn a_hundred_thousand_signatures_without_leak_or_stall() {
    let test = "load::a_hundred_thousand_signatures_without_leak_or_stall";
    a_hundred_thousand("drill-load", Tokens::SoftHsm, test);
}

#[test]
fn a_hundred_thousand_signatures_of_kryoptic() {
    a_hundred_thousand("drill-load-kryoptic", Tokens::Kryoptic, "load::a_hundred_thousand_signatures_of_kryoptic");
}

/// Objects and sessions that the TPM holds.
fn handles(bus: &Bus) -> [usize; 3] {
    ["handles-transient", "handles-loaded-session", "handles-saved-session"].map(|kind| {
        let listed = bus.tool("tpm2_getcap", &[kind]).unwrap();
        listed.lines().filter(|line| line.contains("0x")).count()
    })
}

#[test]
fn two_thousand_signatures_of_a_tpm() {
    if is_caller() {
        return;
    }
    with_bus("drill-load-tpm", |stage, bus| {
        without_leak_or_stall(stage, "load::two_thousand_signatures_of_a_tpm", 2_000);
        let [objects, sessions, saved] = handles(bus);
        println!("in the TPM: {objects} objects, {sessions} sessions, {saved} saved");
        assert!((1..=3).contains(&objects), "the storage key, and keys in use: {objects}");
        assert_eq!((sessions, saved), (1, 0), "the one that authorizes");
    });
}
