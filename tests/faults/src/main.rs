//! `casemate-postd-with-fault CONFIG none|stuck|biased|vector NAME`: the power-on self-test of `casemate-postd`, with a fault put
//! where the shipped program has none: a noise source that repeats itself or has a favourite, or a known answer that is not the
//! published one. For tests alone: it is in no package, and the shipped program has no switch for any of this.
#![forbid(unsafe_code)]

use std::{env, error::Error, io, path::Path, process::ExitCode};

use casemate_entropy::{Claim, CpuJitter, NoiseSource};
use casemate_kat::{Hex, Test, Vector};
use casemate_postd::power_on;
use casemate_runtime::config::Config;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("casemate-postd-with-fault: {error}");
            ExitCode::from(2)
        }
    }
}

/// Whether the self-test passed.
fn run() -> Result<bool, Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (mut noise, mut vectors) = (Noise::new(Fault::None), casemate_kat::published());
    let config = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [config, "none"] => config,
        [config, "stuck"] => {
            noise.fault = Fault::Stuck;
            config
        }
        [config, "biased"] => {
            noise.fault = Fault::Biased;
            config
        }
        [config, "vector", name] => {
            flip(vectors.iter_mut().find(|vector| vector.name == name).ok_or("no vector has this name")?);
            config
        }
        _ => return Err("usage: casemate-postd-with-fault CONFIG none|stuck|biased|vector NAME".into()),
    };
    let config = Config::load(Path::new(config))?;
    let report = power_on(&config, &vectors, &mut noise, &mut io::stdout())?;
    Ok(report.failure().is_none())
}

/// Changes the last digit of what must come out.
fn flip(vector: &mut Vector) {
    let (Test::Digest { digest: answer, .. }
    | Test::Hmac { tag: answer, .. }
    | Test::Hkdf { output: answer, .. }
    | Test::Tls12Prf { output: answer, .. }
    | Test::AesGcm { tag: answer, .. }
    | Test::Verify { signature: answer, .. }
    | Test::RsaSign { signature: answer, .. }
    | Test::Pbkdf2 { output: answer, .. }
    | Test::Ecdh { shared: answer, .. }) = &mut vector.test;
    let mut digits = answer.0.to_owned();
    let last = digits.pop();
    digits.push(if last == Some('0') { '1' } else { '0' });
    *answer = Hex(digits.leak());
}

/// What is wrong with the noise.
#[derive(Clone, Copy)]
enum Fault {
    None,
    /// Every sample is the same.
    Stuck,
    /// Nine of ten samples are the same: of the claimed half bit of min-entropy, 0.15 are left.
    Biased,
}

/// The shipped source, or what it would look like if it were broken. It claims what the shipped one claims.
struct Noise {
    jitter: CpuJitter,
    fault: Fault,
    /// Of a xorshift generator (Marsaglia 2003): the fault is the same in each run.
    state: u32,
}

impl Noise {
    fn new(fault: Fault) -> Self {
        Self { jitter: CpuJitter::new(), fault, state: 2_463_534_242 }
    }

    fn biased(&mut self) -> u8 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 17;
        self.state ^= self.state << 5;
        let [value, .., choice] = self.state.to_le_bytes();
        if u32::from(choice) * 10 < 9 * 256 { 0x5a } else { value }
    }
}

impl NoiseSource for Noise {
    fn name(&self) -> &'static str {
        self.jitter.name()
    }

    fn claim(&self) -> Claim {
        self.jitter.claim()
    }

    fn seeds(&self) -> &'static str {
        self.jitter.seeds()
    }

    fn sample(&mut self) -> u8 {
        match self.fault {
            Fault::None => self.jitter.sample(),
            Fault::Stuck => 0x5a,
            Fault::Biased => self.biased(),
        }
    }
}
