use std::{
    fs,
    io::{self, ErrorKind, Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    process::Command,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use casemate_harness::{Lab, LabError};

/// `TPM_CC_Sign` (TPM 2.0 part 2, 6.5.2).
const SIGN: u32 = 0x0000_015d;

/// Tag, length and code before every command and every answer (TPM 2.0 part 1, 18.3 and 18.4).
const HEADER: usize = 10;

/// No command and no answer of a TPM is longer.
const LONGEST: usize = 1 << 16;

/// The wire between the lab's TPM and everybody who uses it, with a hand on it. swtpm serves one connection at a time; here any
/// number come, and each command gets its turn: as on a TPM that several programs share with no resource manager in between. What
/// it answers can be changed on the way, which no real TPM offers.
pub struct Bus {
    /// The port for commands; the next one is the control channel.
    port: u16,
    wire: Arc<Wire>,
}

/// What goes wrong with each answer to `TPM2_Sign`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Noise {
    /// One bit of the signature is another.
    FlippedBit,
    /// The end of the answer is missing, and the length before it says so too.
    CutShort,
    /// The end is missing, and the connection ends there.
    CutOff,
}

struct Wire {
    upstream: u16,
    /// The one connection to swtpm.
    tpm: Mutex<Option<TcpStream>>,
    noise: Mutex<Option<Noise>>,
    over: AtomicBool,
}

impl Bus {
    /// Puts the wire between keyd and the TPM of `lab`, whose daemons were not started yet.
    ///
    /// # Errors
    /// The lab's files are not as they are known here, or there are no ports.
    pub fn before_the_tpm_of(lab: &Lab) -> Result<Self, LabError> {
        let config = lab.layout.config();
        let text = fs::read_to_string(&config).map_err(LabError::file(&config))?;
        let upstream = tpm_port(lab)?;
        let failed = |error: io::Error| LabError::Failed { program: "the bus".into(), output: error.to_string() };
        let (commands, control) = two_ports().map_err(failed)?;
        let port = commands.local_addr().map_err(failed)?.port();
        let wire =
            Arc::new(Wire { upstream, tpm: Mutex::default(), noise: Mutex::default(), over: AtomicBool::new(false) });
        for (listener, serve) in [(commands, Wire::commands as fn(&Wire, TcpStream)), (control, Wire::control)] {
            let wire = Arc::clone(&wire);
            thread::spawn(move || {
                for client in listener.incoming() {
                    if wire.over.load(Ordering::Acquire) {
                        return;
                    }
                    let (Ok(client), wire) = (client, Arc::clone(&wire)) else { continue };
                    thread::spawn(move || serve(&wire, client));
                }
            });
        }
        let (address, ours) = (format!("{{ swtpm = {upstream} }}"), format!("{{ swtpm = {port} }}"));
        if !text.contains(&address) {
            return Err(LabError::Failed { program: config.display().to_string(), output: format!("no {address}") });
        }
        fs::write(&config, text.replace(&address, &ours)).map_err(LabError::file(&config))?;
        Ok(Self { port, wire })
    }

    /// What happens to signatures from now on, or nothing any more.
    pub fn disturb(&self, noise: Option<Noise>) {
        *lock(&self.wire.noise) = noise;
    }

    /// Another program at the same TPM, of the package tpm2-tools; what it printed, or what it complained of.
    ///
    /// # Errors
    /// It is not installed, or failed.
    pub fn tool(&self, program: &str, arguments: &[&str]) -> Result<String, LabError> {
        tool(self.port, program, arguments)
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.wire.over.store(true, Ordering::Release);
        for port in [self.port, self.port + 1] {
            // The listener wakes up and sees that it is over.
            let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
        }
    }
}

/// The port on which the lab's swtpm takes commands, as keyd is told.
///
/// # Errors
/// The lab has no TPM.
pub fn tpm_port(lab: &Lab) -> Result<u16, LabError> {
    let config = lab.layout.config();
    let text = fs::read_to_string(&config).map_err(LabError::file(&config))?;
    let port = text.split_once("{ swtpm = ").and_then(|(_, rest)| rest.split_once(' ')?.0.parse().ok());
    port.ok_or_else(|| LabError::Failed { program: config.display().to_string(), output: "no swtpm in it".to_owned() })
}

/// Runs a program of the package tpm2-tools at the swtpm behind `port`.
///
/// # Errors
/// It is not installed, or failed; the text is what it complained of.
pub fn tool(port: u16, program: &str, arguments: &[&str]) -> Result<String, LabError> {
    let failed = |output: String| LabError::Failed { program: format!("{program} {}", arguments.join(" ")), output };
    let output = Command::new(program)
        .args(["-T", &format!("swtpm:host=127.0.0.1,port={port}")])
        .args(arguments)
        .output()
        .map_err(|error| failed(format!("{error}; it is of the package tpm2-tools")))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

impl Wire {
    /// Hands on one client's commands, one at a time, until one of the two is gone.
    fn commands(&self, mut client: TcpStream) {
        while let Ok(command) = message(&mut client) {
            let Ok(mut answer) = self.ask(&command) else { break };
            let noise = if code(&command) == Some(SIGN) { *lock(&self.noise) } else { None };
            if let Some(noise) = noise {
                spoil(&mut answer, noise);
            }
            if client.write_all(&answer).is_err() || noise == Some(Noise::CutOff) {
                break;
            }
        }
        let _ = client.shutdown(Shutdown::Both);
    }

    fn ask(&self, command: &[u8]) -> io::Result<Vec<u8>> {
        let mut tpm = lock(&self.tpm);
        let answer = self.ask_on(&mut tpm, command);
        if answer.is_err() {
            *tpm = None;
        }
        answer
    }

    fn ask_on(&self, tpm: &mut Option<TcpStream>, command: &[u8]) -> io::Result<Vec<u8>> {
        let connection = match tpm {
            Some(connection) => connection,
            None => tpm.insert(TcpStream::connect((Ipv4Addr::LOCALHOST, self.upstream))?),
        };
        connection.write_all(command)?;
        message(connection)
    }

    /// Joins one client's control connection to one of its own.
    fn control(&self, client: TcpStream) {
        let Ok(tpm) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.upstream + 1)) else { return };
        let (Ok(from), Ok(to)) = (client.try_clone(), tpm.try_clone()) else { return };
        let there = thread::spawn(move || join(from, to));
        join(tpm, client);
        let _ = there.join();
    }
}

