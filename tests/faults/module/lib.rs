//! A PKCS#11 module that hands every call on to a real one, and breaks when a test says so. What it answers then is what a token
//! in hardware answers: absence in the middle of a call, a crash of the vendor's library, too few sessions, a wrong bit, slowness.
//!
//! `CASEMATE_FAULTY_REAL` is the real module. `CASEMATE_FAULTY_ORDERS` is a folder with a file for each fault:
//! - `absent`: no slot holds the token, and its sessions and login are over, also when it is back.
//! - `at-C_Xyz`: `ACTION SKIP`, done once, at the call after SKIP others; the file is called `done-C_Xyz` then. ACTION is
//!   `abort`, `exit`, `hang` or `remove` (before the real call), `abort-after` or `remove-after`, `logout` (the process's login is
//!   ended first).
//! - `sessions`: so many may be open at once.
//! - `delays`: milliseconds that signatures take, in turn.
//! - `wrong`: signatures have one wrong bit.
//!
//! The only unsafe code of the tests, for it is C's interface: functions of PKCS#11 v2.40 whose arguments are all words.
#![allow(non_snake_case)] // the names are the standard's

use std::{
    collections::BTreeSet,
    env,
    ffi::{CString, c_char, c_int, c_void},
    fs,
    path::PathBuf,
    process,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

/// Return values (PKCS#11 v2.40, 5.1).
const OK: usize = 0;
const GENERAL_ERROR: usize = 5;
const DEVICE_REMOVED: usize = 0x32;
const SESSION_COUNT: usize = 0xb1;
const SESSION_HANDLE_INVALID: usize = 0xb3;
const TOKEN_NOT_PRESENT: usize = 0xe0;

/// Places in the list of functions.
const INITIALIZE: usize = 0;
const SLOT_LIST: usize = 4;
const TOKEN_INFO: usize = 6;
const OPEN_SESSION: usize = 12;
const CLOSE_SESSION: usize = 13;
const SESSION_INFO: usize = 15;
const LOGIN: usize = 18;
const LOGOUT: usize = 19;
const DESTROY_OBJECT: usize = 22;
const ATTRIBUTE_VALUE: usize = 24;
const FIND_INIT: usize = 26;
const FIND: usize = 27;
const FIND_FINAL: usize = 28;
const SIGN_INIT: usize = 42;
const SIGN: usize = 43;
const GENERATE_KEY_PAIR: usize = 59;

/// `CK_FUNCTION_LIST` of v2.40.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct List {
    version: [u8; 2],
    functions: [usize; 68],
}

unsafe extern "C" {
    fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
}

static REAL: OnceLock<List> = OnceLock::new();
static FAULTY: OnceLock<List> = OnceLock::new();
static SESSIONS: Mutex<BTreeSet<usize>> = Mutex::new(BTreeSet::new());
static SIGNATURES: AtomicUsize = AtomicUsize::new(0);

fn load() -> Option<List> {
    let path = CString::new(env::var("CASEMATE_FAULTY_REAL").ok()?).ok()?;
    let mut list: *const List = std::ptr::null();
    // SAFETY: both strings end in zero; the symbol, if there is one, has the type that the standard gives it, and the list that it
    // hands out lives as long as the library, which is never closed.
    unsafe {
        let library = dlopen(path.as_ptr(), 2);
        let symbol = (!library.is_null()).then(|| dlsym(library, c"C_GetFunctionList".as_ptr()))?;
        let get: extern "C" fn(*mut *const List) -> usize = (!symbol.is_null()).then(|| std::mem::transmute(symbol))?;
        (get(&raw mut list) == OK && !list.is_null()).then(|| *list)
    }
}

