//! What a worker of an executor does, one step after the other, until there is nothing left to do.
//!
//! The decisions are made here; what they lead to (a call, a report, a new job) is left to the
//! worker's [`Site`], which also has the lock around the router.

use std::time::Duration;

use super::router::{NextCall, Ready, Router};
use super::{LaneKey, SessionKey, Trash};

/// Calls looked at in the log, at the most, until there is one that can be made.
const DISPATCH: usize = 1024;
/// Calls of one session, or from the log, before the next session gets its turn.
const BATCH: usize = 64;
/// Time of one session, or for the log, before the next session gets its turn.
const TURN: Duration = Duration::from_millis(5);
/// Time of one job before other users of the executor get their turn.
const JOB_TURN: Duration = Duration::from_millis(50);

/// Where a worker works: the router and its lock, the run queue, the executor, the handlers.
pub trait Site {
    /// A handler.
    type Handler;
    /// A message.
    type Message;
    /// A deliverer.
    type Deliverer: Clone;

    /// Whether the worker is still in the process that it began in: a handler can fork, and then
    /// the worker's copy in the child has nothing more to do.
    fn is_here(&self) -> bool {
        true
    }

    /// Runs `change` on the router with the lock held, and drops what it let go of afterwards.
    fn change<T>(
        &self,
        change: impl FnOnce(
            &mut Router<Self::Handler, Self::Message, Self::Deliverer>,
            &mut Trash<Self::Handler, Self::Message, Self::Deliverer>,
        ) -> T,
    ) -> T;

    /// Appends work to the run queue; the lock is held.
    fn enter_ready(&self, ready: Ready);
    /// Whether the run queue has work; the lock is held.
    fn has_ready(&self) -> bool;
    /// Takes work from the run queue.
    fn take_ready(&self) -> Option<Ready>;

    /// Starts a worker that was entered; without it, the others do the work, later.
    fn start_worker(&self);
    /// Gives the worker's place to a new job at the end of the executor's queue; `false` if the
    /// executor takes none.
    fn submit_successor(&self) -> bool;

    /// Makes a call.
    fn call(&mut self, next: &NextCall<Self::Handler, Self::Message>);
    /// Whether somebody waits for the worker to pause.
    fn must_pause(&mut self) -> bool;
    /// Pauses; the last call is entered as over.
    fn pause(&mut self);
    /// Reports the losses that the router has noted, and those that come meanwhile.
    fn report(&self);

    /// The time since the job, or its last turn, began.
    fn elapsed(&self) -> Duration;
    /// Begins the job's next turn.
    fn begin_turn(&mut self);
}

/// Where a worker takes calls from.
#[derive(Clone, Copy)]
enum Source {
    Log,
    Queue(Ready),
}

impl Source {
    /// How many calls it makes in a turn.
    fn most(self) -> usize {
        match self {
            // Each call that may overlap has an entry of its own in the run queue.
            Self::Queue(Ready::Overlapping) => 1,
            Self::Queue(Ready::Session(_)) | Self::Log => BATCH,
        }
    }
}

/// A worker that was entered in the router as awake.
pub struct Worker<S: Site> {
    site: S,
    lane: LaneKey,
    /// A call was handed out to it, and is not yet entered as over.
    calling: bool,
    /// The session that makes that call alone.
    claimed: Option<SessionKey>,
}

impl<S: Site> Worker<S> {
    /// A worker of one lane.
    pub fn new(site: S, lane: LaneKey) -> Self {
        Self {
            site,
            lane,
            calling: false,
            claimed: None,
        }
    }

    /// Delivers until it is dismissed, or another job has taken its place.
    pub fn work(mut self) {
        while self.site.is_here() {
            let ready = self.site.take_ready();
            if let Some(ready) = ready {
                self.serve(Source::Queue(ready));
            }
            if !self.serve(Source::Log) && ready.is_none() && self.is_dismissed() {
                return;
            }
            if self.site.is_here() && self.site.elapsed() > JOB_TURN {
                if self.hands_over() {
                    return;
                }
                self.site.begin_turn();
            }
        }
    }

