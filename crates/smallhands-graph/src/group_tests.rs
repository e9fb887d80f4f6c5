use super::{Queue, Room, Sink, run};
use crate::placement::at_once;
use shuttle::{
    check_random,
    sync::{
        Arc, Condvar, Mutex,
        mpsc::{self, Receiver, Sender, SyncSender},
    },
    thread,
};

/// Enough to meet each order of a handful of steps many times.
const TRIES: usize = 2_000;
/// What the backend refuses.
const REFUSED: u32 = 900;
/// What makes its whole batch fail.
const BREAKS: u32 = 1_000;

struct Waits(Receiver<Asked>);

impl Queue for Waits {
    type Job = Asked;
    fn first(&mut self) -> Option<Asked> {
        self.0.recv().ok()
    }
    fn more(&mut self) -> Option<Asked> {
        self.0.try_recv().ok()
    }
}

struct Asked {
    what: u32,
    done: Sender<Result<u32, String>>,
    /// What it takes of the room, as the real one is given back: with the job.
    room: Option<Taken>,
}

/// Room for what waits, as [`Room`](super::Room) gives it.
#[derive(Clone)]
struct Few(Arc<(Mutex<usize>, Condvar)>);

struct Taken(Few, usize);

impl Few {
    fn take(&self, n: usize) -> Taken {
        let (free, freed) = &*self.0;
        let mut left = free.lock().unwrap();
        while *left < n {
            left = freed.wait(left).unwrap();
        }
        *left -= n;
        Taken(self.clone(), n)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let (free, freed) = &*(self.0).0;
        *free.lock().unwrap() += self.1;
        freed.notify_all();
    }
}

/// What happened, in order.
#[derive(Clone, Debug, PartialEq)]
enum Did {
    Kept(Vec<u32>),
    Failed(Vec<u32>),
    Told(u32, bool),
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Did>>>);

impl Log {
    fn all(&self) -> Vec<Did> {
        self.0.lock().unwrap().clone()
    }
    fn add(&self, did: Did) {
        self.0.lock().unwrap().push(did);
    }
    fn kept(&self) -> Vec<u32> {
        let all = self.all().into_iter();
        all.flat_map(|d| match d {
            Did::Kept(k) => k,
            _ => Vec::new(),
        })
        .collect()
    }
}

struct Backend(Log);

impl Sink for Backend {
    type Job = Asked;
    type Reply = Result<u32, String>;

    fn write(&mut self, batch: &[Asked]) -> Result<Vec<Self::Reply>, Self::Reply> {
        let all: Vec<u32> = batch.iter().map(|a| a.what).collect();
        // Somebody may ask meanwhile: a disk is slow.
        thread::yield_now();
        if all.iter().any(|w| *w >= BREAKS) {
            self.0.add(Did::Failed(all.clone()));
            return Err(Err(format!("{all:?}")));
        }
        let kept = all.iter().copied().filter(|w| *w < REFUSED).collect();
        self.0.add(Did::Kept(kept));
        let reply = |w: u32| match w {
            REFUSED.. => Err("refused".into()),
            _ => Ok(w),
        };
        Ok(all.into_iter().map(reply).collect())
    }
    fn again(&self, failure: &Self::Reply) -> Self::Reply {
        failure.clone()
    }
    fn tell(&mut self, job: Asked, reply: Self::Reply) {
        self.0.add(Did::Told(job.what, reply.is_ok()));
        drop(job.room);
        drop(job.done.send(reply));
    }
}

/// A writer and its queue, which is as small as `queue`.
fn writer(queue: usize, most: usize) -> (SyncSender<Asked>, Log, thread::JoinHandle<()>) {
    let (tx, rx) = mpsc::sync_channel(queue);
    let log = Log::default();
    let mut backend = Backend(log.clone());
    let t = thread::spawn(move || run(Waits(rx), most, &mut backend));
    (tx, log, t)
}

fn ask(tx: &SyncSender<Asked>, what: u32) -> Receiver<Result<u32, String>> {
    let (done, reply) = mpsc::channel();
    let room = None;
    tx.send(Asked { what, done, room }).unwrap();
    reply
}

#[test]
fn what_is_acknowledged_is_kept_and_in_order() {
    check_random(
        || {
            let (tx, log, writer) = writer(2, 3);
            let askers: Vec<_> = (0..3)
                .map(|who| {
                    let (tx, log) = (tx.clone(), log.clone());
                    thread::spawn(move || {
                        for n in 0..3 {
                            let what = who * 100 + n;
                            assert_eq!(ask(&tx, what).recv().unwrap(), Ok(what));
                            assert!(log.kept().contains(&what), "told before it was kept");
                        }
                    })
                })
                .collect();
            drop(tx);
            askers.into_iter().for_each(|a| a.join().unwrap());
            writer.join().unwrap();
            let told = log.all().into_iter().filter_map(|d| match d {
                Did::Told(w, _) => Some(w),
                _ => None,
            });
            assert_eq!(told.collect::<Vec<_>>(), log.kept());
            assert_eq!(log.kept().len(), 9);
        },
        TRIES,
    );
}

