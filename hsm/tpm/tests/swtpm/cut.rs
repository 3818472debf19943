//! A wire to the TPM that breaks at one command.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// `TPM_CC_Unseal` (TPM 2.0 part 2, 6.5.2).
const UNSEAL: [u8; 4] = 0x0000_015e_u32.to_be_bytes();

/// A second address of an swtpm. Every command reaches it but `TPM2_Unseal`, at which the connection ends: whoever logs in
/// never learns what the TPM made of the PIN.
pub(crate) struct Cut {
    pub(crate) port: u16,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Cut {
    /// Before the swtpm at `target` and its control channel, the next port.
    pub(crate) fn before_unseal(target: u16) -> Self {
        let (commands, control) = neighbours();
        let over = Arc::new(AtomicBool::new(false));
        let port = commands.local_addr().unwrap().port();
        let serve = |listener: TcpListener, to: u16, cuts: bool| {
            let over = Arc::clone(&over);
            thread::spawn(move || {
                while let Ok((near, _)) = listener.accept() {
                    if over.load(Ordering::SeqCst) {
                        return;
                    }
                    // Whatever ends it, it is over for both ends.
                    let _ = TcpStream::connect(("127.0.0.1", to)).and_then(|far| carry(&near, &far, cuts));
                    let _ = near.shutdown(Shutdown::Both);
                }
            })
        };
        let threads = vec![serve(commands, target, true), serve(control, target + 1, false)];
        Self { port, over, threads }
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        for port in [self.port, self.port + 1] {
            // Wakes the thread that accepts.
            drop(TcpStream::connect(("127.0.0.1", port)));
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// One command and one response after the other, as the C library sends them; or, on the control channel, whatever comes.
fn carry(near: &TcpStream, far: &TcpStream, cuts: bool) -> io::Result<()> {
    let (mut from, mut to) = (near.try_clone()?, far.try_clone()?);
    let back = {
        let (mut from, mut to) = (far.try_clone()?, near.try_clone()?);
        thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Both);
        })
    };
    let mut buffer = [0; 8192];
    loop {
        let length = from.read(&mut buffer)?;
        // Tag, size and code of a command.
        if length == 0 || (cuts && buffer[..length].get(6..10) == Some(&UNSEAL)) {
            break;
        }
        to.write_all(&buffer[..length])?;
    }
    far.shutdown(Shutdown::Both)?;
    let _ = back.join();
    Ok(())
}

fn neighbours() -> (TcpListener, TcpListener) {
    loop {
        let first = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = first.local_addr().unwrap().port();
        if port < u16::MAX
            && let Ok(second) = TcpListener::bind(("127.0.0.1", port + 1))
        {
            return (first, second);
        }
        thread::sleep(Duration::from_millis(1));
    }
}