    /// Changes the router, and enters before that that the last call is over, if there was one.
    fn change<T>(
        &mut self,
        change: impl FnOnce(
            &S,
            &mut Router<S::Handler, S::Message, S::Deliverer>,
            &mut Trash<S::Handler, S::Message, S::Deliverer>,
        ) -> T,
    ) -> T {
        let is_here = self.site.is_here();
        let is_over = std::mem::take(&mut self.calling) && is_here;
        let claimed = self.claimed.take().filter(|_| is_here);
        let (site, lane) = (&self.site, self.lane);
        site.change(|router, trash| {
            if is_over {
                router.returned(lane);
            }
            if let Some(session) = claimed {
                router.put_back(session, |ready| site.enter_ready(ready));
            }
            change(site, router, trash)
        })
    }

    /// Gives the job's place as a worker to a job at the end of the executor's queue, if there is
    /// work for it. An executor that is shutting down takes none: then this job goes on until
    /// everything is delivered.
    fn hands_over(&mut self) -> bool {
        let lane = self.lane;
        self.change(|site, router, _| router.has_log(lane) || site.has_ready())
            && self.site.submit_successor()
    }

    fn is_dismissed(&mut self) -> bool {
        let lane = self.lane;
        self.change(|site, router, _| router.dismiss(lane, || !site.has_ready()))
    }

    #[cold]
    fn report(&mut self, hired: bool) {
        if hired {
            self.site.start_worker();
        }
        self.site.report();
        // A hook can fork, as a handler can.
        if self.site.is_here() {
            let lane = self.lane;
            self.change(|_, router, _| router.returned(lane));
        }
    }

    /// Makes calls of one source until it has none, or others must get their turn; tells whether
    /// there was one.
    fn serve(&mut self, source: Source) -> bool {
        let (began, most) = (self.site.elapsed(), source.most());
        for made in 0..most {
            if !self.site.is_here() {
                return true;
            }
            let Some(next) = self.next_call(source, made == 0) else {
                return made > 0 || !self.site.is_here();
            };
            self.make(&next);
            if self.site.elapsed().saturating_sub(began) > TURN {
                break;
            }
        }
        if let Source::Queue(Ready::Session(session)) = source
            && self.site.is_here()
        {
            self.change(|site, router, _| {
                router.put_back(session, |ready| site.enter_ready(ready));
            });
        }
        true
    }

    fn next_call(
        &mut self,
        source: Source,
        begins: bool,
    ) -> Option<NextCall<S::Handler, S::Message>> {
        let (lane, mut hired) = (self.lane, None);
        let next = self.change(|site, router, trash| {
            let (enter, more) = (|ready| site.enter_ready(ready), || site.has_ready());
            let next = match source {
                Source::Log => {
                    if begins {
                        router.begin_turn(lane);
                    }
                    router.next_logged(lane, DISPATCH, enter, more, trash)
                }
                Source::Queue(Ready::Session(session)) => {
                    router.next_call(lane, session, more, trash)
                }
                Source::Queue(Ready::Overlapping) => router.next_overlapping(lane, more, trash),
            };
            if router.begin_reports() {
                // Reporting can take long, as a call can.
                hired = Some(router.call_out(lane, || site.has_ready()));
            }
            next
        });
        if let Some(hired) = hired {
            self.report(hired);
        }
        let next = next.filter(|_| self.site.is_here())?;
        (self.calling, self.claimed) = (true, next.claimed);
        if next.hired {
            self.site.start_worker();
        }
        Some(next)
    }

    fn make(&mut self, next: &NextCall<S::Handler, S::Message>) {
        self.site.call(next);
        if self.site.must_pause() {
            self.change(|_, _, _| ());
            self.site.pause();
        }
    }
}
