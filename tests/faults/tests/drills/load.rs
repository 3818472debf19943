//! A hundred thousand handshakes signed by one keyd: its memory stays, and its trail shows no stall.

use std::{
    env,
    os::unix::net::UnixStream,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use casemate_harness::{Owner, Tokens};
use casemate_hsm_api::{KeyRole, SignatureScheme};
use casemate_keyring::{FRAMING, Purpose, Request, Response, SignRequest};

use crate::stage::{Stage, prepared, start};

const SIGNATURES: usize = 100_000;
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

fn load(stage: &Stage<'_>, count: usize) {
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
        .args(["load::a_hundred_thousand_signatures_without_leak_or_stall", "--exact"])
        .env(SOCKET, lab.layout.run().join("keyd.sock"))
        .env(COUNT, (count / CALLERS).to_string())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
}

#[test]
fn a_hundred_thousand_signatures_without_leak_or_stall() {
    if let (Ok(socket), Ok(count)) = (env::var(SOCKET), env::var(COUNT)) {
        let count = count.parse().unwrap();
        return thread::scope(|scope| (0..CALLERS).for_each(|_| drop(scope.spawn(|| ask(&socket, count)))));
    }
    let lab = prepared("drill-load", Tokens::SoftHsm);
    start(&lab);
    let stage = Stage::of(&lab, "drill-load");
    load(&stage, SIGNATURES / 100);
    let before = lab.memory("keyd").unwrap();
    let begin = Instant::now();
    load(&stage, SIGNATURES);
    let (after, took) = (lab.memory("keyd").unwrap(), begin.elapsed().as_secs_f64());
    println!("{SIGNATURES} signatures in {took:.1} s; keyd's memory {} KiB, then {} KiB", before >> 10, after >> 10);
    assert!(after < before + GROWTH, "{before} bytes, then {after}");
    let time = |event: &serde_json::Value| event["CASEMATE_TIMESTAMP"].as_str().unwrap().parse::<u64>().unwrap();
    let used = lab.audited("KeyUsed").unwrap();
    let handshakes: Vec<_> = used
        .iter()
        .filter(|event| event["CASEMATE_ROLE"] == "CallManager-ECDSA" && event["CASEMATE_PURPOSE"] == "tls-handshake")
        .map(time)
        .collect();
    let last = &handshakes[handshakes.len() - SIGNATURES..];
    let longest = last.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap();
    println!("longest pause in the trail: {} ms", longest / 1000);
    assert!(Duration::from_micros(longest) < STALL, "{longest} microseconds without a signature");
    stage.only_keyd_restarted(0);
    stage.nothing_was_lost();
}