#[test]
fn a_pipeline_of_one_asker_keeps_its_order() {
    check_random(
        || {
            let (tx, log, writer) = writer(2, 2);
            let replies: Vec<_> = (0..5).map(|w| ask(&tx, w)).collect();
            for (w, r) in (0..5).zip(replies) {
                assert_eq!(r.recv().unwrap(), Ok(w));
            }
            drop(tx);
            writer.join().unwrap();
            assert_eq!(log.kept(), [0, 1, 2, 3, 4]);
        },
        TRIES,
    );
}

#[test]
fn a_failure_reaches_exactly_the_jobs_of_its_batch() {
    check_random(
        || {
            let (tx, log, writer) = writer(4, 3);
            let askers: Vec<_> = [[1, BREAKS, 2], [3, REFUSED, 4]]
                .map(|all| {
                    let tx = tx.clone();
                    thread::spawn(move || {
                        let replies = all.map(|w| ask(&tx, w));
                        let said = replies.into_iter().map(|r| r.recv().unwrap());
                        all.into_iter().zip(said).collect::<Vec<_>>()
                    })
                })
                .into_iter()
                .collect();
            drop(tx);
            let said: Vec<_> = askers.into_iter().flat_map(|a| a.join().unwrap()).collect();
            writer.join().unwrap();
            let failed: Vec<u32> = log
                .all()
                .into_iter()
                .find_map(|d| match d {
                    Did::Failed(f) => Some(f),
                    _ => None,
                })
                .unwrap();
            for (what, said) in said {
                let promised = match what {
                    w if failed.contains(&w) => Err(format!("{failed:?}")),
                    REFUSED => Err("refused".into()),
                    w => Ok(w),
                };
                assert_eq!(said, promised);
                assert_eq!(said.is_ok(), log.kept().contains(&what));
            }
        },
        TRIES,
    );
}

#[test]
fn a_waiter_that_is_gone_stops_nothing() {
    check_random(
        || {
            let (tx, log, writer) = writer(2, 2);
            let gone = thread::spawn({
                let tx = tx.clone();
                move || (0..3).for_each(|w| drop(ask(&tx, w)))
            });
            assert_eq!(ask(&tx, 10).recv().unwrap(), Ok(10));
            drop(tx);
            gone.join().unwrap();
            writer.join().unwrap();
            let mut kept = log.kept();
            kept.sort_unstable();
            assert_eq!(kept, [0, 1, 2, 10], "what was asked is done");
        },
        TRIES,
    );
}

#[test]
fn room_comes_back_with_each_job_whatever_became_of_it() {
    check_random(
        || {
            let (tx, log, writer) = writer(2, 3);
            let few = Few(Arc::new((Mutex::new(3), Condvar::new())));
            // One that takes all, one that fails its batch, one that is refused, one that nobody
            // waits for.
            let askers: Vec<_> = [(3, 1), (2, BREAKS), (2, REFUSED), (1, 2)]
                .map(|(n, what)| {
                    let (tx, few) = (tx.clone(), few.clone());
                    thread::spawn(move || {
                        let (done, reply) = mpsc::channel();
                        let room = Some(few.take(n));
                        tx.send(Asked { what, done, room }).unwrap();
                        if what != 2 {
                            drop(reply.recv().unwrap());
                        }
                    })
                })
                .into_iter()
                .collect();
            drop(tx);
            askers.into_iter().for_each(|a| a.join().unwrap());
            writer.join().unwrap();
            let told = log.all().into_iter();
            let told = told.filter(|d| matches!(d, Did::Told(..))).count();
            assert_eq!((told, *few.0.0.lock().unwrap()), (4, 3));
        },
        TRIES,
    );
}

#[tokio::test]
async fn what_is_larger_than_all_room_has_it_alone() {
    let room = Room::of(8 << 10);
    let small = room.take(100).await.unwrap();
    let mut large = Box::pin(room.take(1 << 40));
    assert!(at_once(&mut large).is_none());
    drop(small);
    let large = large.await.unwrap();
    let mut next = Box::pin(room.take(1));
    assert!(at_once(&mut next).is_none());
    // Nothing takes no room, and does not wait.
    assert!(at_once(&mut Box::pin(room.take(0))).is_some());
    drop(large);
    drop(next.await.unwrap());
}
