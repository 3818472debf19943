//! Disks changed while the machine is off.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use casemate_qemu::GuestSettings;
use serde_json::Value;

/// Where a partition lies, in bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Partition {
    /// Its name in the partition table.
    pub label: String,
    /// GUID of its type, in capitals.
    pub kind: String,
    /// Where it begins.
    pub start: u64,
    /// How long it is.
    pub size: u64,
}

/// The partitions of a raw disk within the checkout.
///
/// # Panics
/// It has no partition table.
#[must_use]
pub fn partitions(settings: &GuestSettings, disk: &Path) -> Vec<Partition> {
    let text = settings.tool("sfdisk", &["--json", &disk.display().to_string()]).expect("the disk has partitions");
    let table: Value = serde_json::from_slice(&text).expect("sfdisk prints JSON");
    let text = |part: &Value, name: &str| part[name].as_str().unwrap_or_default().to_owned();
    let bytes = |part: &Value, name: &str| part[name].as_u64().expect("sfdisk says where it lies") * 512;
    let all = table["partitiontable"]["partitions"].as_array().expect("sfdisk lists partitions");
    all.iter()
        .map(|part| Partition {
            label: text(part, "name"),
            kind: text(part, "type"),
            start: bytes(part, "start"),
            size: bytes(part, "size"),
        })
        .collect()
}

/// Gives the machine a copy of its built disk, to be spoiled, and says where it is.
///
/// # Panics
/// It cannot be copied.
pub fn copy_of(settings: &mut GuestSettings) -> PathBuf {
    fs::create_dir_all(&settings.folder).expect("the machine has a folder");
    let copy = settings.file("spoiled.raw");
    let (from, to) = (settings.disk.display().to_string(), copy.display().to_string());
    settings.tool("cp", &["--sparse=always", &from, &to]).expect("the disk can be copied");
    settings.disk.clone_from(&copy);
    copy
}

/// Flips the lowest bit of the byte at `offset`.
///
/// # Panics
/// The file has no such byte.
pub fn changed_byte(path: &Path, offset: u64) {
    let mut file = File::options().read(true).write(true).open(path).expect("the file is there");
    let mut byte = [0];
    file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut byte)).expect("the file has that byte");
    byte[0] ^= 1;
    file.seek(SeekFrom::Start(offset)).and_then(|_| file.write_all(&byte)).expect("the byte can be written");
}
