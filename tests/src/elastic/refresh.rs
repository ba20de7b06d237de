//! How an instance refresh replaces the nodes of a group by those of another version. Pure: time
//! and how the nodes stand are arguments.
//!
//! A new node comes before an old one goes, and counts when it has been in service for the warm-up.
//! At a checkpoint it stops for a while. When it fails, it goes the same way back, without a stop.
//! That it fails after some launches that were given up is what the module's `upgrade.sh` sees to;
//! AWS alone would try for an hour.

use super::plan::Refreshing;

/// Where an instance is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Pending,
    InService,
    Terminating,
}

/// An instance of a group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member {
    /// Which version of the launch template it is of.
    pub(super) version: usize,
    pub(super) stage: Stage,
    /// Since when it is in that stage.
    pub(super) since_ms: u64,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Launch so many of the version that is wanted.
    Launch(usize),
    /// Take away so many of other versions, the oldest first.
    TakeAway(usize),
    /// It stands at a checkpoint, or goes on.
    Say(String),
    /// It is over.
    Over(Outcome),
}

/// How a refresh has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All nodes are of the new version, and so will be others that come.
    Successful,
    /// All nodes are of the old version again, for this reason.
    RolledBack(String),
}

/// A refresh under way.
#[derive(Debug)]
pub(super) struct Refresh {
    how: Refreshing,
    minute_ms: u64,
    from: usize,
    to: usize,
    /// Checkpoints that are behind it.
    passed: usize,
    /// Until when it stands at the next one.
    stands_ms: Option<u64>,
    failed_launches: u64,
    /// Why it goes back.
    back: Option<String>,
}

impl Refresh {
    /// From one version to another one.
    pub(super) fn new(how: Refreshing, minute_ms: u64, (from, to): (usize, usize)) -> Refresh {
        Refresh {
            how,
            minute_ms,
            from,
            to,
            passed: 0,
            stands_ms: None,
            failed_launches: 0,
            back: None,
        }
    }

    /// The version of nodes that come now.
    pub(super) fn wanted(&self) -> usize {
        if self.back.is_some() {
            self.from
        } else {
            self.to
        }
    }

    /// A launch of this version was given up. Gives whether that is its failure, not the group's.
    pub(super) fn launch_failed(&mut self, version: usize) -> bool {
        if version != self.to {
            return false;
        }
        self.failed_launches += 1;
        if self.failed_launches >= self.how.failed_launches {
            self.fail(&format!(
                "{} new nodes did not come up",
                self.failed_launches
            ));
        }
        true
    }

    /// It has failed, and goes back. Gives whether that is new.
    pub(super) fn fail(&mut self, why: &str) -> bool {
        let new = self.back.is_none();
        self.back.get_or_insert_with(|| why.to_owned());
        new
    }

    /// What is to be done now, where so many nodes are desired.
    pub(super) fn step(&mut self, now_ms: u64, desired: usize, members: &[Member]) -> Vec<Step> {
        let mut steps = Vec::new();
        let warmup = self.millis(self.how.warmup_s);
        let wanted = self.wanted();
        let count = |test: &dyn Fn(&Member) -> bool| members.iter().filter(|it| test(it)).count();
        let stays = |it: &Member| it.stage != Stage::Terminating;
        let new = count(&|it| stays(it) && it.version == wanted);
        let ready = count(&|it| {
            let serves = it.stage == Stage::InService && it.version == wanted;
            serves && now_ms.saturating_sub(it.since_ms) >= warmup
        });
        let others = count(&|it| stays(it) && it.version != wanted);
        let going = count(&|it| !stays(it));
        if ready >= desired && others + going == 0 && self.at_last_checkpoint() {
            let outcome = self
                .back
                .clone()
                .map_or(Outcome::Successful, Outcome::RolledBack);
            return vec![Step::Over(outcome)];
        }
        steps.extend(self.checkpoint(now_ms, desired, ready).map(Step::Say));
        let most = (desired + 1).max(desired * self.how.most_percent as usize / 100);
        let room = most.saturating_sub(new + others);
        let missing = self.quota(desired).saturating_sub(new).min(room);
        if missing > 0 {
            steps.push(Step::Launch(missing));
        }
        let replaced = (others + ready).saturating_sub(desired);
        if replaced > 0 {
            steps.push(Step::TakeAway(replaced));
        }
        steps
    }

