//! All services of one cluster, for whole starts of a phone.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use casemate_phone::capf::Message;
use casemate_phone::play::{Ports, Settings};

use super::capf::{self, Script};
use super::files::{self, File};
use super::serve::{read_get, tcp, tls, write_answer};
use super::{Identity, serve::Tls};

pub(crate) const DEVICE: &str = "SEP001122334455";

type Files = Arc<Mutex<HashMap<String, Vec<u8>>>>;
type Scripts = Arc<Mutex<Box<dyn FnMut() -> Script + Send>>>;

/// The body of TVS's answer to a certificate in DER.
pub(crate) type Answer = Arc<Mutex<Box<dyn Fn(&[u8]) -> Vec<u8> + Send>>>;

pub(crate) struct Cluster {
    pub(crate) sast: Identity,
    pub(crate) ccm: Identity,
    pub(crate) capf: Arc<Identity>,
    pub(crate) tvs: Identity,
    pub(crate) https: Identity,
    /// Served over HTTP.
    pub(crate) files: Files,
    /// Served over HTTPS.
    pub(crate) secure_files: Files,
    /// What CAPF plays next.
    pub(crate) scripts: Scripts,
    pub(crate) answer: Answer,
    pub(crate) heard: Receiver<Message>,
    pub(crate) ports: Ports,
}

/// TVS says: valid, with this role, for a minute.
pub(crate) fn valid(role: u8) -> Vec<u8> {
    vec![7, 0, 1, 0, 8, 0, 1, role, 9, 0, 4, 0, 0, 0, 60]
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let [sast, ccm, tvs] = ["sast", "ccm", "tvs"].map(Identity::rsa);
        let capf = Arc::new(Identity::rsa("capf"));
        let https = Identity::ec("tftpec");
        let (files, secure_files) = (Files::default(), Files::default());
        let scripts: Scripts = Arc::new(Mutex::new(Box::new(|| Script::new(DEVICE))));
        let next = Arc::clone(&scripts);
        let (capf_port, heard) = capf::serve(Arc::clone(&capf), move || next.lock().unwrap()());
        let answer: Answer = Arc::new(Mutex::new(Box::new(|_| vec![7, 0, 1, 1])));
        let ports = Ports {
            tftp: 1,
            http: serve_http(&files),
            https: serve_https(&https, &secure_files),
            capf: Some(capf_port),
            tvs: Some(serve_tvs(&tvs, &answer)),
        };
        let cluster = Self { sast, ccm, capf, tvs, https, files, secure_files, scripts, answer, heard, ports };
        cluster.publish_list(&cluster.sast);
        cluster.publish_config(1);
        cluster
    }

    /// A list of this cluster signed by `signer`, which is its only SAST.
    pub(crate) fn publish_list(&self, signer: &Identity) {
        let records = [
            (files::SAST, signer),
            (files::CCM_TFTP, &self.ccm),
            (files::TFTP, &self.https),
            (files::CAPF, &self.capf),
            (files::TVS, &self.tvs),
        ];
        self.put("ITLFile.tlv", File::list(signer, &records).write());
    }

    /// A configuration with this `capfAuthMode`, signed on HTTP and bare on HTTPS.
    pub(crate) fn publish_config(&self, mode: u8) {
        let xml = format!(
            "<device><capfAuthMode>{mode}</capfAuthMode><capfList><capf><phonePort>3804</phonePort>\
             <processNodeName>cm</processNodeName></capf></capfList></device>"
        );
        let name = format!("{DEVICE}.cnf.xml.sgn");
        self.put(&name, File::signed(&self.ccm, &name, xml.as_bytes()).write());
        self.secure_files.lock().unwrap().insert(name, xml.into_bytes());
    }

    pub(crate) fn put(&self, name: &str, file: Vec<u8>) {
        self.files.lock().unwrap().insert(name.to_owned(), file);
    }

    pub(crate) fn script(&self, script: impl FnMut() -> Script + Send + 'static) {
        *self.scripts.lock().unwrap() = Box::new(script);
    }

    pub(crate) fn settings(&self, folder: &Path) -> Settings {
        let mut settings = Settings::new(DEVICE, "127.0.0.1", folder.join("phone"));
        settings.ports = self.ports;
        settings.limit = Duration::from_secs(10);
        settings.string = Some(casemate_phone::capf::AuthString::new("123456"));
        settings
    }
}

fn serve_http(files: &Files) -> u16 {
    let files = Arc::clone(files);
    tcp(move |mut stream| {
        let name = read_get(&mut stream).unwrap();
        let _ = write_answer(&mut stream, files.lock().unwrap().get(&name).map(Vec::as_slice));
    })
}

fn serve_https(identity: &Identity, files: &Files) -> u16 {
    let files = Arc::clone(files);
    tls(identity, move |stream| {
        if let Ok(name) = read_get(stream) {
            let _ = write_answer(stream, files.lock().unwrap().get(&name).map(Vec::as_slice));
        }
    })
}

fn serve_tvs(identity: &Identity, answer: &Answer) -> u16 {
    let answer = Arc::clone(answer);
    tls(identity, move |stream| {
        let _ = answer_question(stream, &answer);
    })
}

fn answer_question(stream: &mut Tls, answer: &Answer) -> std::io::Result<()> {
    let mut header = [0; 10];
    stream.read_exact(&mut header)?;
    let mut body = vec![0; usize::from(u16::from_be_bytes([header[8], header[9]]))];
    stream.read_exact(&mut body)?;
    // Element 1, the name, comes first; the certificate follows it.
    let name = usize::from(u16::from_be_bytes([body[1], body[2]]));
    let said = answer.lock().unwrap()(&body[3 + name + 3..]);
    header[2] = 2;
    header[8..].copy_from_slice(&u16::try_from(said.len()).unwrap().to_be_bytes());
    stream.write_all(&[&header[..], &said].concat())?;
    stream.flush()
}
