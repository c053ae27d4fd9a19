// SPDX-License-Identifier: MIT OR Apache-2.0

//! The scheduler with work whose order the tests decide.

use super::*;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Arc;
use std::thread::ThreadId;

const LIMITS: Limits = Limits {
    batches_ahead: 4,
    follow_ups: 2,
};

/// An event of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
    Begun(usize),
    Merged(usize),
    Task(usize),
    FollowUp(String),
}
use Event::{Begun, FollowUp, Merged, Task};

/// A hook of a test: it may wait, or fail.
type Hook<'a> = Box<dyn Fn(&Recorder<'_>, &Event) -> Result<()> + Sync + 'a>;

/// Work that records its events and has a hook decide on each.
struct Recorder<'a> {
    scheduler: Scheduler<String>,
    events: Mutex<Vec<(Event, ThreadId)>>,
    changed: Condvar,
    hook: Hook<'a>,
    progress: Progress,
}

impl<'a> Recorder<'a> {
    fn new(
        threads: usize,
        (batches, tasks): (usize, usize),
        hook: impl Fn(&Recorder<'_>, &Event) -> Result<()> + Sync + 'a,
    ) -> Self {
        Recorder {
            scheduler: Scheduler::new(threads, Totals { batches, tasks }, LIMITS),
            events: Mutex::default(),
            changed: Condvar::new(),
            hook: Box::new(hook),
            progress: Progress::default(),
        }
    }

    fn run(&self) -> Result<()> {
        self.scheduler.run(self, &self.progress)
    }

    fn note(&self, event: Event) -> Result<()> {
        lock(&self.events).push((event.clone(), thread::current().id()));
        self.changed.notify_all();
        (self.hook)(self, &event)
    }

    /// Waits until the events so far meet a condition.
    fn wait(&self, condition: impl Fn(&[Event]) -> bool) {
        let mut events = lock(&self.events);
        while !condition(&names(&events)) {
            events = self.changed.wait(events).unwrap();
        }
    }

    fn events(&self) -> Vec<Event> {
        names(&lock(&self.events))
    }
}

fn names(events: &[(Event, ThreadId)]) -> Vec<Event> {
    events.iter().map(|(event, _)| event.clone()).collect()
}

fn count(events: &[Event], which: impl Fn(&Event) -> bool) -> usize {
    events.iter().filter(|event| which(event)).count()
}

impl Work for Recorder<'_> {
    type Local = ();
    type Batch = usize;
    type FollowUp = String;

    fn read_batch(&self, number: usize) -> Result<usize> {
        self.note(Begun(number))?;
        Ok(number)
    }

    fn merge(&self, number: usize, is_last: bool) -> Result<Vec<String>> {
        self.note(Merged(number))?;
        let mut follow_ups = vec![number.to_string()];
        follow_ups.extend(is_last.then(|| "last".to_owned()));
        Ok(follow_ups)
    }

    fn task(&self, number: usize, (): &mut ()) -> Result<()> {
        self.note(Task(number))
    }

    fn follow_up(&self, name: String, (): &mut ()) -> Result<()> {
        self.note(FollowUp(name))
    }
}

/// Batch 0 is complete after those that may be ahead of it.
#[test]
fn batches_are_merged_by_number() {
    let work = Recorder::new(5, (20, 0), |work, event| {
        if *event == Begun(0) {
            work.wait(|events| events.contains(&Begun(3)));
        }
        Ok(())
    });
    work.run().unwrap();
    let mut events = work.events();
    events.retain(|event| matches!(event, Merged(_)));
    assert_eq!(events, (0..20).map(Merged).collect::<Vec<_>>());
}

/// While batch 0 is read, the other threads begin as many batches as are allowed, then tasks.
#[test]
fn batches_ahead_are_bounded() {
    let work = Recorder::new(3, (20, 5), |work, event| {
        if *event == Begun(0) {
            work.wait(|events| events.contains(&Task(4)));
            let events = work.events();
            assert_eq!(count(&events, |event| matches!(event, Begun(_))), 4);
            assert_eq!(count(&events, |event| matches!(event, Merged(_))), 0);
        }
        Ok(())
    });
    work.run().unwrap();
    assert_eq!(count(&work.events(), |event| matches!(event, Begun(_))), 20);
}

