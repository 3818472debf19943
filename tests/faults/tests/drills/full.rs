//! No room: the disk under a token is full. It is a real one, of a few megabytes of memory, so this needs root.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use casemate_harness::{Lab, Tokens};

use crate::stage::{AT_LAST, SOON, Stage, count, prepared};

/// What a file takes at least.
const PAGE: usize = 4096;

/// A small file system over the folder in which the token's keys lie, gone when dropped.
struct Small(PathBuf);

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}: this drill needs root");
}

/// Where keys lie on disk: in the token's own store, or as blobs that the TPM alone can open.
fn folder_of(lab: &Lab, tokens: Tokens) -> PathBuf {
    if tokens == Tokens::Tpm { lab.layout.state().join("keyd/tpm") } else { lab.layout.token() }
}

impl Small {
    fn over(folder: PathBuf, lab: &Lab) -> Self {
        let copy = lab.layout.root.join("copy");
        let text = |path: &Path| path.display().to_string();
        let owner = format!("uid={},gid={}", lab.layout.owner.uid("keyd"), lab.layout.owner.gid());
        run("mkdir", &["-p", &text(&folder)]);
        run("cp", &["-a", &text(&folder), &text(&copy)]);
        run("mount", &["-t", "tmpfs", "-o", &format!("size=2m,mode=700,{owner}"), "casemate-drill", &text(&folder)]);
        run("cp", &["-a", &format!("{}/.", text(&copy)), &text(&folder)]);
        // The copy's own owner and mode came with it.
        run("chmod", &["700", &text(&folder)]);
        run("chown", &[&format!("{}:{}", lab.layout.owner.uid("keyd"), lab.layout.owner.gid()), &text(&folder)]);
        Self(folder)
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Fills all but this many pages.
    fn fill(&self, pages: usize) {
        let free = self.0.join("free");
        fs::write(&free, vec![1; pages * PAGE]).unwrap();
        let mut filler = fs::File::create(self.filler()).unwrap();
        while filler.write(&[1; PAGE]).is_ok_and(|written| written > 0) {}
        fs::remove_file(free).unwrap();
    }

    fn make_room(&self) {
        fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Full before the first key, and again when all are there.
fn full(name: &str, tokens: Tokens) {
    let lab = prepared(name, tokens);
    let small = Small::over(folder_of(&lab, tokens), &lab);
    lab.postd(&[]).unwrap();
    lab.start_daemons().unwrap();
    // Room for nothing, then for a part of a key, then for a key.
    for (failed, pages) in (1..).zip([0, 1, 2, 3]) {
        small.fill(pages);
        let refused = lab.casemate(&["provision"]).unwrap_err().to_string();
        println!("{name}: with {pages} pages the operator reads: {}", refused.lines().last().unwrap());
        assert_eq!(count(&lab, "ProvisionFailed"), failed, "{refused}");
        small.make_room();
    }
    lab.wait_for("provisioning", SOON, || lab.casemate(&["provision"]).is_ok()).unwrap();
    lab.wait_for_trust_list().unwrap();
    assert_eq!(lab.starts("keyd"), 1);
    let stage = Stage::of(&lab, name);
    println!("{name}: {} halves removed, {} adopted", count(&lab, "KeyHalfRemoved"), count(&lab, "KeyAdopted"));
    small.fill(0);
    // What signs needs no room.
    stage.enrols().unwrap();
    small.make_room();
    stage.serves_again(&stage.phone(), AT_LAST);
    stage.only_keyd_restarted(0);
    stage.nothing_was_lost();
}

#[test]
fn the_disk_under_softhsm_is_full() {
    full("drill-full-softhsm", Tokens::SoftHsm);
}

#[test]
fn the_disk_under_kryoptic_is_full() {
    full("drill-full-kryoptic", Tokens::Kryoptic);
}

#[test]
fn the_disk_under_the_blobs_of_a_tpm_is_full() {
    full("drill-full-tpm", Tokens::Tpm);
}
