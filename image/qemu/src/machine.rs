//! The processes of a guest. Each is killed with the thread that started it, and what it started in the tools tree with it.

use std::{
    fs::{self, File},
    io::{PipeReader, Read},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::{GuestError, GuestSettings};

/// The firmware with System Management Mode, which keeps the kernel's hands off the keys.
const FIRMWARE: &str = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd";

/// A child that ends with us.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// Open as long as the child, or what it started in the tools tree, lives: the other end is their standard input.
    alive: PipeReader,
}

impl Process {
    /// Whether it ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended; `--kill-child` of image/tools takes what is in the tree along.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // QEMU dies a moment after what started it, and holds the disk until then.
        let _ = self.alive.read(&mut [0]);
    }
}

/// A command in the tools tree, which dies with the thread that starts it.
fn in_tree(settings: &GuestSettings) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(&settings.tools);
    command.process_group(0);
    command
}

fn spawn(mut command: Command, name: &str, log: &Path) -> Result<Process, GuestError> {
    let output = File::create(log).map_err(GuestError::file(log))?;
    let errors = output.try_clone().map_err(GuestError::file(log))?;
    let failed = |source| GuestError::Run { program: name.to_owned(), source };
    let (alive, input) = std::io::pipe().map_err(failed)?;
    let child = command.stdin(input).stdout(output).stderr(errors).spawn().map_err(failed)?;
    Ok(Process { child, alive })
}

/// A new disk over the built one, a new TPM, and the firmware as it leaves the factory.
pub(crate) fn renew(settings: &GuestSettings) -> Result<(), GuestError> {
    for name in ["disk.qcow2", "firmware-vars.fd"] {
        remove(&settings.file(name), fs::remove_file)?;
    }
    remove(&settings.file("tpm"), fs::remove_dir_all)?;
    fs::create_dir_all(settings.file("tpm")).map_err(GuestError::file(settings.file("tpm")))?;
    fs::copy(&settings.firmware, settings.file("firmware-vars.fd")).map_err(GuestError::file(&settings.firmware))?;
    let mut create = in_tree(settings);
    create.args(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b"]).arg(&settings.disk);
    create.arg(settings.file("disk.qcow2")).arg(&settings.disk_size);
    finish(create, "qemu-img").map(drop)
}

pub(crate) fn tool(settings: &GuestSettings, program: &str, arguments: &[&str]) -> Result<Vec<u8>, GuestError> {
    let mut command = in_tree(settings);
    command.arg(program).args(arguments);
    finish(command, program)
}

fn finish(mut command: Command, program: &str) -> Result<Vec<u8>, GuestError> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|source| GuestError::Run { program: program.to_owned(), source })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let text = [output.stdout, output.stderr].concat();
    Err(GuestError::Failed { program: program.to_owned(), output: String::from_utf8_lossy(&text).trim().to_owned() })
}

fn remove(path: &Path, how: fn(std::path::PathBuf) -> std::io::Result<()>) -> Result<(), GuestError> {
    match how(path.to_owned()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(GuestError::file(path)(error)),
        _ => Ok(()),
    }
}

pub(crate) fn swtpm(settings: &GuestSettings) -> Result<Process, GuestError> {
    let mut command = in_tree(settings);
    command.args(["swtpm", "socket", "--tpm2", "--flags", "startup-clear", "--tpmstate"]);
    command.arg(format!("dir={}", settings.file("tpm").display())).arg("--ctrl");
    command.arg(format!("type=unixio,path={}", settings.file("tpm.sock").display()));
    spawn(command, "swtpm", &settings.file("swtpm.log"))
}

pub(crate) fn qemu(settings: &GuestSettings) -> Result<Process, GuestError> {
    let file = |name: &str| settings.file(name).display().to_string();
    let mut command = in_tree(settings);
    command.args(["qemu-system-x86_64", "-machine", "q35,smm=on", "-accel", "tcg,thread=multi", "-cpu", "max"]);
    command.args(["-m", &settings.memory.to_string(), "-smp", &settings.processors.to_string()]);
    command.args(["-nodefaults", "-display", "none", "-no-reboot"]);
    command.args(["-rtc", &format!("base={}", settings.clock)]);
    // The machine's own number, from which it derives its machine-id.
    command.args(["-uuid", "3e0d2a5c-5f0b-4c33-8a77-1d0c5e9b7f42"]);
    command.args(["-global", "driver=cfi.pflash01,property=secure,value=on"]);
    let flash = |unit: u8, path: &str, more: &str| format!("if=pflash,format=raw,unit={unit},file={path}{more}");
    command.args(["-drive", &flash(0, FIRMWARE, ",readonly=on"), "-drive", &flash(1, &file("firmware-vars.fd"), "")]);
    command.args(["-chardev", &format!("socket,id=tpm,path={}", file("tpm.sock"))]);
    command.args(["-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm0"]);
    command.args(["-drive", &format!("if=none,id=disk,format=qcow2,file={}", file("disk.qcow2"))]);
    command.args(["-device", "virtio-blk-pci,drive=disk", "-device", "virtio-rng-pci"]);
    let rules = settings.forwarded.iter().map(|forward| forward.rule(settings.address));
    let forwarded: String = rules.map(|rule| format!(",{rule}")).collect();
    command.args(["-netdev", &format!("user,id=net{forwarded}"), "-device", "virtio-net-pci,netdev=net"]);
    // Every packet, of both directions.
    command.args(["-object", &format!("filter-dump,id=dump,netdev=net,file={}", file("network.pcap"))]);
    // The guest's kernel says by it how much memory is in use.
    command.args(["-device", "virtio-balloon-pci,id=balloon"]);
    command.args(["-chardev", &format!("socket,id=qmp,server=on,wait=off,path={}", file("qmp.sock"))]);
    command.args(["-mon", "chardev=qmp,mode=control"]);
    command.args(["-serial", &format!("file:{}", file("serial.log")), "-device", "virtio-serial-pci"]);
    command.args(["-chardev", &format!("file,id=journal,path={}", file("journal.jsonl"))]);
    command.args(["-device", "virtserialport,chardev=journal,name=casemate.journal"]);
    command.args(["-chardev", &format!("socket,id=console,server=on,wait=off,path={}", file("console.sock"))]);
    command.args(["-device", "virtconsole,chardev=console"]);
    spawn(command, "qemu-system-x86_64", &settings.file("qemu.log"))
}
