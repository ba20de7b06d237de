//! Whatever happens in whatever order: memory, store and the state machine of RFC 6121 agree.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Set(usize),
    Remove(usize),
    Out(usize, Kind),
    In(usize, Kind),
    Confirm(usize, Kind),
    /// The process dies after the deciding write of the next step.
    Die,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let who = 0..3usize;
    let kind = prop::sample::select(&Kind::ALL[..]);
    let step = prop_oneof![
        2 => who.clone().prop_map(Step::Set),
        1 => who.clone().prop_map(Step::Remove),
        4 => (who.clone(), kind.clone()).prop_map(|(who, kind)| Step::Out(who, kind)),
        4 => (who.clone(), kind.clone()).prop_map(|(who, kind)| Step::In(who, kind)),
        3 => (who, kind).prop_map(|(who, kind)| Step::Confirm(who, kind)),
        1 => Just(Step::Die),
    ];
    prop::collection::vec(step, 1..60)
}

fn run(steps: Vec<Step>) {
    let mut user = User::new();
    let mut model = [(State::NONE, false); 3];
    let mut last_version = 0;
    let mut dies = false;
    for step in steps {
        let now = user.now;
        let jid = |who: &usize| bare(&format!("c{who}@example.net"));
        let known = [0, 1, 2].map(|who| user.roster.contact(&jid(&who)).is_some());
        let roster = &mut user.roster;
        let planned = match &step {
            Step::Set(who) => {
                let (jid, name) = (jid(who), Some("x".into()));
                Some(roster.plan_set(
                    now,
                    1,
                    Set::Update {
                        jid,
                        name,
                        groups: Box::default(),
                    },
                ))
            }
            Step::Remove(who) if known[*who] => {
                model[*who] = (State::NONE, false);
                Some(roster.plan_set(now, 1, Set::Remove { jid: jid(who) }))
            }
            Step::Out(who, kind) => {
                let step = outbound(model[*who].0, model[*who].1, *kind);
                model[*who] = (step.state, step.approved);
                Some(roster.plan_outbound(now, 1, &jid(who), *kind))
            }
            Step::In(who, kind) => {
                let step = inbound(model[*who].0, model[*who].1, *kind);
                model[*who] = (step.state, step.approved);
                Some(roster.plan_inbound(now, 1, &jid(who), *kind, b"<presence/>", None))
            }
            Step::Confirm(who, kind) => {
                let number = roster.number(&jid(who), *kind);
                let planned = roster.plan_confirmed(1, &jid(who), *kind, number);
                planned.unwrap().map(Ok)
            }
            Step::Remove(_) => None,
            Step::Die => {
                dies = true;
                None
            }
        };
        let Some(planned) = planned else { continue };
        if std::mem::take(&mut dies) {
            let mut planned = planned.unwrap();
            if let Some(op) = planned.write.take() {
                user.rows.apply(op).unwrap();
            }
            let loaded = user.rows.load();
            user.roster = loaded.roster;
            for op in loaded.cleanup {
                user.rows.apply(op).unwrap();
            }
            user.check_loaded();
            last_version = last_version.max(user.roster.version());
        } else if let Some(push) = user.carry_out(planned).push {
            assert!(push.version > last_version);
            last_version = push.version;
        }
        for (who, (state, approved)) in model.iter().enumerate() {
            assert_eq!(user.roster.state(&jid(&who)), *state, "{step:?}");
            let contact = user.roster.contact(&jid(&who));
            assert_eq!(contact.is_some_and(|contact| contact.approved), *approved);
        }
    }
    assert!(user.rows.items.len() <= 6, "a contact has at most two rows");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 512,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn memory_and_store_agree_with_the_state_machine(steps in steps()) {
        run(steps);
    }
}
