//! A CAPF that plays the install flow and can do each of its steps wrongly.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use casemate_phone::capf::Command;
use casemate_phone::capf::message::{Message, tag};
use rcgen::CertificateParams;

use super::serve::{Tls, tls};
use super::{Identity, lsc_params};

/// What this CAPF does. The default does everything right for a key of RSA-2048.
pub(crate) struct Script {
    pub(crate) key_request: Vec<(u8, Vec<u8>)>,
    /// The common name and everything else of the certificate.
    pub(crate) params: CertificateParams,
    /// In how many writes the first message goes out.
    pub(crate) writes: usize,
    /// Closes after it sent the certificate, without waiting for the answer.
    pub(crate) dies_after_delivery: bool,
    pub(crate) final_reason: u8,
}

impl Script {
    pub(crate) fn new(device: &str) -> Self {
        Self {
            key_request: vec![(tag::KEY_SIZE, 2048_u16.to_be_bytes().to_vec()), (tag::KEY_TYPE, vec![0])],
            params: lsc_params(device),
            writes: 1,
            dies_after_delivery: false,
            final_reason: 1,
        }
    }
}

/// Serves each session by the script that `next` gives; what the phone sends is told to the receiver.
pub(crate) fn serve(
    identity: Arc<Identity>,
    mut next: impl FnMut() -> Script + Send + 'static,
) -> (u16, Receiver<Message>) {
    let (told, heard) = channel();
    let mut session = 100;
    let port = tls(&Arc::clone(&identity), move |stream| {
        session += 1;
        // A phone that leaves early is what some tests are about.
        let _ = play(stream, session, &identity, &next(), &told);
    });
    (port, heard)
}

fn play(stream: &mut Tls, session: u32, capf: &Identity, script: &Script, told: &Sender<Message>) -> Option<()> {
    let message = |command| Message::new(command, session);
    let first = message(Command::AuthRequest).with(tag::VERSION, [3]).encode().unwrap();
    for piece in first.chunks(first.len().div_ceil(script.writes)) {
        stream.write_all(piece).ok()?;
        stream.flush().ok()?;
        if script.writes > 1 {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
    hear(stream, told)?;
    let request = script
        .key_request
        .iter()
        .fold(message(Command::KeyGenRequest), |message, (tag, value)| message.with(*tag, value.clone()));
    say(stream, &request)?;
    let mut answer = hear(stream, told)?;
    while answer.command == Command::RequestInProgress {
        answer = hear(stream, told)?;
    }
    let lsc = capf.issue(&capf.name, &script.params, answer.get(tag::PUBLIC_KEY)?);
    let inner = super::files::element(1, &[&[0, 1], &lsc[..]].concat());
    say(stream, &message(Command::StoreCertRequest).with(tag::CERT_TYPE, [1]).with(tag::CERTIFICATE, inner))?;
    if script.dies_after_delivery {
        return None;
    }
    hear(stream, told)?;
    say(stream, &message(Command::EndSession).with(tag::REASON, [script.final_reason]))
}

fn say(stream: &mut Tls, message: &Message) -> Option<()> {
    stream.write_all(&message.encode().unwrap()).ok()?;
    stream.flush().ok()
}

/// The phone's next message, in however many pieces.
fn hear(stream: &mut Tls, told: &Sender<Message>) -> Option<Message> {
    let mut bytes = Vec::new();
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        bytes.push(byte[0]);
        if let Some((message, _)) = Message::decode(&bytes).ok()? {
            let _ = told.send(message.clone());
            return Some(message);
        }
    }
}
