//! The broker behind its socket, asked by the client that daemons use.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy.toml allows them in test functions; these are their own helpers

mod rig;

use std::{
    fs,
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    thread,
    time::Duration,
};

use casemate_hsm_api::{KeyRole, SignatureScheme};
use casemate_keyd::{ConnectionSettings, Server};
use casemate_keyring::{BrokerState, Client, ClientSettings, KeyringError, Purpose, Refusal};
use casemate_post::Passed;
use casemate_runtime::peer::LocalServer;
use rig::{Bounds, LOADS, Node, PLACE, tls13};

/// A broker for which this test's own user is certmgr and tftp.
fn serve(node: &Node, settings: ConnectionSettings) -> PathBuf {
    let uid = nix::unistd::geteuid().as_raw();
    let broker = node.untested(node.store(), node.record(), &format!("certmgr = {uid}\ntftp = {uid}\n"));
    broker.attempt().unwrap();
    let path = node.dir.path().join("keyd.sock");
    let server = Server::bind(&Passed::testing(), Arc::clone(&broker.0), &path, settings).unwrap();
    thread::spawn(move || server.run());
    path
}

fn client(path: &Path) -> Client {
    Client::new(
        &Passed::testing(),
        LocalServer::new(path.to_owned(), nix::unistd::geteuid().as_raw()),
        ClientSettings::default(),
    )
}

#[test]
fn many_threads_have_handshakes_signed_and_refusals_come_back_as_they_are() {
    let node = Node::new();
    let client = client(&serve(&node, ConnectionSettings::default()));
    let role = KeyRole::CallManagerEcdsa;
    assert!(matches!(client.key(role), Err(KeyringError::Refused(Refusal::KeyMissing(_)))));
    let (key, made) = client.generate(role).unwrap();
    assert!(made);
    assert_eq!(client.key(role).unwrap(), key);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let scheme = SignatureScheme::EcdsaP384Sha384;
                    client.sign(role, scheme, Purpose::TlsHandshake, &tls13(48)).unwrap();
                }
            });
        }
    });
    let refused = client.sign(role, SignatureScheme::EcdsaP384Sha384, Purpose::TrustList, b"list");
    assert!(matches!(refused, Err(KeyringError::Refused(Refusal::Policy(_)))));
    assert_eq!(client.status().unwrap().state, BrokerState::Serving);
    assert_eq!(node.audited("KeyUsed"), 160);
}

/// Any user of the machine can connect; none can fill the disk of the audit trail.
#[test]
fn a_flood_of_strangers_is_a_few_events() {
    const CONNECT: &str = "use IO::Socket::UNIX; for (1 .. 100) {
        my $socket = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die qq(connect: $!);
        die 'answered' if defined readline $socket;
    }";
    let node = Node::new();
    let tokens = vec![node.token_parts(PLACE, &KeyRole::ALL, node.store())];
    let bounds = Bounds { audited_refusals: 10, ..Bounds::default() };
    let broker = node.with_bounds(tokens, LOADS, node.record(), "certmgr = 1001\n", bounds);
    let path = node.dir.path().join("keyd.sock");
    let server = Server::bind(&Passed::testing(), broker.0, &path, ConnectionSettings::default()).unwrap();
    thread::spawn(move || server.run());
    let mut stranger = Command::new("perl");
    stranger.args(["-e", CONNECT]).arg(&path);
    // Root is no stranger.
    if nix::unistd::geteuid().is_root() {
        fs::set_permissions(node.dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
        stranger.uid(4242).gid(4242);
    }
    let output = stranger.output().expect("the package perl is missing");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(node.audited("CallerRefused"), 10);
}

/// Whether the broker hung up within a second.
fn is_closed(socket: &mut UnixStream) -> bool {
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    matches!(socket.read(&mut [0; 1]), Ok(0))
}

#[test]
fn one_connection_more_than_allowed_is_closed_and_places_come_back() {
    let node = Node::new();
    let path = serve(&node, ConnectionSettings { limit_per_user: 2, ..ConnectionSettings::default() });
    let connect = || UnixStream::connect(&path).unwrap();
    let (first, _second, mut third) = (connect(), connect(), connect());
    assert!(is_closed(&mut third));
    assert_eq!(node.audited("ConnectionRefused"), 1);
    drop(first);
    for _ in 0..50 {
        if client(&path).status().is_ok() {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("the place did not come back");
}

#[test]
fn what_is_no_request_or_never_ends_is_hung_up_on() {
    let node = Node::new();
    let path = serve(&node, ConnectionSettings { timeout_ms: 100, ..ConnectionSettings::default() });
    // Idle; a frame over the limit; another version; half a frame; no request.
    for bytes in [&[][..], &[0xff; 8], &[0, 0, 0, 2, 9, 0], &[0, 0, 1, 0, 1, 0], &[0, 0, 0, 3, 1, 0xee, 0xee]] {
        let mut socket = UnixStream::connect(&path).unwrap();
        socket.write_all(bytes).unwrap();
        assert!(is_closed(&mut socket), "{bytes:?}");
    }
    for _ in 0..50 {
        if node.audited("ProtocolRefused") == 3 {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(node.audited("ProtocolRefused"), 3, "what is no frame of ours; not what only ended or was late");
    let mut trickle = UnixStream::connect(&path).unwrap();
    trickle.write_all(&[0, 0, 1, 0]).unwrap();
    let hung_up = (0..100).any(|_| {
        thread::sleep(Duration::from_millis(20));
        trickle.write_all(&[1]).is_err()
    });
    assert!(hung_up, "a frame in a hundred writes within the limit of each");
    assert!(client(&path).status().is_ok(), "and it serves on");
}
