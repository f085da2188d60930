//! `tussock-bench load`: thousands of IKE peers in one thread, as initiators or as responders.
//!
//! A caller writes how many IKE SAs there are to be, a number a line, and reads what came of it, one JSON object a line. In
//! between, and until the input ends, peers answer what the gateway asks, so that the SAs stay.

mod eap;
mod outside;
mod peer;
mod proof;
pub mod suite;
mod trigger;

use std::collections::VecDeque;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;

use crate::clock::cpu;
use crate::floor::crypto::software;
use outside::{MOST, Outside, Port};
use peer::{Common, Outcome, State};
use proof::Prover;
use suite::KeyPair;
use trigger::{Control, Trigger};

/// Who begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Who {
    /// The peers.
    Initiate,
    /// The gateway, as it is told over its control socket.
    Respond,
}

/// What kind of load.
#[derive(Args)]
pub struct Options {
    /// Who begins.
    who: Who,
    /// The gateway's address.
    #[arg(long)]
    gateway: Ipv4Addr,
    #[command(flatten)]
    proof: proof::Options,
    /// IKE SAs without Child SA.
    #[arg(long)]
    childless: bool,
    /// How many may be in the making at a time.
    #[arg(long, default_value_t = 16)]
    window: u32,
    /// Milliseconds until a request is sent again.
    #[arg(long, default_value_t = 1000)]
    again: u64,
    /// How often it is sent again.
    #[arg(long, default_value_t = 5)]
    tries: u32,
    /// The gateway's control socket, tussock:PATH or vici:PATH, where it begins.
    #[arg(long, required_if_eq("who", "respond"))]
    control: Option<Control>,
}

/// Plays the peers until the input ends.
pub fn run(options: &Options) -> Result<()> {
    let mut load = Load::new(options)?;
    let mut input = Input::default();
    while !input.ended {
        let idle = load.receive()? == 0;
        load.send_again();
        load.begin_more()?;
        load.report()?;
        if idle {
            load.wait(&mut input)?;
            if let Some(wanted) = input.line() {
                let wanted: u32 = wanted.trim().parse().context("a number of IKE SAs is wanted")?;
                load.want(wanted.min(MOST));
            }
        }
    }
    Ok(())
}

/// Lines from standard input, as they come.
#[derive(Default)]
struct Input {
    pending: Vec<u8>,
    ended: bool,
}

impl Input {
    fn read(&mut self) -> Result<()> {
        let mut piece = [0; 256];
        let got = rustix::io::read(std::io::stdin(), &mut piece)?;
        self.ended = got == 0;
        self.pending.extend(piece.get(..got).unwrap_or_default());
        Ok(())
    }

    fn line(&mut self) -> Option<String> {
        let end = self.pending.iter().position(|octet| *octet == b'\n')?;
        Some(String::from_utf8_lossy(&self.pending.drain(..=end).collect::<Vec<_>>()).into_owned())
    }
}

/// So many peers that fail one after the other say that the next will fail, too.
const HOPELESS: u32 = 32;

/// What is being worked for.
struct Goal {
    wanted: u32,
    began: Instant,
    cpu: u64,
}

/// When a peer's request is sent again, unless it has gone on meanwhile.
struct Alarm {
    at: Instant,
    peer: u32,
    /// Where the request went: each port sees one kind.
    port: Port,
    tries: u32,
}

struct Load<'a> {
    options: &'a Options,
    common: Common,
    outside: Outside,
    trigger: Option<Trigger>,
    peers: Vec<State>,
    /// In the order they ring, since all wait as long.
    alarms: VecDeque<Alarm>,
    goal: Option<Goal>,
    begun: u32,
    up: u32,
    failed: u32,
    failed_in_a_row: u32,
    why: Option<String>,
    deleted: u32,
    sent_again: u32,
}

