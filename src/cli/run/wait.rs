//! Starts a claimed run in its pod, and waits for its end, or for the caller's patience.

use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use guardian_core::lifecycle::refusal;
use guardian_hook::protocol::{Outcome, PROTOCOL, Refusal, RunResult, Streamed, Tail};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::RunError;
use super::printer::Printer;
use super::report::End;
use crate::controller::{ExecError, Order, PodExec};

/// How often a runner is asked again, under the same id, after the connection to it was lost: API servers that are replaced one after the other are
/// seen through; after that the controller sees to it.
const ASK_AGAIN: u32 = 3;
/// Pause before that.
const PAUSE: Duration = Duration::from_secs(2);
/// How often the line that says what is going on is renewed.
const TICK: Duration = Duration::from_secs(1);

/// Until it has ended, cannot be reached any more, or a signal says that nobody waits.
pub(super) async fn wait(exec: &PodExec, order: &Order, printer: &mut Printer, signals: &mut Signals) -> End {
    let printer = Mutex::new(printer);
    let mut tries_left = ASK_AGAIN;
    loop {
        let mut heard = |streamed: &Streamed| lock(&printer).take(streamed);
        let asked = tokio::select! {
            asked = exec.run_heard(order, &mut heard) => asked,
            never = show(&printer) => match never {},
            number = signals.recv() => return End::Interrupted(number),
        };
        let is_first = tries_left == ASK_AGAIN;
        let lost = match asked {
            Ok(Outcome { result: RunResult::Refused { why: why @ Refusal::StillRunning }, .. }) => refusal(&why),
            Ok(outcome) => return End::Ended(outcome),
            Err(error) if is_first && error.is_before_the_request() => return End::Ended(unstarted(order, &error)),
            Err(error) => chain(&error),
        };
        if tries_left == 0 {
            return End::Lost(lost);
        }
        tries_left -= 1;
        lock(&printer).lost(&lost);
        tokio::select! {
            () = sleep(PAUSE) => {}
            number = signals.recv() => return End::Interrupted(number),
        }
    }
}

/// Says on a terminal, again and again, what goes on.
async fn show(printer: &Mutex<&mut Printer>) -> Infallible {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        lock(printer).show();
    }
}

fn lock<'p, 'm>(printer: &'p Mutex<&'m mut Printer>) -> MutexGuard<'p, &'m mut Printer> {
    printer.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is known when the runner was not asked.
fn unstarted(order: &Order, error: &ExecError) -> Outcome {
    Outcome {
        version: PROTOCOL,
        run_id: order.request.run_id.clone(),
        result: RunResult::NotStarted { message: chain(error) },
        duration_ms: 0,
        stdout: Tail::default(),
        stderr: Tail::default(),
        survivors: 0,
    }
}

/// An error and what it came from.
fn chain(error: &ExecError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// What ends the wait from outside.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Self, RunError> {
        let of = |kind| signal(kind).map_err(RunError::Signals);
        Ok(Self { interrupt: of(SignalKind::interrupt())?, terminate: of(SignalKind::terminate())? })
    }

    /// Its number.
    pub(super) async fn recv(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 2,
            _ = self.terminate.recv() => 15,
        }
    }
}
