use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use casemate_post::{MANIFEST_FILE, Manifest};
use serde::{Deserialize, Serialize};

use crate::{ConsoleError, Out, json, node::Node, table::Table, text::plain};

/// The bill of materials, within the folder of the programs: CycloneDX, made by image/build.
const MATERIALS_FILE: &str = "sbom.cdx.json";

/// The commit that the image was built of, within the folder of the programs. A build of changed files has none.
const COMMIT_FILE: &str = "commit";

/// The image's list has some 300 KB.
const MATERIALS_LIMIT: u64 = 16 << 20;

/// What runs here. A part is absent where it is not known: a lab has no image.
#[derive(Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Version {
    /// Of this program.
    casemate: &'static str,
    /// Of the image that runs: `IMAGE_VERSION` of os-release, where it is one of Casemate's.
    image: Option<String>,
    /// dm-verity's hash of the root partition that runs, as the signed command line of the kernel demands it.
    root_hash: Option<String>,
    commit: Option<String>,
    /// As the cryptographic module in this program says.
    module: String,
    kernel: Option<String>,
    /// SHA-256 by name, as the power-on self-test compares them.
    programs: BTreeMap<String, String>,
    materials: Option<Materials>,
}

/// The bill of materials, counted.
#[derive(Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Materials {
    path: PathBuf,
    debian_packages: usize,
    rust_crates: usize,
}

/// `casemate version`.
pub(crate) fn show(node: &Node, as_json: bool, out: Out<'_>) -> Result<(), ConsoleError> {
    let version = Version::of(Path::new("/"), &node.config.paths.bin)?;
    if as_json { json::print(&version, out) } else { Ok(write!(out, "{}", version.render())?) }
}

impl Version {
    /// `root` is the root folder of the system, `bin` the folder of the programs.
    fn of(root: &Path, bin: &Path) -> Result<Self, ConsoleError> {
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        let programs = if bin.join(MANIFEST_FILE).exists() { Manifest::read(bin)?.binaries } else { BTreeMap::new() };
        let word = |text: String| Some(text.trim().to_owned()).filter(|word| !word.is_empty());
        Ok(Self {
            casemate: env!("CARGO_PKG_VERSION"),
            image: image_version(&read("usr/lib/os-release")),
            root_hash: root_hash(&read("proc/cmdline")),
            commit: word(fs::read_to_string(bin.join(COMMIT_FILE)).unwrap_or_default()),
            module: casemate_post::module_version(),
            kernel: word(read("proc/sys/kernel/osrelease")),
            programs: programs.into_iter().map(|(name, binary)| (name, binary.sha256)).collect(),
            materials: Materials::of(bin.join(MATERIALS_FILE))?,
        })
    }

    fn render(&self) -> String {
        let unknown = || "not known".to_owned();
        let known = |value: &Option<String>| value.clone().unwrap_or_else(unknown);
        let materials = self.materials.as_ref().map_or_else(unknown, |list| {
            let Materials { path, debian_packages, rust_crates } = list;
            format!("{debian_packages} Debian packages, {rust_crates} Rust crates: {}", path.display())
        });
        let lines = [
            ("casemate", self.casemate.to_owned()),
            ("image", self.image.clone().unwrap_or_else(|| "none runs here".to_owned())),
            ("root hash", known(&self.root_hash)),
            ("commit", known(&self.commit)),
            ("FIPS module", self.module.clone()),
            ("kernel", known(&self.kernel)),
            ("materials", materials),
        ];
        let mut text = lines.map(|(name, value)| format!("{name:<11}  {}\n", plain(&value))).concat();
        if !self.programs.is_empty() {
            let mut table = Table::new(&["PROGRAM", "SHA-256"]);
            for (name, digest) in &self.programs {
                table.row(&[name, digest]);
            }
            text += &format!("\n{table}");
        }
        text
    }
}

impl Materials {
    /// Counts what is listed at `path`; `None` where no list is.
    fn of(path: PathBuf) -> Result<Option<Self>, ConsoleError> {
        #[derive(Deserialize)]
        struct List {
            components: Vec<Component>,
        }
        #[derive(Deserialize)]
        struct Component {
            #[serde(default)]
            purl: String,
        }
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(ConsoleError::File { path, source, hint: "it is readable for everybody in an image" });
            }
        };
        let list: List = serde_json::from_reader(file.take(MATERIALS_LIMIT))
            .map_err(|source| ConsoleError::NotMaterials { path: path.clone(), source })?;
        let count = |kind: &str| list.components.iter().filter(|component| component.purl.starts_with(kind)).count();
        Ok(Some(Self { debian_packages: count("pkg:deb/"), rust_crates: count("pkg:cargo/"), path }))
    }
}

