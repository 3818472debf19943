//! TFTP over real sockets on the loopback interface, with a client written for the test.
// Clippy's exemption for tests does not reach the helpers beside them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{fs, net::SocketAddr, num::NonZeroU32, sync::Arc, time::Duration};

use casemate_audit::{AuditSettings, Auditor};
use casemate_runtime::{
    publish::write_atomically,
    refusals::{Refusals, WINDOW},
};
use casemate_tftp::{
    files::{CacheLimits, Files},
    packet::{Direction, Options, Packet, Request},
    settings::UdpSettings,
    udp::{Server, serve},
};
use tempfile::TempDir;
use tokio::{net::UdpSocket, time::timeout};

struct Lab {
    folder: TempDir,
    server: SocketAddr,
}

impl Lab {
    async fn start(settings: UdpSettings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let published = folder.path().join("public");
        fs::create_dir(&published).unwrap();
        let audit =
            AuditSettings { journal_socket: folder.path().join("absent"), file: folder.path().join("journal.jsonl") };
        let auditor = Arc::new(Auditor::open("casemate-tftp", &audit).unwrap());
        let cache = CacheLimits { bytes: 1 << 20, file_bytes: 1 << 20, poll: Duration::ZERO };
        let refusals = Refusals::new("tftp", NonZeroU32::new(100).unwrap(), WINDOW, Arc::clone(&auditor));
        let server = Server::new(Arc::new(Files::new(&published, cache)), refusals, settings, &auditor);
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(serve(socket, Arc::new(server)));
        Self { folder, server: address }
    }

    fn publish(&self, name: &str, content: &[u8]) {
        write_atomically(&self.folder.path().join("public").join(name), content, 0o644).unwrap();
    }

    fn trail(&self) -> String {
        fs::read_to_string(self.folder.path().join("journal.jsonl")).unwrap()
    }

    /// Waits until the trail holds `text`: the event is written beside the answer.
    async fn trail_with(&self, text: &str) -> String {
        for _ in 0..200 {
            if self.trail().contains(text) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.trail()
    }

    async fn ask(&self, name: &[u8], mode: &str, direction: Direction, options: &[(&str, &str)]) -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let options =
            options.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect();
        let request = Packet::Request(Request { direction, name: name.to_vec(), mode: mode.into(), options });
        socket.send_to(&request.encode().unwrap(), self.server).await.unwrap();
        socket
    }

    async fn error(&self, name: &[u8], mode: &str, direction: Direction) -> u16 {
        let socket = self.ask(name, mode, direction, &[]).await;
        let (bytes, _) = receive(&socket).await;
        match Packet::decode(&bytes).unwrap() {
            Packet::Error { code, .. } => code,
            other => panic!("{other:?}"),
        }
    }