fn join(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

/// One command or answer.
fn message(from: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; HEADER];
    from.read_exact(&mut bytes)?;
    let length = bytes.get(2..6).and_then(|length| length.try_into().ok()).map(u32::from_be_bytes);
    let length = length.and_then(|length| usize::try_from(length).ok());
    let length = length.filter(|length| (HEADER..LONGEST).contains(length)).ok_or(ErrorKind::InvalidData)?;
    bytes.resize(length, 0);
    from.read_exact(bytes.get_mut(HEADER..).unwrap_or_default())?;
    Ok(bytes)
}

fn code(command: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(command.get(6..HEADER)?.try_into().ok()?))
}

/// An answer that was authorized has, behind the header, the length of its parameters, and the authorizations behind those.
fn spoil(answer: &mut Vec<u8>, noise: Noise) {
    let Some(parameters) = answer.get(HEADER..HEADER + 4).and_then(|length| length.try_into().ok()) else { return };
    let end = HEADER + 4 + u32::from_be_bytes(parameters) as usize;
    match noise {
        Noise::FlippedBit => {
            if let Some(last) = answer.get_mut(end - 1) {
                *last ^= 1;
            }
        }
        Noise::CutShort | Noise::CutOff => {
            answer.truncate(end.saturating_sub(8));
            let length = u32::try_from(answer.len()).unwrap_or(0).to_be_bytes();
            if let (Noise::CutShort, Some(place)) = (noise, answer.get_mut(2..6)) {
                place.copy_from_slice(&length);
            }
        }
    }
}

/// Two neighbouring ports of 127.0.0.1.
fn two_ports() -> io::Result<(TcpListener, TcpListener)> {
    loop {
        let first = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = first.local_addr()?.port();
        if let Some(next) = port.checked_add(1)
            && let Ok(second) = TcpListener::bind((Ipv4Addr::LOCALHOST, next))
        {
            return Ok((first, second));
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