/// `IMAGE_VERSION` of an os-release (os-release(5): an assignment a line, quoted or not) whose `IMAGE_ID` is ours.
fn image_version(os_release: &str) -> Option<String> {
    let value = |name: &str| {
        let found = os_release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
        Some(found.trim_matches(['"', '\'']).to_owned())
    };
    (value("IMAGE_ID")? == "casemate").then(|| value("IMAGE_VERSION"))?
}

/// The value of `roothash=`, a SHA-256 in hexadecimal digits.
fn root_hash(command_line: &str) -> Option<String> {
    let hash = command_line.split_whitespace().find_map(|word| word.strip_prefix("roothash="))?;
    (hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| hash.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const HASH: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    /// A root folder as the image has it.
    fn image() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let bin = root.path().join("usr/lib/casemate");
        fs::create_dir_all(&bin).unwrap();
        fs::create_dir_all(root.path().join("proc/sys/kernel")).unwrap();
        let write = |path: &str, text: &str| fs::write(root.path().join(path), text).unwrap();
        write("usr/lib/os-release", "ID=debian\nIMAGE_ID=\"casemate\"\nIMAGE_VERSION=\"1.2.3\"\n");
        write("proc/cmdline", &format!("ro fips=1 roothash={HASH} quiet\n"));
        write("proc/sys/kernel/osrelease", "6.12.117+deb13-amd64\n");
        write("usr/lib/casemate/casemate", "a program");
        write("usr/lib/casemate/commit", "c0ffee\n");
        let list = r#"{"components": [{"purl": "pkg:deb/debian/libc6@2"}, {"purl": "pkg:cargo/a@1"},
            {"purl": "pkg:cargo/b@1"}, {"name": "casemate"}]}"#;
        write("usr/lib/casemate/sbom.cdx.json", list);
        fs::set_permissions(bin.join("casemate"), PermissionsExt::from_mode(0o755)).unwrap();
        Manifest::of(&bin).unwrap().write(&bin).unwrap();
        root
    }

    #[test]
    fn an_image_says_what_it_is_down_to_its_programs_digests() {
        let root = image();
        let bin = root.path().join("usr/lib/casemate");
        let version = Version::of(root.path(), &bin).unwrap();
        let text = version.render();
        for line in [
            "image        1.2.3".to_owned(),
            format!("root hash    {HASH}"),
            "commit       c0ffee".to_owned(),
            format!("FIPS module  {}", casemate_post::module_version()),
            "kernel       6.12.117+deb13-amd64".to_owned(),
            format!("materials    1 Debian packages, 2 Rust crates: {}/sbom.cdx.json", bin.display()),
            // printf 'a program' | sha256sum
            "casemate  d69ea8cda2433733c1ce02de65da8f48e6a3dbba6bb18876a2062908e54ef7cb".to_owned(),
        ] {
            assert!(text.lines().any(|found| found == line), "{line:?} is not in\n{text}");
        }
        let json = serde_json::to_value(&version).unwrap();
        assert_eq!(json["root-hash"], HASH);
        assert_eq!(json["materials"]["rust-crates"], 2);
        assert_eq!(json["programs"].as_object().map(serde_json::Map::len), Some(1));
    }

    #[test]
    fn a_lab_has_no_image_and_says_so() {
        let root = tempfile::tempdir().unwrap();
        let version = Version::of(root.path(), root.path()).unwrap();
        assert_eq!((&version.image, &version.root_hash, &version.materials), (&None, &None, &None));
        assert!(version.render().contains("image        none runs here\n"));
    }

    #[test]
    fn another_systems_version_and_what_is_no_hash_are_not_ours() {
        assert_eq!(image_version("IMAGE_ID=other\nIMAGE_VERSION=7"), None);
        assert_eq!(image_version("IMAGE_VERSION=7"), None);
        assert_eq!(root_hash("roothash=abc"), None);
        assert_eq!(root_hash(&format!("xroothash={HASH}")), None);
    }

    #[test]
    fn a_damaged_list_is_an_error_and_not_an_empty_one() {
        let root = image();
        let bin = root.path().join("usr/lib/casemate");
        fs::write(bin.join(MATERIALS_FILE), "{").unwrap();
        let error = Version::of(root.path(), &bin).unwrap_err().to_string();
        assert!(error.contains("sbom.cdx.json"), "{error}");
    }
}
