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

use casemate_hsm_api::{
    Continuation, HsmError, KeyAlgorithm, KeyId, KeyRole, KeySpec, KeyState, KeyStore, PublicKey, RunBy, SignatureRate,
    SignatureScheme, StoredKey, TokenInfo,
};
use casemate_keyd::{ConnectionSettings, Server};
use casemate_keyring::{
    BrokerState, Client, ClientSettings, FRAMING, KeyringError, Purpose, Refusal, Request, Response, SignRequest,
};
use casemate_post::Passed;
use casemate_runtime::peer::LocalServer;
use rig::{Bounds, LOADS, Node, PLACE, tls13};

/// A broker for which this test's own user is certmgr and tftp.
fn serve(node: &Node, settings: ConnectionSettings) -> PathBuf {
    serve_with(node, node.store(), settings)
}

fn serve_with(node: &Node, store: Arc<dyn KeyStore>, settings: ConnectionSettings) -> PathBuf {
    let uid = nix::unistd::geteuid().as_raw();
    let broker = node.untested(store, node.record(), &format!("certmgr = {uid}\ntftp = {uid}\n"));
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

/// A token that keeps the thread of whoever has it sign, for ever.
struct Keeping(Arc<dyn KeyStore>);

impl KeyStore for Keeping {
    fn token(&self) -> Result<TokenInfo, HsmError> {
        self.0.token()
    }

    fn generate(&self, id: KeyId, label: &str, spec: KeySpec) -> Result<PublicKey, HsmError> {
        self.0.generate(id, label, spec)
    }

    fn inspect(&self, id: KeyId, spec: Option<KeySpec>) -> Result<KeyState, HsmError> {
        self.0.inspect(id, spec)
    }

    fn remove_half(&self, id: KeyId) -> Result<(), HsmError> {
        self.0.remove_half(id)
    }

    fn keys(&self) -> Result<Vec<StoredKey>, HsmError> {
        self.0.keys()
    }

    fn sign(&self, id: KeyId, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, HsmError> {
        self.0.sign(id, scheme, message)
    }

    fn sign_then(&self, _id: KeyId, _scheme: SignatureScheme, _message: &[u8], then: Continuation) {
        let token = self.0.token().unwrap().serial;
        let late = HsmError::Timeout { token, limit: Duration::from_millis(1) };
        thread::spawn(move || then(Err(late), RunBy::Another));
        loop {
            thread::park();
        }
    }

    fn measure(&self, algorithm: KeyAlgorithm, duration: Duration) -> Result<SignatureRate, HsmError> {
        self.0.measure(algorithm, duration)
    }

    fn reconnect(&self) -> Result<(), HsmError> {
        self.0.reconnect()
    }
}

#[test]
fn a_connection_whose_thread_is_kept_by_the_token_is_answered_and_served_on() {
    let node = Node::new();
    let store = Arc::new(Keeping(node.store()));
    let path = serve_with(&node, store, ConnectionSettings { limit_per_user: 1, ..ConnectionSettings::default() });
    let mut socket = UnixStream::connect(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut ask = |request: Request| -> Response {
        FRAMING.write(&mut socket, &request).unwrap();
        FRAMING.read(&mut socket).unwrap().expect("the connection was ended")
    };
    let role = KeyRole::CallManagerEcdsa;
    assert!(matches!(ask(Request::Generate { role }), Response::Generated { made: true, .. }));
    let scheme = SignatureScheme::EcdsaP384Sha384;
    let request = SignRequest { role, key: None, scheme, purpose: Purpose::TlsHandshake, message: tls13(48) };
    assert!(matches!(ask(Request::Sign(request)), Response::Refused(Refusal::Unavailable(_))));
    assert_eq!(node.audited("KeyUseFailed"), 1);
    let Response::Status(status) = ask(Request::Status) else { panic!("no status") };
    assert!(matches!(status.state, BrokerState::Waiting(_)), "{:?}", status.state);
    // The one place of this user went along with the connection, and comes back with its end.
    drop(socket);
    for _ in 0..50 {
        if client(&path).status().is_ok() {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("the place did not come back");
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