/// Calls the real function at this place with these words; C's callee takes as many of them as it has parameters.
fn real(place: usize, words: [usize; 8]) -> usize {
    let Some(list) = REAL.get() else { return GENERAL_ERROR };
    let [a, b, c, d, e, f, g, h] = words;
    type Function = extern "C" fn(usize, usize, usize, usize, usize, usize, usize, usize) -> usize;
    // SAFETY: the real module put a function there, whose arguments are the caller's; on x86-64 and AArch64 words beyond the
    // function's own parameters are ignored.
    let function: Function = unsafe { std::mem::transmute(list.functions[place]) };
    function(a, b, c, d, e, f, g, h)
}

fn orders() -> PathBuf {
    env::var_os("CASEMATE_FAULTY_ORDERS").map(PathBuf::from).unwrap_or_default()
}

fn order(name: &str) -> Option<String> {
    fs::read_to_string(orders().join(name)).ok()
}

fn sessions() -> MutexGuard<'static, BTreeSet<usize>> {
    SESSIONS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the token is away; its sessions do not outlive that.
fn is_absent() -> bool {
    let absent = orders().join("absent").exists();
    if absent {
        let over = std::mem::take(&mut *sessions());
        for session in over {
            real(CLOSE_SESSION, [session, 0, 0, 0, 0, 0, 0, 0]);
        }
    }
    absent
}

fn remove() -> usize {
    if fs::write(orders().join("absent"), b"").is_err() {
        process::abort();
    }
    is_absent();
    DEVICE_REMOVED
}

/// What is to be done at this call of `name`, once.
fn action(name: &str) -> Option<String> {
    let file = orders().join(format!("at-{name}"));
    let text = fs::read_to_string(&file).ok()?;
    let (action, skip) = text.trim().split_once(' ')?;
    match skip.parse::<usize>().ok()?.checked_sub(1) {
        Some(left) => {
            fs::write(&file, format!("{action} {left}")).ok()?;
            None
        }
        None => fs::rename(&file, orders().join(format!("done-{name}"))).ok().map(|()| action.to_owned()),
    }
}

/// A call in the session `words[0]`.
fn in_session(place: usize, name: &str, words: [usize; 8]) -> usize {
    if is_absent() {
        return DEVICE_REMOVED;
    }
    if !sessions().contains(&words[0]) {
        return SESSION_HANDLE_INVALID;
    }
    match action(name).as_deref() {
        Some("abort") => process::abort(),
        Some("exit") => process::exit(0),
        Some("hang") => loop {
            thread::park();
        },
        Some("remove") => remove(),
        Some("abort-after") => {
            real(place, words);
            process::abort()
        }
        Some("remove-after") => {
            real(place, words);
            remove()
        }
        Some("logout") => {
            real(LOGOUT, [words[0], 0, 0, 0, 0, 0, 0, 0]);
            real(place, words)
        }
        _ => real(place, words),
    }
}

extern "C" fn initialize(arguments: usize) -> usize {
    sessions().clear();
    real(INITIALIZE, [arguments, 0, 0, 0, 0, 0, 0, 0])
}

extern "C" fn slot_list(present: usize, list: usize, count: usize) -> usize {
    if is_absent() && present & 0xff != 0 && count != 0 {
        // SAFETY: the caller hands in a place for the number of slots.
        unsafe { *(count as *mut usize) = 0 };
        return OK;
    }
    real(SLOT_LIST, [present, list, count, 0, 0, 0, 0, 0])
}

extern "C" fn token_info(slot: usize, info: usize) -> usize {
    if is_absent() { TOKEN_NOT_PRESENT } else { real(TOKEN_INFO, [slot, info, 0, 0, 0, 0, 0, 0]) }
}

extern "C" fn open_session(slot: usize, flags: usize, application: usize, notify: usize, session: usize) -> usize {
    if is_absent() {
        return TOKEN_NOT_PRESENT;
    }
    let mut open = sessions();
    let limit = order("sessions").and_then(|limit| limit.trim().parse().ok());
    if limit.is_some_and(|limit: usize| open.len() >= limit) {
        return SESSION_COUNT;
    }
    let opened = real(OPEN_SESSION, [slot, flags, application, notify, session, 0, 0, 0]);
    if opened == OK {
        // SAFETY: the real function has just written the session's handle there.
        open.insert(unsafe { *(session as *const usize) });
    }
    opened
}