    async fn fetch(&self, name: &str, options: &[(&str, &str)], block_size: usize) -> (Vec<u8>, Options) {
        let socket = self.ask(name.as_bytes(), "octet", Direction::Read, options).await;
        let (mut content, mut agreed) = (Vec::new(), Vec::new());
        loop {
            let (bytes, from) = receive(&socket).await;
            assert_ne!(from.port(), self.server.port(), "a transfer has a port of its own");
            match Packet::decode(&bytes).unwrap() {
                Packet::OptionAck(options) => {
                    agreed = options;
                    ack(&socket, 0, from).await;
                }
                Packet::Data { block, data } => {
                    content.extend_from_slice(data);
                    ack(&socket, block, from).await;
                    if data.len() < block_size {
                        return (content, agreed);
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

async fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 70_000];
    let (length, from) = timeout(Duration::from_secs(10), socket.recv_from(&mut buffer)).await.unwrap().unwrap();
    buffer.truncate(length);
    (buffer, from)
}

async fn ack(socket: &UdpSocket, block: u16, to: SocketAddr) {
    socket.send_to(&Packet::Ack(block).encode().unwrap(), to).await.unwrap();
}

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i % 253) as u8).collect()
}

#[tokio::test]
async fn files_arrive_whole_with_and_without_options() {
    let lab = Lab::start(UdpSettings { block_bytes: 65464.try_into().unwrap(), ..UdpSettings::default() }).await;
    let list = content(5120);
    lab.publish("ITLFile.tlv", &list);
    assert_eq!(lab.fetch("ITLFile.tlv", &[], 512).await.0, list);
    assert_eq!(lab.fetch("ITLSEP001122334455.tlv", &[("blksize", "1428")], 1428).await.0, list);
    let (whole, agreed) =
        lab.fetch("ITLFile.tlv", &[("tsize", "0"), ("blksize", "60000"), ("timeout", "2")], 60_000).await;
    assert_eq!(whole, list);
    assert!(agreed.contains(&(b"tsize".to_vec(), b"5120".to_vec())));
    lab.publish("SEP001122334455.cnf.xml.sgn", b"<signed/>");
    assert_eq!(lab.fetch("SEP001122334455.cnf.xml.sgn", &[], 512).await.0, b"<signed/>");
    lab.publish("SEP001122334455.cnf.xml.sgn", b"<signed again/>");
    assert_eq!(lab.fetch("SEP001122334455.cnf.xml.sgn", &[], 512).await.0, b"<signed again/>");
    assert_eq!(lab.trail(), "");
}

#[tokio::test]
async fn what_may_not_be_had_is_refused_and_audited_and_what_is_absent_is_not() {
    let lab = Lab::start(UdpSettings::default()).await;
    lab.publish("ITLFile.tlv", b"list");
    lab.publish("SEP001122334455.cnf.xml", b"<bare/>");
    fs::write(lab.folder.path().join("secret"), b"key").unwrap();
    for name in ["CTLFile.tlv", "CTLSEP001122334455.tlv", "SEP001122334455.cnf.xml.sgn", "RINGLIST.XML"] {
        assert_eq!(lab.error(name.as_bytes(), "octet", Direction::Read).await, 1, "{name}");
    }
    assert_eq!(lab.trail(), "");
    for name in [&b"../secret"[..], b"/etc/passwd", b"SEP001122334455.cnf.xml", &[b'a'; 200]] {
        assert_eq!(lab.error(name, "octet", Direction::Read).await, 2);
    }
    assert_eq!(lab.error(b"ITLFile.tlv", "octet", Direction::Write).await, 2);
    assert_eq!(lab.error(b"ITLFile.tlv", "netascii", Direction::Read).await, 4);
    let trail = lab.trail();
    assert_eq!(trail.matches("FileRefused").count(), 6, "{trail}");
    assert!(trail.contains("../secret"), "{trail}");
}

#[tokio::test]
async fn a_stranger_is_told_so_and_the_transfer_goes_on() {
    let lab = Lab::start(UdpSettings::default()).await;
    let list = content(1000);
    lab.publish("ITLFile.tlv", &list);
    let client = lab.ask(b"ITLFile.tlv", "octet", Direction::Read, &[]).await;
    let (first, transfer) = receive(&client).await;
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    ack(&stranger, 1, transfer).await;
    let (told, _) = receive(&stranger).await;
    assert!(matches!(Packet::decode(&told).unwrap(), Packet::Error { code: 5, .. }));
    ack(&client, 1, transfer).await;
    let (second, _) = receive(&client).await;
    assert_eq!([&first[4..], &second[4..]].concat(), list);
}

#[tokio::test]
async fn a_lost_packet_is_repeated_and_a_silent_client_given_up() {
    let settings = UdpSettings { timeout_ms: 20.try_into().unwrap(), retries: 2, ..UdpSettings::default() };
    let lab = Lab::start(settings).await;
    lab.publish("ITLFile.tlv", &content(1000));
    let client = lab.ask(b"ITLFile.tlv", "octet", Direction::Read, &[]).await;
    let (first, _) = receive(&client).await;
    assert_eq!(receive(&client).await.0, first);
    assert_eq!(receive(&client).await.0, first);
    let trail = lab.trail_with("ConnectionTimedOut").await;
    assert!(trail.contains("acknowledging block 1"), "{trail}");
    assert!(timeout(Duration::from_millis(300), client.recv(&mut [0; 600])).await.is_err(), "sent after giving up");
}

#[tokio::test]
async fn transfers_of_one_address_are_limited_and_places_come_back() {
    let settings = UdpSettings {
        transfers_per_address: 2,
        timeout_ms: 1000.try_into().unwrap(),
        retries: 0,
        ..UdpSettings::default()
    };
    let lab = Lab::start(settings).await;
    lab.publish("ITLFile.tlv", b"list");
    let held = [
        lab.ask(b"ITLFile.tlv", "octet", Direction::Read, &[]).await,
        lab.ask(b"ITLFile.tlv", "octet", Direction::Read, &[]).await,
    ];
    for socket in &held {
        receive(socket).await;
    }
    let third = lab.ask(b"ITLFile.tlv", "octet", Direction::Read, &[]).await;
    assert!(timeout(Duration::from_millis(40), third.recv(&mut [0; 600])).await.is_err());
    assert!(lab.trail_with("ConnectionRefused").await.contains("connections-per-address"));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(lab.fetch("ITLFile.tlv", &[], 512).await.0, b"list");
}

#[tokio::test]
async fn a_transfer_has_an_end_in_time() {
    let lab = Lab::start(UdpSettings { transfer_ms: 100, ..UdpSettings::default() }).await;
    lab.publish("ITLFile.tlv", &content(1000));
    let client = lab.ask(b"ITLFile.tlv", "octet", Direction::Read, &[]).await;
    let (_, transfer) = receive(&client).await;
    ack(&client, 1, transfer).await;
    receive(&client).await;
    let (last, _) = receive(&client).await;
    assert!(matches!(Packet::decode(&last).unwrap(), Packet::Error { code: 0, .. }));
    assert!(lab.trail_with("ConnectionTimedOut").await.contains("transfer-ms"));
}

#[tokio::test]
async fn requests_that_nobody_acknowledges_hold_no_transfer() {
    let settings = UdpSettings { transfers: 1, unproven: 8, ..UdpSettings::default() };
    let lab = Lab::start(settings).await;
    let list = content(2000);
    lab.publish("ITLFile.tlv", &list);
    for _ in 0..7 {
        let forged = lab.ask(b"ITLFile.tlv", "octet", Direction::Read, &[]).await;
        receive(&forged).await;
    }
    assert_eq!(lab.fetch("ITLFile.tlv", &[], 512).await.0, list);
    assert_eq!(lab.trail(), "");
}

#[tokio::test]
async fn a_request_that_nobody_acknowledges_ends_soon_whatever_it_asks_for() {
    let settings = UdpSettings { unproven: 1, unproven_ms: 300, ..UdpSettings::default() };
    let lab = Lab::start(settings).await;
    lab.publish("ITLFile.tlv", &content(2000));
    let forged = lab.ask(b"ITLFile.tlv", "octet", Direction::Read, &[("timeout", "10")]).await;
    receive(&forged).await;
    let refused = lab.ask(b"ITLFile.tlv", "octet", Direction::Read, &[]).await;
    assert!(timeout(Duration::from_millis(50), refused.recv(&mut [0; 600])).await.is_err());
    let trail = lab.trail_with("ConnectionTimedOut").await;
    assert!(trail.contains("tftp-unproven") && trail.contains("acknowledging block 0"), "{trail}");
    assert_eq!(lab.fetch("ITLFile.tlv", &[], 512).await.0, content(2000));
}

#[tokio::test]
async fn a_client_that_acknowledged_has_the_whole_time() {
    let settings = UdpSettings { unproven: 1, unproven_ms: 100, transfers: 1, ..UdpSettings::default() };
    let lab = Lab::start(settings).await;
    lab.publish("ITLFile.tlv", &content(1000));
    let slow = lab.ask(b"ITLFile.tlv", "octet", Direction::Read, &[]).await;
    let (_, transfer) = receive(&slow).await;
    ack(&slow, 1, transfer).await;
    receive(&slow).await;
    // The second finds a place to prove itself, and none for its transfer.
    let second = lab.ask(b"ITLFile.tlv", "octet", Direction::Read, &[]).await;
    let (_, other) = receive(&second).await;
    ack(&second, 1, other).await;
    let (full, _) = receive(&second).await;
    assert!(matches!(Packet::decode(&full).unwrap(), Packet::Error { code: 0, .. }));
    tokio::time::sleep(Duration::from_millis(300)).await;
    ack(&slow, 2, transfer).await;
    assert_eq!(lab.fetch("ITLFile.tlv", &[], 512).await.0, content(1000));
    assert!(!lab.trail().contains("ConnectionTimedOut"), "{}", lab.trail());
}

#[tokio::test]
async fn garbage_is_audited_and_not_answered() {
    let lab = Lab::start(UdpSettings::default()).await;
    lab.publish("ITLFile.tlv", b"list");
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for bytes in [&b""[..], b"\0\x01no end", b"\xff\xff", &[0x41; 1400], b"\0\x04\0\x01", b"\0\x05\0\0x\0"] {
        socket.send_to(bytes, lab.server).await.unwrap();
    }
    assert_eq!(lab.fetch("ITLFile.tlv", &[], 512).await.0, b"list");
    assert_eq!(lab.trail().matches("ProtocolRefused").count(), 4);
    assert!(timeout(Duration::from_millis(50), socket.recv(&mut [0; 600])).await.is_err());
}
