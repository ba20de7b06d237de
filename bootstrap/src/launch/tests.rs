use super::*;

fn state(state: &str) -> Seen {
    Seen::State("g".into(), state.into())
}

fn hooks(names: &[&str]) -> Seen {
    Seen::Hooks(names.iter().map(|name| (*name).to_owned()).collect())
}

/// Feeds what is seen, one each 100 ms, and gives the last step.
fn run(seen: &[Seen]) -> Step {
    let (mut launch, mut step) = Launch::new(0);
    for (i, seen) in (1..).zip(seen) {
        step = launch.step(seen.clone(), i * 100);
    }
    step
}

fn completed(hook: &str, attempts: u32) -> Step {
    let (group, hook) = ("g".to_owned(), hook.to_owned());
    Step::Over(Outcome::Completed {
        group,
        hook,
        attempts,
    })
}

#[test]
fn an_instance_that_its_group_waits_for() {
    let seen = [state("Pending:Wait"), hooks(&["h"]), Seen::Completed];
    assert_eq!(run(&seen[..1]), Step::List("g".into()));
    let (group, hook) = ("g".to_owned(), "h".to_owned());
    assert_eq!(run(&seen[..2]), Step::Complete { group, hook });
    assert_eq!(run(&seen), completed("h", 1));
    let seen = [state("Warmed:Pending:Wait"), hooks(&["h"]), Seen::Completed];
    assert_eq!(run(&seen), completed("h", 1));
}

#[test]
fn an_instance_that_is_done_before_its_group_waits() {
    let seen = [
        state("Pending"),
        Seen::Waited,
        state("Pending:Wait"),
        hooks(&["h"]),
        Seen::NoAction,
        Seen::Waited,
        state("Pending:Wait"),
        Seen::Completed,
    ];
    assert_eq!(run(&seen[..1]), Step::Pause(250));
    assert_eq!(run(&seen[..2]), Step::Look);
    assert_eq!(run(&seen[..5]), Step::Pause(500));
    assert_eq!(run(&seen), completed("h", 2));
}

#[test]
fn where_there_is_nothing_to_say() {
    for (seen, why) in [
        (vec![Seen::NoGroup], "in no autoscaling group"),
        (
            vec![state("InService")],
            "no hook waits; in g it is InService",
        ),
        (
            vec![state("Pending:Proceed")],
            "no hook waits; in g it is Pending:Proceed",
        ),
        (
            vec![state("Terminating:Wait")],
            "no hook waits; in g it is Terminating:Wait",
        ),
        (
            vec![state("Pending:Wait"), hooks(&[])],
            "its group has no launch hook",
        ),
    ] {
        assert_eq!(run(&seen), nothing(why));
    }
}

#[test]
fn of_several_hooks_ours_is_known_by_its_name() {
    let seen = |names: &[&str]| [state("Pending:Wait"), hooks(names), Seen::Completed];
    assert_eq!(run(&seen(&["other", "ready"])), completed("ready", 1));
    let Step::Over(Outcome::Failed(why)) = run(&seen(&["a", "b"])[..2]) else {
        panic!("it must not complete the hook of somebody else");
    };
    assert_eq!(
        why,
        "its group has the launch hooks a, b, none named `ready`"
    );
}

#[test]
fn a_refusal_ends_it_and_patience_does() {
    let refused = || Seen::Refused("AccessDenied".into());
    let over = Step::Over(Outcome::Failed("AccessDenied".into()));
    // A permission that was given a moment ago is not known everywhere yet.
    assert_eq!(run(&[refused()]), Step::Pause(250));
    let (mut launch, _) = Launch::new(1_000);
    assert_eq!(launch.step(refused(), 21_000), over);
    let (mut launch, _) = Launch::new(1_000);
    let (mut now, mut pauses) = (1_000, 0);
    let why = loop {
        match launch.step(Seen::Passing("Throttling".into()), now) {
            Step::Pause(ms) => {
                assert!(ms <= 8_000);
                now += ms;
                pauses += 1;
            }
            Step::Over(outcome) => break outcome.to_string(),
            other => panic!("{other:?}"),
        }
    };
    let expected = "warning: the hook could not be completed: not within 120 s: Throttling";
    assert_eq!(why, expected);
    assert!(now <= 1_000 + PATIENCE_MS && pauses < 30, "{now} {pauses}");
}
