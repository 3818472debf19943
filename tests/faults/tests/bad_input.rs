//! What phones and strangers do wrong at CAPF: a refusal, an audit event, nothing lost, and the service is up afterwards.
#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use casemate_faults::Caller;
use casemate_harness::{Lab, LabSettings, Ports};
use casemate_phone::{
    PhoneError,
    capf::{Command, Fault, Outcome, Step},
};
use socket2::{Domain, Socket, Type};

const PHONE: &str = "SEP001122334455";

/// A lab whose CAPF waits two seconds for a silent phone, with one phone added.
fn lab(name: &str, add: &[&str]) -> Lab {
    lab_with(name, add, &[])
}

/// The same with more lines in sections of the settings.
fn lab_with(name: &str, add: &[&str], more: &[(&'static str, &str)]) -> Lab {
    let mut extra = vec![("capf", "session = { step-ms = 2000 }".to_owned())];
    extra.extend(more.iter().map(|(section, lines)| (*section, (*lines).to_owned())));
    let lab = Lab::start(LabSettings { extra, ..LabSettings::for_test(name) }).unwrap();
    lab.add_phone(PHONE, &[&["--key", "p-256"], add].concat()).unwrap();
    lab
}

fn ended_with(outcome: &Result<Outcome, PhoneError>, expected: u8) -> bool {
    matches!(outcome, Err(PhoneError::CapfEnded { reason }) if *reason == expected)
}

fn installed(outcome: &Result<Outcome, PhoneError>) -> bool {
    matches!(outcome, Ok(Outcome::Installed(_)))
}

#[test]
fn five_wrong_strings_lock_a_device_until_the_operator_acts() {
    let lab = lab("faults-string", &["--string", "24681357"]);
    for _ in 0..5 {
        let wrong = Caller::new(&lab, PHONE, Some("11111111")).unwrap().enrol();
        assert!(ended_with(&wrong, 7), "{wrong:?}");
    }
    let right = Caller::new(&lab, PHONE, Some("24681357")).unwrap();
    let locked = right.enrol();
    assert!(locked.is_err(), "the right string after five wrong ones: {locked:?}");
    assert_eq!(lab.audited("DeviceLocked").unwrap().len(), 1);
    lab.wait_for("an event a refusal", Duration::from_secs(5), || lab.audited("EnrolmentRefused").unwrap().len() == 6)
        .unwrap();
    lab.add_phone(PHONE, &["--key", "p-256", "--string", "97531864"]).unwrap();
    assert!(installed(&Caller::new(&lab, PHONE, Some("97531864")).unwrap().enrol()));
}

#[test]
fn an_unknown_device_is_told_so() {
    let lab = lab("faults-unknown", &["--null-string"]);
    let unknown = Caller::new(&lab, "SEPFFFFFFFFFFFF", None).unwrap().enrol();
    assert!(ended_with(&unknown, 9), "{unknown:?}");
    assert_eq!(lab.wait_for_events("EnrolmentRefused", 1).unwrap().len(), 1);
    assert!(installed(&Caller::new(&lab, PHONE, None).unwrap().enrol()));
}

#[test]
fn no_string_is_not_the_right_string() {
    let lab = lab("faults-no-string", &["--string", "24681357"]);
    let without = Caller::new(&lab, PHONE, None).unwrap().enrol();
    assert!(ended_with(&without, 7), "{without:?}");
    assert!(lab.audited("CertificateIssued").unwrap().is_empty());
}

#[test]
fn a_message_in_ten_writes_is_a_message() {
    let lab = lab("faults-split", &["--null-string"]);
    let split = |message| Fault::Split { message, writes: 10, pause: Duration::from_millis(20) };
    let faults = vec![split(Command::AuthResponse), split(Command::KeyGenResponse), split(Command::StoreCertResponse)];
    let outcome = Caller::new(&lab, PHONE, None).unwrap().with(faults, Duration::ZERO).enrol();
    assert!(installed(&outcome), "{outcome:?}");
}

#[test]
fn a_wrong_length_and_a_message_that_never_ends_are_refused_in_time() {
    let lab = lab("faults-length", &["--null-string"]);
    let caller = Caller::new(&lab, PHONE, None).unwrap();
    for command in [Command::AuthResponse, Command::KeyGenResponse] {
        for fault in [
            Fault::WrongLength { message: command, by: -3 },
            Fault::WrongLength { message: command, by: 5 },
            Fault::WrongLength { message: command, by: i16::MAX },
            Fault::NeverEnd(command),
        ] {
            let outcome = caller.with(vec![fault], Duration::from_secs(6)).enrol();
            assert!(!installed(&outcome), "{fault:?}: {outcome:?}");
        }
    }
    let told = || {
        let count = |event| lab.audited(event).unwrap().len();
        count("ProtocolRefused") + count("ConnectionTimedOut") + count("EnrolmentRefused")
    };
    lab.wait_for("an event for each of the eight faults", Duration::from_secs(5), || told() == 8).unwrap();
    assert!(installed(&caller.enrol()));
}

#[test]
fn a_phone_that_stops_anywhere_can_begin_again() {
    let lab = lab("faults-stop", &["--string", "1357"]);
    let caller = Caller::new(&lab, PHONE, Some("1357")).unwrap();
    let steps = [
        Step::Connected,
        Step::ClientHello,
        Step::Handshake,
        Step::Received(Command::AuthRequest),
        Step::Sent(Command::AuthResponse),
        Step::Received(Command::KeyGenRequest),
        Step::Sent(Command::KeyGenResponse),
        Step::Received(Command::StoreCertRequest),
    ];
    for step in steps {
        let outcome = caller.with(vec![Fault::StopAfter(step)], Duration::from_millis(50)).enrol();
        assert!(matches!(outcome, Ok(Outcome::Silent(_))), "{step:?}: {outcome:?}");
        // The device's session ends when the server notices that the connection did.
        thread::sleep(Duration::from_millis(200));
    }
    assert!(lab.audited("CertificateDelivered").unwrap().is_empty());
    let Outcome::Installed(_) = caller.enrol().unwrap() else { panic!("the string was used up before the delivery") };
    // The retries had the same key, so there is one certificate.
    assert_eq!(lab.audited("CertificateIssued").unwrap().len(), 1);
    assert_eq!(lab.wait_for_events("CertificateDelivered", 1).unwrap().len(), 1);
    assert!(!installed(&caller.with_new_key().unwrap().enrol()), "the string is used up by the delivery");
}

#[test]
fn a_second_connection_for_the_same_device_waits_its_turn() {
    let lab = lab("faults-second", &["--null-string"]);
    let caller = Caller::new(&lab, PHONE, None).unwrap();
    let first =
        caller.with(vec![Fault::StopAfter(Step::Received(Command::KeyGenRequest))], Duration::from_millis(1200));
    thread::scope(|scope| {
        let first = scope.spawn(|| first.enrol());
        thread::sleep(Duration::from_millis(500));
        let second = caller.enrol();
        assert!(ended_with(&second, 7), "{second:?}");
        assert!(first.join().unwrap().is_ok());
    });
    thread::sleep(Duration::from_millis(200));
    assert!(installed(&caller.enrol()));
    let refused = lab.audited("EnrolmentRefused").unwrap();
    assert!(
        refused.iter().any(|event| event["CASEMATE_REASON"].as_str().unwrap().contains("another session")),
        "{refused:?}"
    );
}

/// Connects from another loopback address, as another host would.
fn connect_from(host: u8, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 200, 0, host], 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}

/// How often `service` told that a peer was silent: events, and those that it counted and did not list.
fn silences(lab: &Lab, service: &str) -> u64 {
    let of_service = |event: &str| lab.audited(event).unwrap().into_iter().filter(|e| e["CASEMATE_SERVICE"] == service);
    let suppressed = |event: serde_json::Value| event["CASEMATE_SUPPRESSED"].as_str().unwrap().parse::<u64>().unwrap();
    of_service("ConnectionTimedOut").count() as u64 + of_service("ConnectionRefused").map(suppressed).sum::<u64>()
}

/// Whether the server has closed the connection.
fn is_closed(stream: &TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    match (&mut &*stream).read(&mut [0; 1]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

#[test]
fn a_thousand_idle_connections_leave_room_for_a_phone_and_are_let_go() {
    let lab = lab_with(
        "faults-idle",
        &["--null-string"],
        &[
            ("capf", "limits = { handshake-ms = 5000 }"),
            ("tvs", "connections = { handshake-ms = 5000 }"),
            ("tftp", "connections = { handshake-ms = 5000 }\nhttp = { header-ms = 5000 }"),
        ],
    );
    for port in [Ports::CAPF, Ports::TVS, Ports::HTTP, Ports::HTTPS] {
        let idle: Vec<_> = (0..1000).map(|n| connect_from(1 + (n % 10) as u8, lab.address(port))).collect();
        assert_eq!(idle.len(), 1000);
        if port == Ports::CAPF {
            assert!(installed(&Caller::new(&lab, PHONE, None).unwrap().enrol()));
        }
        if port != Ports::CAPF {
            // A whole start of a phone: files over HTTP or HTTPS, and a question to TVS.
            let (name, via) = match port {
                Ports::HTTP => ("SEP00000000C001", "http"),
                _ => ("SEP00000000C002", "https"),
            };
            lab.add_phone(name, &["--null-string"]).unwrap();
            let tomcat = lab.published("certmgr", "tomcat.pem");
            lab.phone(name).play(&["--via", via, "--ask-about", tomcat.to_str().unwrap()]).unwrap();
        }
        lab.wait_for("idle connections to be closed", Duration::from_secs(10), || idle.iter().all(is_closed)).unwrap();
    }
    // Each of them is in the trail, most of them as a number.
    for daemon in ["capf", "tvs", "tftp"] {
        lab.stop_daemon(daemon).unwrap();
    }
    for service in ["capf", "tvs", "http", "https"] {
        assert_eq!(silences(&lab, service), 1000, "{service}");
    }
}

#[test]
fn a_client_that_stops_in_its_handshake_holds_nobody_up_and_is_told_of() {
    // One place for handshakes: who stalls must not have it.
    let limits = [("capf", "limits = { handshake-ms = 3000, handshakes = 1 }")];
    let lab = lab_with("faults-handshake", &["--null-string"], &limits);
    let caller = Caller::new(&lab, PHONE, None).unwrap();
    let steps = [Step::Connected, Step::ClientHello];
    thread::scope(|scope| {
        let stalled = (0..8).map(|number| {
            let stops = caller.with(vec![Fault::StopAfter(steps[number % 2])], Duration::from_secs(20));
            scope.spawn(move || stops.enrol())
        });
        let stalled: Vec<_> = stalled.collect();
        thread::sleep(Duration::from_millis(500));
        let outcome = caller.enrol();
        assert!(installed(&outcome), "{outcome:?}");
        assert!(stalled.iter().all(|client| !client.is_finished()), "they did not stall while the phone enrolled");
        for client in stalled {
            let outcome = client.join().unwrap();
            assert!(!installed(&outcome), "{outcome:?}");
        }
    });
    let told = lab.wait_for_events("ConnectionTimedOut", 8).unwrap();
    assert!(told.iter().all(|event| event["CASEMATE_STEP"] == "TLS handshake" && event["CASEMATE_SERVICE"] == "capf"));
    assert_eq!(told.len(), 8, "{told:?}");
}

#[test]
fn one_address_cannot_take_every_place() {
    let lab = lab("faults-flood", &["--null-string"]);
    let flood: Vec<_> = (0..400).map(|_| connect_from(1, lab.address(Ports::CAPF))).collect();
    let refused = flood.iter().filter(|stream| {
        stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        matches!((&mut &**stream).read(&mut [0; 1]), Ok(0))
    });
    assert!(refused.count() >= 100, "connections over the limit of one address are closed");
    assert!(!lab.audited("ConnectionRefused").unwrap().is_empty());
    assert!(installed(&Caller::new(&lab, PHONE, None).unwrap().enrol()));
}

/// The first line of what an HTTP server answers to a GET of `path`.
fn http_get(lab: &Lab, path: &str) -> String {
    let mut stream = TcpStream::connect(lab.address(Ports::HTTP)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: casemate\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
}

#[test]
fn a_path_leads_nowhere_but_to_published_files() {
    let lab = lab("faults-paths", &["--null-string"]);
    assert!(http_get(&lab, "/ITLFile.tlv").contains("200"));
    for path in [
        "/../../../../etc/passwd",
        "/..%2f..%2fetc%2fpasswd",
        "/./ITLFile.tlv",
        "//ITLFile.tlv",
        "/ITLFile.tlv%00.sgn",
        "/SEP001122334455.cnf.xml",
        "/.ITLFile.tlv.new",
    ] {
        let status = http_get(&lab, path);
        assert!(status.contains(" 40"), "{path}: {status}");
    }
    let tftp = std::net::UdpSocket::bind((lab.address(Ports::TFTP).ip(), 0)).unwrap();
    tftp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    tftp.send_to(b"\0\x01../../../pins/pin\0octet\0", lab.address(Ports::TFTP)).unwrap();
    let mut buffer = [0; 1500];
    let n = tftp.recv(&mut buffer).unwrap();
    assert_eq!(buffer.get(..2), Some(&[0, 5][..]), "an ERROR packet: {:?}", &buffer[..n]);
    assert!(lab.audited("FileRefused").unwrap().len() >= 3);
    assert!(http_get(&lab, "/ITLFile.tlv").contains("200"));
}
