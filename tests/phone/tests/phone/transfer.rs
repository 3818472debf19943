//! Files over the network: what is fetched, from whom, and what a lossy or foreign server changes.

use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use casemate_phone::PhoneError;
use casemate_phone::tls::TlsVersions;
use casemate_phone::transfer::{http, tftp};

use crate::fake::Identity;
use crate::fake::serve::{endpoint, read_get, tcp, tls, write_answer};

#[test]
fn http_tells_a_file_from_absence_and_refusal() {
    let port = tcp(|mut stream| {
        use std::io::Write;
        match read_get(&mut stream).unwrap().as_str() {
            "a.tlv" => write_answer(&mut stream, Some(&[7; 5000])).unwrap(),
            "broken" => stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort").unwrap(),
            "huge" => stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n").unwrap(),
            "error" => stream.write_all(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n").unwrap(),
            _ => write_answer(&mut stream, None).unwrap(),
        }
    });
    let server = endpoint("HTTP", port);
    assert_eq!(http::fetch(&server, "a.tlv").unwrap(), [7; 5000]);
    assert!(matches!(http::fetch(&server, "b.tlv"), Err(PhoneError::NotFound { .. })));
    assert!(matches!(http::fetch(&server, "broken"), Err(PhoneError::Malformed { .. })));
    assert!(matches!(http::fetch(&server, "huge"), Err(PhoneError::Malformed { .. })));
    assert!(matches!(http::fetch(&server, "error"), Err(PhoneError::FileRefused { .. })));
    assert!(matches!(http::fetch(&server, "a b\r\n"), Err(PhoneError::Setting(_))));
}

#[test]
fn https_is_fetched_only_from_a_listed_certificate() {
    let served = Identity::ec("tftpec");
    let port = tls(&served, |stream| {
        if read_get(stream).is_ok() {
            write_answer(stream, Some(b"<device/>")).unwrap();
        }
    });
    let server = endpoint("HTTPS", port);
    let fetch = |certificates| http::fetch_tls(&server, "a", TlsVersions::Both, certificates);
    assert_eq!(fetch(vec![Identity::ec("x").certificate, served.certificate.clone()]).unwrap(), b"<device/>");
    for certificates in [vec![], vec![Identity::ec("tftpec").certificate]] {
        assert!(matches!(fetch(certificates), Err(PhoneError::ServerCertificate { service: "HTTPS" })));
    }
}

/// Ignores the first request, repeats block 1, and lets a stranger answer in between.
#[test]
fn tftp_survives_loss_repetition_and_strangers() {
    let door = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = door.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        let mut buffer = [0; 600];
        let (first, _) = door.recv_from(&mut buffer).unwrap();
        let request = buffer[..first].to_vec();
        let (again, phone) = door.recv_from(&mut buffer).unwrap();
        assert_eq!(request, buffer[..again], "the request is repeated unchanged");
        let transfer = UdpSocket::bind("127.0.0.1:0").unwrap();
        let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
        for socket in [&transfer, &stranger] {
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        }
        let data = |block: u8, byte: u8, size: usize| [&[0, 3, 0, block][..], &vec![byte; size]].concat();
        let expect = |socket: &UdpSocket, wanted: &[u8]| {
            let mut buffer = [0; 600];
            let (length, _) = socket.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], wanted);
        };
        transfer.send_to(&data(1, 1, 512), phone).unwrap();
        expect(&transfer, &[0, 4, 0, 1]);
        stranger.send_to(&data(2, 9, 3), phone).unwrap();
        expect(&stranger, &[0, 5, 0, 5, 0]);
        transfer.send_to(&data(1, 1, 512), phone).unwrap();
        expect(&transfer, &[0, 4, 0, 1]);
        transfer.send_to(&data(2, 2, 3), phone).unwrap();
        expect(&transfer, &[0, 4, 0, 2]);
    });
    let options = tftp::Options { wait: Duration::from_millis(100), ..tftp::Options::default() };
    let file = tftp::fetch(&endpoint("TFTP", port), "a.tlv", options).unwrap();
    server.join().unwrap();
    assert_eq!(file, [&[1; 512][..], &[2; 3]].concat());
}

#[test]
fn a_silent_tftp_server_is_given_up() {
    let door = UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = endpoint("TFTP", door.local_addr().unwrap().port());
    let options = tftp::Options { wait: Duration::from_millis(20), repeats: 2, ..tftp::Options::default() };
    let error = tftp::fetch(&server, "a.tlv", options).unwrap_err();
    assert!(matches!(error, PhoneError::TimedOut { service: "TFTP" }), "{error}");
    door.set_nonblocking(true).unwrap();
    let requests = std::iter::from_fn(|| door.recv(&mut [0; 600]).ok()).count();
    assert_eq!(requests, 3, "one request and two repetitions");
}