impl<'a> Load<'a> {
    fn new(options: &'a Options) -> Result<Load<'a>> {
        let ops = software()?.short_ops().context("no short primitives")?;
        let prover = Prover::new(&*ops, &options.proof)?;
        let pair = KeyPair::generate()?;
        let common = Common { ops, prover, pair, gateway: options.gateway, child: !options.childless };
        let outside = Outside::new()?;
        let trigger = match (&options.control, options.who) {
            (Some(control), Who::Respond) => Some(Trigger::start(control, options.window as usize)?),
            _ => None,
        };
        Ok(Load {
            options,
            common,
            outside,
            trigger,
            peers: Vec::new(),
            alarms: VecDeque::new(),
            goal: None,
            begun: 0,
            up: 0,
            failed: 0,
            failed_in_a_row: 0,
            why: None,
            deleted: 0,
            sent_again: 0,
        })
    }

    fn want(&mut self, wanted: u32) {
        self.peers.resize_with(wanted as usize, State::default);
        self.goal = Some(Goal { wanted, began: Instant::now(), cpu: cpu() });
        if let Some(trigger) = &self.trigger {
            trigger.want(wanted);
            self.begun = wanted;
        }
    }

    /// Takes what is there, but not without end; returns how much that was.
    fn receive(&mut self) -> Result<usize> {
        let mut count = 0;
        for port in [Port::NatT, Port::Ike] {
            for _ in 0..64 {
                let Some(arrived) = self.outside.receive(port)? else { break };
                count += 1;
                self.handle(arrived);
            }
        }
        Ok(count)
    }

    fn handle(&mut self, arrived: outside::Arrived) {
        let outside::Arrived { port, peer, from, message } = arrived;
        let Some(state) = self.peers.get_mut(peer as usize) else { return };
        let send = match state.handle(&self.common, peer, port, &message) {
            Ok(Outcome::Nothing) => None,
            Ok(Outcome::Send(port, answer)) => Some((port, answer)),
            Ok(Outcome::Established(answer)) => {
                self.up += 1;
                self.failed_in_a_row = 0;
                if let Some(trigger) = &self.trigger {
                    trigger.is_up(peer);
                }
                answer
            }
            Ok(Outcome::Deleted(port, answer)) => {
                self.up -= 1;
                self.deleted += 1;
                Some((port, answer))
            }
            Err(error) => {
                self.fail(peer, format!("{error:#}"));
                None
            }
        };
        let Some((port, answer)) = send else { return };
        let asks = self.peers.get(peer as usize).is_some_and(|state| state.unanswered().is_some());
        // A request goes to the gateway's own port, an answer to where the request came from.
        let to = if asks { self.gateway(port) } else { from };
        self.outside.send(port, peer, to, &answer);
        if asks {
            self.set_alarm(peer, port, 0);
        }
    }

    fn begin_more(&mut self) -> Result<()> {
        let Some(goal) = &self.goal else { return Ok(()) };
        let wanted = goal.wanted;
        if let Some(trigger) = &self.trigger {
            for (peer, why) in trigger.failures() {
                self.fail(peer, why);
            }
            return Ok(());
        }
        let done = |load: &Self| load.up + load.failed + load.deleted;
        while self.begun < wanted && self.begun - done(self) < self.options.window {
            let peer = self.begun;
            let (state, request) = State::begin(&self.common, peer)?;
            if let Some(place) = self.peers.get_mut(peer as usize) {
                *place = state;
            }
            self.outside.send(Port::Ike, peer, self.gateway(Port::Ike), &request);
            self.set_alarm(peer, Port::Ike, 0);
            self.begun += 1;
        }
        Ok(())
    }

    fn send_again(&mut self) {
        let now = Instant::now();
        while let Some(alarm) = self.alarms.pop_front_if(|alarm| alarm.at <= now) {
            let unanswered = self.peers.get(alarm.peer as usize).and_then(|state| state.unanswered());
            let Some((port, request)) = unanswered.filter(|(port, _)| *port == alarm.port) else {
                continue;
            };
            if alarm.tries >= self.options.tries {
                self.fail(alarm.peer, "the gateway does not answer".to_owned());
                continue;
            }
            self.sent_again += 1;
            self.outside.send(port, alarm.peer, self.gateway(port), request);
            self.set_alarm(alarm.peer, alarm.port, alarm.tries + 1);
        }
    }

    /// Says what came of it when there is nothing more to be hoped for.
    fn report(&mut self) -> Result<()> {
        let Some(goal) = &self.goal else { return Ok(()) };
        let settled = self.up + self.failed + self.deleted >= goal.wanted;
        // A gateway that takes nobody more need not be asked a hundred thousand times.
        let hopeless = self.failed_in_a_row >= HOPELESS;
        if !settled && !hopeless {
            return Ok(());
        }
        let report = json!({
            "wanted": goal.wanted,
            "up": self.up,
            "failed": self.failed,
            "deleted": self.deleted,
            "why": self.why,
            "sent_again": self.sent_again,
            "seconds": goal.began.elapsed().as_secs_f64(),
            "cpu_seconds": (cpu() - goal.cpu) as f64 / 1e9,
        });
        self.goal = None;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{report}")?;
        Ok(out.flush()?)
    }

    /// Sleeps until there is something to do.
    fn wait(&self, input: &mut Input) -> Result<()> {
        let until = self.alarms.front().map_or(Duration::from_millis(100), |alarm| {
            alarm.at.saturating_duration_since(Instant::now()).min(Duration::from_millis(100))
        });
        let time = Timespec { tv_sec: 0, tv_nsec: until.as_nanos().min(999_999_999) as i64 };
        let stdin = std::io::stdin();
        let [ike, nat_t] = self.outside.sockets();
        let mut fds = [
            PollFd::new(&stdin, PollFlags::IN),
            PollFd::new(ike, PollFlags::IN),
            PollFd::new(nat_t, PollFlags::IN),
        ];
        poll(&mut fds, Some(&time))?;
        if !fds[0].revents().is_empty() {
            input.read()?;
        }
        Ok(())
    }

    fn fail(&mut self, peer: u32, why: String) {
        if let Some(state) = self.peers.get_mut(peer as usize)
            && !matches!(state, State::Up(_))
        {
            *state = State::Gone;
            self.failed += 1;
            self.failed_in_a_row += 1;
            self.why.get_or_insert(why);
        }
    }

    fn set_alarm(&mut self, peer: u32, port: Port, tries: u32) {
        let at = Instant::now() + Duration::from_millis(self.options.again);
        self.alarms.push_back(Alarm { at, peer, port, tries });
    }

    fn gateway(&self, port: Port) -> SocketAddrV4 {
        let number = match port {
            Port::Ike => 500,
            Port::NatT => 4500,
        };
        SocketAddrV4::new(self.options.gateway, number)
    }
}