/// Follow-ups are offered once there is nothing else to begin, and no more than may wait.
#[test]
fn offered_work_is_bounded() {
    let offered = Mutex::new(Vec::new());
    let work = Recorder::new(2, (0, 2), |work, event| {
        let offer = || work.scheduler.offer(|| "offered".to_owned());
        match event {
            // The other thread has the last task, and takes nothing until this one is done.
            Task(0) => {
                work.wait(|events| events.contains(&Task(1)));
                lock(&offered).extend([offer(), offer(), offer()]);
                work.note(FollowUp("released".to_owned()))
            }
            Task(1) => {
                work.wait(|events| events.contains(&FollowUp("released".to_owned())));
                Ok(())
            }
            _ => Ok(()),
        }
    });
    assert!(!work.scheduler.offer(|| unreachable!("there are tasks")));
    work.run().unwrap();
    assert_eq!(*lock(&offered), [true, true, false]);
    let is_offered = |event: &Event| *event == FollowUp("offered".to_owned());
    assert_eq!(count(&work.events(), is_offered), 2);
}

#[test]
fn one_thread_does_everything_in_order() {
    let work = Recorder::new(1, (2, 2), |work, _| {
        assert!(!work
            .scheduler
            .offer(|| unreachable!("there is no other thread")));
        Ok(())
    });
    work.run().unwrap();
    let follow_up = |name: &str| FollowUp(name.to_owned());
    let (first, second) = ([Begun(0), Merged(0), follow_up("0")], [Begun(1), Merged(1)]);
    let mut wanted = [&first[..], &second[..]].concat();
    wanted.extend([follow_up("1"), follow_up("last"), Task(0), Task(1)]);
    assert_eq!(work.events(), wanted);
    let here = thread::current().id();
    assert!(lock(&work.events).iter().all(|(_, thread)| *thread == here));
}

#[test]
fn nothing_to_do_is_done_at_once() {
    for threads in [0, 1, 4] {
        Recorder::new(threads, (0, 0), |_, _| Ok(())).run().unwrap();
    }
}

fn broken() -> Error {
    Error::io("batch", "read")(std::io::Error::other("broken"))
}

#[test]
fn nothing_is_begun_after_an_error() {
    let is_broken = |event: &Event| matches!(event, Begun(3) | Task(_));
    let work = Recorder::new(1, (10, 1), |_, event| {
        if is_broken(event) {
            Err(broken())
        } else {
            Ok(())
        }
    });
    assert_eq!(
        work.run().unwrap_err().to_string(),
        "cannot read batch: broken"
    );
    assert_eq!(work.events().last(), Some(&Begun(3)));
}

/// Two threads wait for batches to be merged when the third fails: they must not wait for ever.
#[test]
fn an_error_wakes_threads_that_wait() {
    let work = Recorder::new(3, (20, 0), |work, event| match event {
        Begun(0) => {
            work.wait(|events| events.contains(&Begun(3)));
            Err(broken())
        }
        _ => Ok(()),
    });
    assert_eq!(
        work.run().unwrap_err().to_string(),
        "cannot read batch: broken"
    );
    let events = work.events();
    assert_eq!(count(&events, |event| matches!(event, Merged(_))), 0);
    assert_eq!(count(&events, |event| matches!(event, Begun(_))), 4);
}

#[test]
fn a_panic_stops_the_rest() {
    let work = Recorder::new(3, (20, 0), |work, event| {
        if *event == Begun(0) {
            work.wait(|events| events.contains(&Begun(3)));
            panic!("a bug");
        }
        Ok(())
    });
    std::panic::catch_unwind(AssertUnwindSafe(|| work.run())).unwrap_err();
    assert!(lock(&work.scheduler.state).is_stopped);
    assert!(!work.events().contains(&Begun(4)));
}

#[test]
fn an_interruption_stops_the_rest() {
    let interrupt = Arc::new(AtomicBool::new(false));
    for threads in [1, 3] {
        interrupt.store(false, Relaxed);
        let mut work = Recorder::new(threads, (100, 100), |_, event| {
            if *event == Merged(2) {
                interrupt.store(true, Relaxed);
            }
            Ok(())
        });
        work.progress = Progress::new(interrupt.clone());
        assert!(matches!(work.run(), Err(Error::Interrupted)));
        // Others may be at the batches that are allowed ahead.
        let begun = count(&work.events(), |event| matches!(event, Begun(_)));
        assert!(begun <= 3 + LIMITS.batches_ahead, "{begun}");
    }
}

#[test]
fn a_stop_is_no_error() {
    let work = Recorder::new(1, (10, 0), |work, event| {
        if *event == Begun(2) {
            work.scheduler.stop();
        }
        Ok(())
    });
    work.run().unwrap();
    assert_eq!(work.events().last(), Some(&Merged(2)));
}
