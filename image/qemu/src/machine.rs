//! The processes of a guest. Each is killed with the thread that started it, and what it started in the tools tree with it.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::{GuestError, GuestSettings};

/// The size of the guest's disk: what the image leaves free becomes the data partition.
const DISK: &str = "4G";

/// The firmware with System Management Mode, which keeps the kernel's hands off the keys.
const FIRMWARE: &str = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd";

/// A child that ends with us.
#[derive(Debug)]
pub(crate) struct Process(Child);

impl Process {
    /// Whether it ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended; `--kill-child` of image/tools takes what is in the tree along.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A command in the tools tree, which dies with the thread that starts it.
fn in_tree(settings: &GuestSettings) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(&settings.tools);
    command.process_group(0).stdin(Stdio::null());
    command
}

fn spawn(mut command: Command, name: &str, log: &Path) -> Result<Process, GuestError> {
    let output = File::create(log).map_err(GuestError::file(log))?;
    let errors = output.try_clone().map_err(GuestError::file(log))?;
    command.stdout(output).stderr(errors);
    command.spawn().map(Process).map_err(|source| GuestError::Run { program: name.to_owned(), source })
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
    create.arg(settings.file("disk.qcow2")).arg(DISK);
    let output = create.output().map_err(|source| GuestError::Run { program: "qemu-img".into(), source })?;
    if output.status.success() {
        return Ok(());
    }
    let output = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(GuestError::Failed { program: "qemu-img".into(), output })
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
    command.args(["-nodefaults", "-display", "none", "-monitor", "none", "-no-reboot"]);
    // The machine's own number, from which it derives its machine-id.
    command.args(["-uuid", "3e0d2a5c-5f0b-4c33-8a77-1d0c5e9b7f42"]);
    command.args(["-global", "driver=cfi.pflash01,property=secure,value=on"]);
    let flash = |unit: u8, path: &str, more: &str| format!("if=pflash,format=raw,unit={unit},file={path}{more}");
    command.args(["-drive", &flash(0, FIRMWARE, ",readonly=on"), "-drive", &flash(1, &file("firmware-vars.fd"), "")]);
    command.args(["-chardev", &format!("socket,id=tpm,path={}", file("tpm.sock"))]);
    command.args(["-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm0"]);
    command.args(["-drive", &format!("if=none,id=disk,format=qcow2,file={}", file("disk.qcow2"))]);
    command.args(["-device", "virtio-blk-pci,drive=disk", "-device", "virtio-rng-pci"]);
    let forwarded: String = settings.forwarded.iter().map(|forward| format!(",{forward}")).collect();
    command.args(["-netdev", &format!("user,id=net{forwarded}"), "-device", "virtio-net-pci,netdev=net"]);
    command.args(["-serial", &format!("file:{}", file("serial.log")), "-device", "virtio-serial-pci"]);
    command.args(["-chardev", &format!("file,id=journal,path={}", file("journal.jsonl"))]);
    command.args(["-device", "virtserialport,chardev=journal,name=casemate.journal"]);
    command.args(["-chardev", &format!("socket,id=console,server=on,wait=off,path={}", file("console.sock"))]);
    command.args(["-device", "virtconsole,chardev=console"]);
    spawn(command, "qemu-system-x86_64", &settings.file("qemu.log"))
}