extern "C" fn close_session(session: usize) -> usize {
    let known = sessions().remove(&session);
    if known { real(CLOSE_SESSION, [session, 0, 0, 0, 0, 0, 0, 0]) } else { SESSION_HANDLE_INVALID }
}

extern "C" fn sign(session: usize, data: usize, length: usize, signature: usize, size: usize) -> usize {
    let words = [session, data, length, signature, size, 0, 0, 0];
    if signature == 0 {
        // Only the length is asked for.
        return if is_absent() { DEVICE_REMOVED } else { real(SIGN, words) };
    }
    if let Some(delays) = order("delays") {
        let delays: Vec<u64> = delays.split_whitespace().filter_map(|delay| delay.parse().ok()).collect();
        let turn = SIGNATURES.fetch_add(1, Ordering::Relaxed) % delays.len().max(1);
        thread::sleep(Duration::from_millis(delays.get(turn).copied().unwrap_or_default()));
    }
    let made = in_session(SIGN, "C_Sign", words);
    if made == OK && order("wrong").is_some() {
        // SAFETY: the real function has just written a signature of at least one byte there.
        unsafe { *(signature as *mut u8) ^= 1 };
    }
    made
}

macro_rules! in_session {
    ($function:ident, $place:ident, $name:literal) => {
        extern "C" fn $function(
            a: usize,
            b: usize,
            c: usize,
            d: usize,
            e: usize,
            f: usize,
            g: usize,
            h: usize,
        ) -> usize {
            in_session($place, $name, [a, b, c, d, e, f, g, h])
        }
    };
}

in_session!(session_info, SESSION_INFO, "C_GetSessionInfo");
in_session!(login, LOGIN, "C_Login");
in_session!(destroy_object, DESTROY_OBJECT, "C_DestroyObject");
in_session!(attribute_value, ATTRIBUTE_VALUE, "C_GetAttributeValue");
in_session!(find_init, FIND_INIT, "C_FindObjectsInit");
in_session!(find, FIND, "C_FindObjects");
in_session!(find_final, FIND_FINAL, "C_FindObjectsFinal");
in_session!(sign_init, SIGN_INIT, "C_SignInit");
in_session!(generate_key_pair, GENERATE_KEY_PAIR, "C_GenerateKeyPair");

/// The module's one entry.
///
/// # Safety
/// `list` is a place for a pointer, as the standard asks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list: *mut *const List) -> usize {
    let Some(from) = load() else { return GENERAL_ERROR };
    let mut faulty = *REAL.get_or_init(|| from);
    for (place, function) in [
        (INITIALIZE, initialize as *const () as usize),
        (SLOT_LIST, slot_list as *const () as usize),
        (TOKEN_INFO, token_info as *const () as usize),
        (OPEN_SESSION, open_session as *const () as usize),
        (CLOSE_SESSION, close_session as *const () as usize),
        (SESSION_INFO, session_info as *const () as usize),
        (LOGIN, login as *const () as usize),
        (DESTROY_OBJECT, destroy_object as *const () as usize),
        (ATTRIBUTE_VALUE, attribute_value as *const () as usize),
        (FIND_INIT, find_init as *const () as usize),
        (FIND, find as *const () as usize),
        (FIND_FINAL, find_final as *const () as usize),
        (SIGN_INIT, sign_init as *const () as usize),
        (SIGN, sign as *const () as usize),
        (GENERATE_KEY_PAIR, generate_key_pair as *const () as usize),
    ] {
        faulty.functions[place] = function;
    }
    // SAFETY: the caller's promise.
    unsafe { *list = FAULTY.get_or_init(|| faulty) };
    OK
}
