use proptest::prelude::*;

use super::*;

fn done() -> Event {
    Event::Done("did it".into())
}

/// Feeds events, one each second, and gives all effects.
fn run(command: Command, events: &[Event]) -> Vec<Effect> {
    let (mut boot, mut out) = Boot::new(command, 0);
    for (i, event) in events.iter().enumerate() {
        out.extend(boot.step(event.clone(), (i as u64 + 1) * 1000));
    }
    out
}

fn statuses(effects: &[Effect]) -> Vec<String> {
    let status = |e: &Effect| match e {
        Effect::Status(s) => Some(s.to_string()),
        _ => None,
    };
    effects.iter().filter_map(status).collect()
}

fn entered(effects: &[Effect]) -> Vec<&'static str> {
    let phase = |e: &Effect| match e {
        Effect::Enter(p) => Some(p.name()),
        _ => None,
    };
    effects.iter().filter_map(phase).collect()
}

#[test]
fn a_boot_that_works() {
    let effects = run(Command::Run, &vec![done(); 8]);
    let order = "discover parse validate provision secrets render start ready";
    assert_eq!(entered(&effects).join(" "), order);
    assert_eq!(
        statuses(&effects),
        ["CIRRUS-BOOT ok phase=ready code=ok seconds=8.000"]
    );
    assert_eq!(effects.last(), Some(&Effect::Serve));
    let ended = run(
        Command::Run,
        &[vec![done(); 8], vec![Event::ServerEnded(3)]].concat(),
    );
    assert_eq!(ended.last(), Some(&Effect::Exit(3)));
    assert_eq!(statuses(&ended).len(), 1);
}

#[test]
fn a_server_that_is_systemds_is_stopped_when_it_stays_silent() {
    let late = Event::Failed(Code::ServerSilent, "nothing opened".into());
    let effects = run(Command::Launch, &[vec![done(); 7], vec![late]].concat());
    assert!(effects.contains(&Effect::StopServer));
    assert_eq!(effects.last(), Some(&Effect::Exit(62)));
}

#[test]
fn the_other_commands_end_by_themselves() {
    for (command, phases, last) in [
        (Command::Launch, 8, "ready"),
        (Command::Check, 3, "validate"),
        (Command::Plan, 4, "provision"),
        (Command::Render, 4, "render"),
    ] {
        let effects = run(command, &vec![done(); phases]);
        let seconds = phases;
        let expected = format!("CIRRUS-BOOT ok phase={last} code=ok seconds={seconds}.000");
        assert_eq!(statuses(&effects), [expected]);
        assert_eq!(effects.last(), Some(&Effect::Exit(0)));
    }
}

#[test]
fn a_failure_names_its_phase() {
    let why = "user-data:1:1: no \"such\" thing\nand more".to_owned();
    let effects = run(
        Command::Run,
        &[done(), Event::Failed(Code::ConfigInvalid, why)],
    );
    let expected = "CIRRUS-BOOT fail phase=parse code=config-invalid seconds=2.000 \
                    message=\"user-data:1:1: no \\\"such\\\" thing\"";
    assert_eq!(statuses(&effects), [expected]);
    assert_eq!(effects.last(), Some(&Effect::Exit(20)));
    assert!(!effects.contains(&Effect::StopServer));
}

#[test]
fn a_server_that_dies_or_stays_silent() {
    let before = vec![done(); 7];
    let dies = run(
        Command::Run,
        &[before.clone(), vec![Event::ServerEnded(101)]].concat(),
    );
    assert!(statuses(&dies)[0].starts_with("CIRRUS-BOOT fail phase=ready code=server-exited"));
    let silent = Event::Failed(Code::ServerSilent, "nothing on [::1]:5222".into());
    let silent = run(Command::Run, &[before, vec![silent]].concat());
    assert!(silent.contains(&Effect::StopServer));
    assert_eq!(silent.last(), Some(&Effect::Exit(62)));
}

#[test]
fn an_interrupt_ends_it() {
    let early = run(Command::Run, &[done(), Event::Interrupted]);
    assert!(statuses(&early)[0].starts_with("CIRRUS-BOOT fail phase=parse code=interrupted"));
    let late = run(
        Command::Run,
        &[vec![done(); 7], vec![Event::Interrupted]].concat(),
    );
    assert!(late.contains(&Effect::StopServer));
    assert_eq!(late.last(), Some(&Effect::Exit(70)));
}

fn reports(effects: &[Effect]) -> Vec<Report> {
    let report = |e: &Effect| match e {
        Effect::Report(report) => Some(report.clone()),
        _ => None,
    };
    effects.iter().filter_map(report).collect()
}

#[test]
fn a_boot_is_reported_once_and_only_a_boot() {
    let ready = run(Command::Run, &vec![done(); 8]);
    assert_eq!(reports(&ready), [Report::Ready]);
    let launched = run(
        Command::Launch,
        &vec![done(); Command::Launch.phases().len()],
    );
    assert_eq!(reports(&launched), [Report::Ready]);
    let failed = Event::Failed(Code::AwsRefused, "no".into());
    let failed = run(Command::Run, &[vec![done(); 3], vec![failed]].concat());
    assert_eq!(
        reports(&failed),
        [Report::Failed(Phase::Provision, Code::AwsRefused)]
    );
    assert!(matches!(
        failed.as_slice(),
        [.., Effect::Status(_), Effect::Report(_), Effect::Exit(40)]
    ));
    for command in [Command::Check, Command::Plan, Command::Render] {
        assert_eq!(reports(&run(command, &vec![done(); 4])), []);
    }
}

#[test]
fn what_aws_hears() {
    let failed = Report::Failed(Phase::Parse, Code::ReferenceHash);
    assert_eq!(failed.hook_result(), "ABANDON");
    assert_eq!(failed.tag(), "fail phase=parse code=reference-hash");
    assert_eq!(Report::Ready.hook_result(), "CONTINUE");
    assert_eq!(Report::Ready.tag(), "ok");
    // A tag's value has at most 256 characters, of these.
    for code in Code::ALL {
        let tag = Report::Failed(Phase::Provision, *code).tag();
        let allowed = |c: char| c.is_ascii_alphanumeric() || " _.:/=+-@".contains(c);
        assert!(tag.len() <= 256 && tag.chars().all(allowed), "{tag}");
    }
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => Just(done()),
        1 => Just(Event::Failed(Code::AwsRefused, "no".into())),
        1 => Just(Event::Interrupted),
        1 => any::<u8>().prop_map(Event::ServerEnded),
    ]
}

proptest! {
    #[test]
    fn one_status_line_and_the_exit_last(
        events in prop::collection::vec(any_event(), 0..40),
        command in prop::sample::select(vec![
            Command::Run, Command::Check, Command::Plan, Command::Render,
        ]),
    ) {
        let effects = run(command, &events);
        let exits = effects.iter().filter(|e| matches!(e, Effect::Exit(_))).count();
        let told = statuses(&effects).len();
        prop_assert!(told <= 1 && exits <= 1);
        let boots = matches!(command, Command::Run | Command::Launch);
        let reported = if boots { told } else { 0 };
        prop_assert_eq!(reports(&effects).len(), reported);
        if exits == 1 {
            prop_assert_eq!(told, 1);
            prop_assert!(matches!(effects.last(), Some(Effect::Exit(_))));
        }
        let order = entered(&effects);
        let mut once = order.clone();
        once.dedup();
        let phases: Vec<_> = command.phases().iter().map(|p| p.name()).collect();
        prop_assert_eq!(&once[..], &phases[..once.len()]);
    }
}
