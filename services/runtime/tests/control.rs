//! A control socket holds its limits, and outlives what is not its fault. One file, one process: limits of descriptors are the
//! process's.
#![allow(clippy::unwrap_used)] // a step that fails is a test that fails

use std::{
    fs,
    io::Read,
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use casemate_audit::{AuditSettings, Auditor};
use casemate_post::Passed;
use casemate_runtime::{
    config::Config,
    control::{Callers, ControlSettings, FRAMING, serve},
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::task::{JoinHandle, spawn_blocking};

struct Desk {
    dir: tempfile::TempDir,
    socket: PathBuf,
    service: JoinHandle<std::io::Result<()>>,
}

impl Desk {
    /// A service that answers a number with so many bytes.
    async fn open(settings: ControlSettings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (socket, config) = (dir.path().join("test.sock"), dir.path().join("casemate.toml"));
        let own = nix::unistd::geteuid();
        fs::write(&config, format!("[users]\nadmin = {own}\n")).unwrap();
        let callers = Callers::root_and(&Config::load(&config).unwrap(), &["admin"]);
        let trail = AuditSettings { journal_socket: dir.path().join("absent"), file: dir.path().join("journal.jsonl") };
        let auditor = Arc::new(Auditor::open("casemate-test", &trail).unwrap());
        let path = socket.clone();
        let service =
            tokio::spawn(async move {
                serve(&Passed::testing(), &path, callers, settings, auditor, |bytes: usize, _| async move {
                    vec![7_u8; bytes]
                })
                .await
            });
        while !socket.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Self { dir, socket, service }
    }

    fn connect(&self) -> UnixStream {
        let socket = UnixStream::connect(&self.socket).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket
    }

    fn trail(&self) -> String {
        fs::read_to_string(self.dir.path().join("journal.jsonl")).unwrap()
    }
}

/// Asks for one byte over `socket`; nothing when it was closed.
async fn ask(mut socket: UnixStream) -> (UnixStream, Option<Vec<u8>>) {
    spawn_blocking(move || {
        let sent = FRAMING.write(&mut socket, &1_usize);
        let answer = sent.and_then(|()| FRAMING.read(&mut socket)).ok().flatten();
        (socket, answer)
    })
    .await
    .unwrap()
}

fn settings(text: &str) -> ControlSettings {
    toml::from_str(text).unwrap()
}

#[tokio::test]
async fn a_socket_that_could_not_accept_serves_when_it_can() {
    let desk = Desk::open(ControlSettings::default()).await;
    let (first, second) = (desk.connect(), desk.connect());
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    // Both wait to be accepted: nothing was awaited since they connected.
    setrlimit(Resource::RLIMIT_NOFILE, 3, hard).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let ended = desk.service.is_finished();
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    assert!(!ended, "one error of accept must not end a daemon");
    assert_eq!(ask(first).await.1, Some(vec![7]));
    assert_eq!(ask(second).await.1, Some(vec![7]));
}

#[tokio::test]
async fn a_user_has_so_many_places_and_more_are_refused_and_audited() {
    let desk = Desk::open(settings("places-per-user = 2")).await;
    let (first, answer) = ask(desk.connect()).await;
    assert!(answer.is_some());
    let (_second, answer) = ask(desk.connect()).await;
    assert!(answer.is_some());
    for _ in 0..200 {
        assert_eq!(ask(desk.connect()).await.1, None);
    }
    assert_eq!(desk.trail().matches("\"ConnectionRefused\"").count(), 100, "a flood does not fill the trail");
    assert!(desk.trail().contains("places-per-user"));
    drop(first);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(ask(desk.connect()).await.1.is_some(), "a place comes back");
}

#[tokio::test]
async fn a_caller_that_is_silent_or_takes_no_answer_loses_its_place() {
    let desk = Desk::open(settings("places-per-user = 1\nidle-ms = 100\nwrite-ms = 100")).await;
    let mut silent = desk.connect();
    let began = Instant::now();
    let read = spawn_blocking(move || silent.read(&mut [0])).await.unwrap();
    assert_eq!(read.unwrap(), 0);
    assert!(began.elapsed() < Duration::from_secs(4));
    let mut deaf = desk.connect();
    // More than a socket holds, and never read.
    FRAMING.write(&mut deaf, &1_000_000_usize).unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(ask(desk.connect()).await.1.is_some());
    drop(deaf);
}

#[test]
fn limits_of_zero_are_refused_by_name() {
    for key in ["places", "places-per-user", "idle-ms", "write-ms", "audited-refusals"] {
        let refusal = toml::from_str::<ControlSettings>(&format!("{key} = 0")).unwrap_err().to_string();
        assert!(refusal.contains(key), "{refusal}");
    }
}
