use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    process::{Child, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{LabError, Layout, notify::Readiness, program, token};

/// How long after its end a daemon is started again: systemd's `RestartSec=` of the units.
const RESTART_AFTER: Duration = Duration::from_millis(100);

/// How long a daemon may take from its start to `READY=1`.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// A daemon as the supervisor sees it.
#[derive(Default)]
struct State {
    pid: Option<u32>,
    starts: u32,
}

type States = Arc<Mutex<BTreeMap<&'static str, State>>>;

enum Order {
    Start(&'static str, Sender<Result<(), LabError>>),
    Stop(&'static str, Sender<Result<(), LabError>>),
}

/// Starts daemons, and starts again those that end. All by one thread, for Linux kills a lab's daemons with the thread that
/// started them.
pub(crate) struct Supervisor {
    orders: Option<Sender<Order>>,
    states: States,
    thread: Option<JoinHandle<()>>,
}

impl Supervisor {
    pub(crate) fn new(layout: &Layout, restart: bool) -> Self {
        let (orders, received) = channel();
        let states = States::default();
        let worker = Worker {
            layout: layout.clone(),
            restart,
            states: Arc::clone(&states),
            children: BTreeMap::new(),
            due: Vec::new(),
        };
        let thread = thread::spawn(move || worker.run(&received));
        Self { orders: Some(orders), states, thread: Some(thread) }
    }

    /// Starts `daemon` and waits until it serves.
    pub(crate) fn start(&self, daemon: &'static str) -> Result<(), LabError> {
        self.order(daemon, Order::Start)
    }

    /// Ends `daemon` by SIGTERM and leaves it ended.
    pub(crate) fn stop(&self, daemon: &'static str) -> Result<(), LabError> {
        self.order(daemon, Order::Stop)
    }

    fn order(
        &self,
        daemon: &'static str,
        order: fn(&'static str, Sender<Result<(), LabError>>) -> Order,
    ) -> Result<(), LabError> {
        let (reply, answer) = channel();
        let gone = || LabError::Waited { what: "the lab's supervisor".into(), limit: Duration::ZERO };
        let orders = self.orders.as_ref().ok_or_else(gone)?;
        orders.send(order(daemon, reply)).map_err(|_| gone())?;
        answer.recv().map_err(|_| gone())?
    }

    fn states(&self) -> MutexGuard<'_, BTreeMap<&'static str, State>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process of `daemon` while it runs.
    pub(crate) fn pid(&self, daemon: &str) -> Option<u32> {
        self.states().get(daemon).and_then(|state| state.pid)
    }

    /// How often `daemon` was started.
    pub(crate) fn starts(&self, daemon: &str) -> u32 {
        self.states().get(daemon).map_or(0, |state| state.starts)
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the worker is reported where it happened.
            let _ = thread.join();
        }
    }
}

struct Worker {
    layout: Layout,
    restart: bool,
    states: States,
    children: BTreeMap<&'static str, Child>,
    due: Vec<(Instant, &'static str)>,
}

impl Worker {
    fn run(mut self, orders: &Receiver<Order>) {
        loop {
            match orders.recv_timeout(Duration::from_millis(20)) {
                Ok(Order::Start(daemon, reply)) => {
                    let _ = reply.send(self.start(daemon));
                }
                Ok(Order::Stop(daemon, reply)) => {
                    self.due.retain(|(_, name)| *name != daemon);
                    let _ = reply.send(self.stop(daemon));
                }
                Err(RecvTimeoutError::Timeout) => self.look_after(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let names: Vec<_> = self.children.keys().copied().collect();
        for daemon in names {
            let _ = self.stop(daemon);
        }
    }

    fn start(&mut self, daemon: &'static str) -> Result<(), LabError> {
        let path = self.layout.root.join("run").join(format!("{daemon}.notify"));
        let readiness = Readiness::listen(&path).map_err(LabError::file(&path))?;
        self.spawn(daemon)?;
        let child = self.children.get_mut(daemon);
        let alive = child.map(|child| move || matches!(child.try_wait(), Ok(None)));
        let ready = match alive {
            Some(alive) => readiness.wait(READY_WITHIN, alive).map_err(LabError::file(&path))?,
            None => false,
        };
        if ready {
            return Ok(());
        }
        Err(LabError::NotReady { daemon: daemon.into(), limit: READY_WITHIN, log: self.layout.log(daemon) })
    }

    fn spawn(&mut self, daemon: &'static str) -> Result<(), LabError> {
        let layout = &self.layout;
        if daemon == "keyd" {
            token::mend(layout);
        }
        let log = layout.log(daemon);
        let output = OpenOptions::new().create(true).append(true).open(&log).map_err(LabError::file(&log))?;
        let errors = output.try_clone().map_err(LabError::file(&log))?;
        let program = layout.bin().join(format!("casemate-{daemon}"));
        let mut command = program::under(layout.owner, layout.owner.uid(daemon), &program);
        command.arg("--config").arg(layout.config());
        command.env("NOTIFY_SOCKET", layout.root.join("run").join(format!("{daemon}.notify")));
        command.envs(token::variables(layout));
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let child =
            command.spawn().map_err(|source| LabError::Run { program: program.display().to_string(), source })?;
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let state = states.entry(daemon).or_default();
        state.pid = Some(child.id());
        state.starts += 1;
        drop(states);
        self.children.insert(daemon, child);
        Ok(())
    }

    fn stop(&mut self, daemon: &'static str) -> Result<(), LabError> {
        let Some(mut child) = self.children.remove(daemon) else { return Ok(()) };
        self.forget(daemon);
        if let Ok(pid) = i32::try_from(child.id()) {
            match kill(Pid::from_raw(pid), Signal::SIGTERM) {
                // It ended by itself a moment ago.
                Ok(()) | Err(nix::Error::ESRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end {
            if !matches!(child.try_wait(), Ok(None)) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(10));
        }
        child.kill().and_then(|()| child.wait()).map_err(LabError::file(self.layout.log(daemon)))?;
        Ok(())
    }

    fn forget(&self, daemon: &'static str) {
        if let Some(state) = self.states.lock().unwrap_or_else(PoisonError::into_inner).get_mut(daemon) {
            state.pid = None;
        }
    }

    /// Notices who ended, and starts again whose time has come.
    fn look_after(&mut self) {
        let ended: Vec<_> = self
            .children
            .iter_mut()
            .filter_map(|(daemon, child)| (!matches!(child.try_wait(), Ok(None))).then_some(*daemon))
            .collect();
        for daemon in ended {
            self.children.remove(daemon);
            self.forget(daemon);
            if self.restart {
                self.due.push((Instant::now() + RESTART_AFTER, daemon));
            }
        }
        let (due, later) = self.due.drain(..).partition::<Vec<_>, _>(|(at, _)| *at <= Instant::now());
        self.due = later;
        for (_, daemon) in due {
            if let Err(error) = self.spawn(daemon) {
                eprintln!("lab: {error}");
            }
        }
    }
}