    /// How many nodes may be new until the next checkpoint.
    fn quota(&self, desired: usize) -> usize {
        let percent = self.how.checkpoints.get(self.passed);
        match percent.filter(|_| self.back.is_none()) {
            Some(percent) => (desired * *percent as usize).div_ceil(100),
            None => desired,
        }
    }

    fn at_last_checkpoint(&self) -> bool {
        self.back.is_some() || self.passed + 1 >= self.how.checkpoints.len()
    }

    /// Stands at a checkpoint, or leaves it.
    fn checkpoint(&mut self, now_ms: u64, desired: usize, ready: usize) -> Option<String> {
        if self.at_last_checkpoint() || ready < self.quota(desired) {
            return None;
        }
        match self.stands_ms {
            None => {
                self.stands_ms = Some(now_ms + self.millis(self.how.delay_s));
                Some(format!("{ready} of {desired} nodes are new; it waits"))
            }
            Some(until) if now_ms < until => None,
            Some(_) => {
                self.passed += 1;
                self.stands_ms = None;
                Some("it goes on".to_owned())
            }
        }
    }

    fn millis(&self, seconds: u64) -> u64 {
        seconds * self.minute_ms / 60
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;
    const OLD: usize = 1;
    const NEW: usize = 2;

    /// A group whose nodes come and go within a minute each.
    struct World {
        refresh: Refresh,
        now_ms: u64,
        desired: usize,
        members: Vec<Member>,
        /// New nodes don't come up.
        broken: bool,
        said: Vec<String>,
        /// The fewest in service, the most that stayed.
        bounds: (usize, usize),
        /// The most of the other version that went at once.
        at_once: usize,
    }

    fn how() -> Refreshing {
        Refreshing {
            most_percent: 110,
            warmup_s: 90,
            checkpoints: vec![1, 100],
            delay_s: 900,
            failed_launches: 3,
        }
    }

    fn member(version: usize, stage: Stage, since_ms: u64) -> Member {
        Member {
            version,
            stage,
            since_ms,
        }
    }

    impl World {
        fn new(desired: usize, how: Refreshing) -> World {
            World {
                refresh: Refresh::new(how, MINUTE, (OLD, NEW)),
                now_ms: 100 * MINUTE,
                desired,
                members: vec![member(OLD, Stage::InService, 0); desired],
                broken: false,
                said: Vec::new(),
                bounds: (desired, desired),
                at_once: 0,
            }
        }

        fn count(&self, version: usize, stage: Stage) -> usize {
            let of = |it: &&Member| it.version == version && it.stage == stage;
            self.members.iter().filter(of).count()
        }

        /// New and old nodes in service.
        fn serving(&self) -> (usize, usize) {
            let count = |version| self.count(version, Stage::InService);
            (count(NEW), count(OLD))
        }

        /// Half a minute; gives how it ended.
        fn half_minute(&mut self) -> Option<Outcome> {
            self.now_ms += MINUTE / 2;
            let now_ms = self.now_ms;
            let over = |it: &Member| now_ms - it.since_ms >= MINUTE;
            self.members
                .retain(|it| it.stage != Stage::Terminating || !over(it));
            for n in (0..self.members.len()).rev() {
                let it = self.members[n];
                if it.stage == Stage::Pending && over(&it) {
                    if self.broken && it.version == NEW {
                        self.members.remove(n);
                        assert!(self.refresh.launch_failed(NEW));
                    } else {
                        self.members[n] = member(it.version, Stage::InService, now_ms);
                    }
                }
            }
            for step in self.refresh.step(now_ms, self.desired, &self.members) {
                match step {
                    Step::Launch(count) => {
                        let new = member(self.refresh.wanted(), Stage::Pending, now_ms);
                        self.members.extend(vec![new; count]);
                    }
                    Step::TakeAway(count) => {
                        let wanted = self.refresh.wanted();
                        let others = self
                            .members
                            .iter_mut()
                            .filter(|it| it.version != wanted && it.stage == Stage::InService);
                        for it in others.take(count) {
                            *it = member(it.version, Stage::Terminating, now_ms);
                        }
                        self.at_once = self.at_once.max(count);
                    }
                    Step::Say(what) => self.said.push(what),
                    Step::Over(outcome) => return Some(outcome),
                }
            }
            let (new, old) = self.serving();
            let pending = self.count(NEW, Stage::Pending) + self.count(OLD, Stage::Pending);
            self.bounds.0 = self.bounds.0.min(new + old);
            self.bounds.1 = self.bounds.1.max(new + old + pending);
            None
        }

        /// Half minutes until it is over, and how.
        fn run(&mut self) -> (u64, Outcome) {
            for n in 1..1_000 {
                if let Some(outcome) = self.half_minute() {
                    return (n, outcome);
                }
            }
            panic!("it is never over: {:?}", self.members)
        }
    }

    /// A node comes within a minute, is new for one and a half, and the old one goes; the first is
    /// alone for a quarter of an hour.
    #[test]
    fn one_is_new_and_is_watched_before_the_others_follow() {
        let mut world = World::new(3, how());
        let mut changes = vec![(0, world.serving())];
        let outcome = (1..).find_map(|n| {
            let over = world.half_minute();
            if changes
                .last()
                .is_none_or(|(_, last)| *last != world.serving())
            {
                changes.push((n, world.serving()));
            }
            over
        });
        assert_eq!(outcome, Some(Outcome::Successful));
        let expected = [
            (0, (0, 3)),
            (3, (1, 3)),
            (6, (1, 2)),
            (38, (2, 2)),
            (41, (2, 1)),
            (44, (3, 1)),
            (47, (3, 0)),
        ];
        assert_eq!(changes, expected);
        assert_eq!(world.bounds, (3, 4), "never fewer, and one more at most");
        let said = ["1 of 3 nodes are new; it waits", "it goes on"];
        assert_eq!(world.said, said);
    }

    #[test]
    fn more_are_replaced_at_once_after_the_first() {
        let of_half = Refreshing {
            most_percent: 150,
            ..how()
        };
        let mut world = World::new(8, of_half);
        assert_eq!(world.run().1, Outcome::Successful);
        assert_eq!((world.bounds, world.at_once), ((8, 12), 4));
    }

    #[test]
    fn a_group_of_one_has_two_for_a_while() {
        let mut world = World::new(1, how());
        assert_eq!(world.run().1, Outcome::Successful);
        assert_eq!(world.bounds, (1, 2));
    }

    /// What cannot come up replaces nobody.
    #[test]
    fn launches_that_fail_are_its_end() {
        let mut world = World::new(3, how());
        world.broken = true;
        let (took, outcome) = world.run();
        let why = "3 new nodes did not come up".to_owned();
        assert_eq!((took, outcome), (7, Outcome::RolledBack(why)));
        assert_eq!((world.serving(), world.bounds), ((0, 3), (3, 4)));
    }

    /// The first one serves, and then an alarm is raised: an old one comes in its place.
    #[test]
    fn an_alarm_takes_it_back() {
        let mut world = World::new(3, how());
        while world.serving() != (1, 2) {
            assert_eq!(world.half_minute(), None);
        }
        assert!(world.refresh.fail("an alarm"));
        assert!(!world.refresh.fail("another one"), "once");
        assert!(
            !world.refresh.launch_failed(OLD),
            "that is no failure of it"
        );
        let (_, outcome) = world.run();
        assert_eq!(outcome, Outcome::RolledBack("an alarm".to_owned()));
        assert_eq!((world.serving(), world.bounds), ((0, 3), (3, 4)));
    }

    /// The load wants more while the first one is watched: they are new, and are not replaced.
    #[test]
    fn what_scaling_adds_is_new() {
        let mut world = World::new(2, how());
        while world.serving() != (1, 1) {
            assert_eq!(world.half_minute(), None);
        }
        world.desired = 3;
        let added = member(world.refresh.wanted(), Stage::Pending, world.now_ms);
        world.members.push(added);
        assert_eq!(world.run().1, Outcome::Successful);
        assert_eq!((world.serving(), world.bounds), ((3, 0), (2, 4)));
    }
}
