//! What is not certain: servers that do not say, clocks that are wrong, words that are not heard.

use super::*;

fn rebalance() -> Settings {
    Settings {
        rebalance: true,
        ..settings()
    }
}

fn recommended() -> Notices {
    Notices {
        rebalance: true,
        ..lifecycle("InService")
    }
}

/// The group does not hear of an end while the server may still drain, however long it has said
/// nothing useful; that it is gone counts from when it is.
#[test]
fn a_server_that_does_not_say() {
    let mut world = World::held(settings());
    world.notices = lifecycle("Terminated");
    world.pass(10);
    world.busy = true;
    world.pass(40);
    assert!(world.has_said("the server does not say where it stands, and is asked again: busy"));
    let deeds = world.deeds();
    assert!(!deeds.iter().any(|(_, it)| *it == complete()), "{deeds:?}");
    (world.busy, world.server) = (false, None);
    world.pass(20);
    let deeds = world.deeds();
    assert_eq!(
        deeds,
        [(61, complete())],
        "it was there at 50, and not at 51"
    );

    let mut world = World::held(settings());
    world.notices = lifecycle("Terminated");
    world.pass(10);
    world.busy = true;
    world.pass(90);
    assert!(world.has_said("the server has not ended within its deadline"));
    let deeds = world.deeds();
    assert_eq!(deeds.last(), Some(&(80, complete())), "{deeds:?}");
}

/// A server that was too busy to hear that it is to stop is told until it has heard, and that is
/// said once.
#[test]
fn a_server_that_does_not_hear() {
    let mut world = World::new(settings());
    world.busy = true;
    world.notices = lifecycle("Terminated");
    world.pass(20);
    let said = world.said().into_iter();
    let said = said.filter(|it| it.contains("the server has not heard it: busy"));
    assert_eq!(said.count(), 1);
    assert!(world.deeds().len() > 5);
    world.busy = false;
    world.pass(3);
    assert_eq!(world.deeds().len(), 1);
    assert!(world.server.as_ref().unwrap().stopping);
}

/// A server that was down before the notice, for longer than counts as gone, may be about to come up.
#[test]
fn an_absence_before_the_notice() {
    let mut world = World::held(settings());
    world.server = None;
    world.pass(29);
    world.notices = lifecycle("Terminated");
    world.pass(9);
    assert!(!world.deeds().iter().any(|(_, it)| *it == complete()));
    world.server = Some(serving());
    world.pass(10);
    let deeds = world.deeds();
    assert!(deeds.contains(&(39, Effect::Stop(Some(51)))), "{deeds:?}");
    assert!(!deeds.iter().any(|(_, it)| *it == complete()), "{deeds:?}");
}

/// A clock that is fast makes a notice look old. A watch that has just looked without finding one
/// knows better; one that has not goes by the clock.
#[test]
fn a_clock_that_is_fast() {
    let long = || Settings {
        drain_ms: 110 * SECOND,
        ..settings()
    };
    let mut world = World::new(long());
    world.notices = spot(0);
    world.pass(5);
    let words = "warning: by this machine's clock a spot notice that has just come leaves 0 s, which \
                 cannot be: it leaves at least 115 s";
    assert!(world.has_said(words), "{:?}", world.said());
    assert!(world.has_said("spot notice: terminate in 115 s"));
    assert_eq!(world.deeds(), [(5, Effect::Stop(Some(95)))]);

    // The metadata did not answer for a while, in which the notice may have come.
    let mut world = World::new(long());
    world.metadata_down = true;
    world.pass(50);
    world.metadata_down = false;
    world.notices = spot(0);
    world.pass(30);
    let Some((second, Effect::Stop(Some(left)))) = world.deeds().pop() else {
        panic!("{:?}", world.said())
    };
    assert_eq!(
        second + left,
        100,
        "what is left from 0 on, less the reserve"
    );

    let mut world = World::with(long(), spot(0));
    assert_eq!(world.deeds(), [(0, Effect::Stop(Some(1)))]);
}

/// A server that is started anew under a spot notice has what is left of the notice.
#[test]
fn a_server_that_comes_back_under_a_spot_notice() {
    let mut world = World::with(settings(), spot(70));
    assert_eq!(world.deeds(), [(0, Effect::Stop(Some(50)))]);
    for (absent, expected) in [(20, 30), (40, 1)] {
        world.server = None;
        world.pass(absent);
        assert!(world.has_said("the server has ended"));
        world.deeds();
        world.server = Some(serving());
        world.pass(6);
        let deeds = world.deeds();
        let [(_, Effect::Stop(Some(left)))] = deeds[..] else {
            panic!("{deeds:?}")
        };
        assert!(left <= expected, "{left}");
    }
}

/// A recommendation that the server has refused is not pressed; the next one is put to it again.
#[test]
fn a_recommendation_that_is_refused() {
    let mut world = World::new(rebalance());
    world.refuses = Some("alone");
    world.notices = recommended();
    world.pass(60);
    assert!(world.has_said("the server does not drain: alone"));
    assert_eq!(world.deeds(), [(5, Effect::Drain)]);
    world.notices = lifecycle("InService");
    world.pass(10);
    assert_eq!(world.deeds(), [], "there is nothing to take back");
    world.refuses = None;
    world.notices = recommended();
    world.pass(10);
    assert_eq!(world.deeds(), [(75, Effect::Drain)]);
}

/// A recommendation waits for a server to put it to.
#[test]
fn a_recommendation_without_a_server() {
    let mut world = World::new(rebalance());
    world.server = None;
    world.pass(6);
    world.notices = recommended();
    world.pass(20);
    assert_eq!(world.deeds(), []);
    world.server = Some(serving());
    world.pass(10);
    assert_eq!(world.deeds(), [(35, Effect::Drain)]);
}

/// A drain that was to be taken back does not stay because the server was busy.
#[test]
fn an_abort_that_is_not_heard() {
    let mut world = World::new(rebalance());
    world.notices = recommended();
    world.pass(10);
    world.deeds();
    world.busy = true;
    world.notices = lifecycle("InService");
    world.pass(10);
    assert_eq!(world.deeds(), [(15, Effect::Abort)]);
    world.busy = false;
    world.pass(10);
    assert_eq!(world.deeds(), [(25, Effect::Abort)]);
    assert!(!world.server.as_ref().unwrap().draining);
    world.pass(30);
    assert_eq!(world.deeds(), []);
}
