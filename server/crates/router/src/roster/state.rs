//! The subscription state machine of RFC 6121 Appendix A, pre-approval (section 3.4) included.
//!
//! The nine states are four facts with two exclusions; the transitions are written as rules over
//! those facts. The tests hold them against the RFC's tables, row by row.

use cirrus_stanza::Ty;
use serde::{Deserialize, Serialize};

/// Who is subscribed to whose presence (RFC 6121 section 2.1.2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Subscription {
    /// Nobody.
    None,
    /// The user to the contact.
    To,
    /// The contact to the user.
    From,
    /// Both.
    Both,
}

impl Subscription {
    /// The value of the `subscription` attribute.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::To => "to",
            Self::From => "from",
            Self::Both => "both",
        }
    }

    /// The user receives the contact's presence.
    pub fn is_to(self) -> bool {
        matches!(self, Self::To | Self::Both)
    }

    /// The contact receives the user's presence.
    pub fn is_from(self) -> bool {
        matches!(self, Self::From | Self::Both)
    }
}

/// The four presence types that manage subscriptions (RFC 6121 section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// Asks for the other's presence.
    Subscribe,
    /// No longer wants the other's presence.
    Unsubscribe,
    /// Lets the other have one's presence.
    Subscribed,
    /// Refuses the other one's presence.
    Unsubscribed,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Subscribe,
        Self::Unsubscribe,
        Self::Subscribed,
        Self::Unsubscribed,
    ];

    /// The kind of a presence type; `None` for the types that aren't about subscriptions.
    pub fn from_ty(ty: Ty) -> Option<Self> {
        Some(match ty {
            Ty::Subscribe => Self::Subscribe,
            Ty::Unsubscribe => Self::Unsubscribe,
            Ty::Subscribed => Self::Subscribed,
            Ty::Unsubscribed => Self::Unsubscribed,
            _ => return None,
        })
    }

    /// The presence type.
    pub fn ty(self) -> Ty {
        match self {
            Self::Subscribe => Ty::Subscribe,
            Self::Unsubscribe => Ty::Unsubscribe,
            Self::Subscribed => Ty::Subscribed,
            Self::Unsubscribed => Ty::Unsubscribed,
        }
    }
}

/// A state of RFC 6121 Appendix A.1, seen from the user who owns the roster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct State {
    /// The user is subscribed to the contact.
    to: bool,
    /// The contact is subscribed to the user.
    from: bool,
    /// "Pending Out": the user asked and was not answered; never together with `to`.
    ask: bool,
    /// "Pending In": the contact asked and was not answered; never together with `from`.
    pending_in: bool,
}

impl State {
    /// "None"
    pub const NONE: Self = Self::bits(false, false, false, false);
    /// "None + Pending Out"
    pub const NONE_OUT: Self = Self::bits(false, false, true, false);
    /// "None + Pending In"
    pub const NONE_IN: Self = Self::bits(false, false, false, true);
    /// "None + Pending Out+In"
    pub const NONE_OUT_IN: Self = Self::bits(false, false, true, true);
    /// "To"
    pub const TO: Self = Self::bits(true, false, false, false);
    /// "To + Pending In"
    pub const TO_IN: Self = Self::bits(true, false, false, true);
    /// "From"
    pub const FROM: Self = Self::bits(false, true, false, false);
    /// "From + Pending Out"
    pub const FROM_OUT: Self = Self::bits(false, true, true, false);
    /// "Both"
    pub const BOTH: Self = Self::bits(true, true, false, false);
    /// The nine states in the RFC's order.
    pub const ALL: [Self; 9] = [
        Self::NONE,
        Self::NONE_OUT,
        Self::NONE_IN,
        Self::NONE_OUT_IN,
        Self::TO,
        Self::TO_IN,
        Self::FROM,
        Self::FROM_OUT,
        Self::BOTH,
    ];

    const fn bits(to: bool, from: bool, ask: bool, pending_in: bool) -> Self {
        Self {
            to,
            from,
            ask,
            pending_in,
        }
    }

    /// The state of a stored item. A request that its answer has overtaken is left out, so every
    /// combination gives one of the nine states.
    pub fn new(subscription: Subscription, ask: bool, pending_in: bool) -> Self {
        let (to, from) = (subscription.is_to(), subscription.is_from());
        Self::bits(to, from, ask && !to, pending_in && !from)
    }

    /// The `subscription` attribute.
    pub fn subscription(self) -> Subscription {
        match (self.to, self.from) {
            (false, false) => Subscription::None,
            (true, false) => Subscription::To,
            (false, true) => Subscription::From,
            (true, true) => Subscription::Both,
        }
    }

    /// "Pending Out", the `ask` attribute.
    pub fn ask(self) -> bool {
        self.ask
    }

    /// "Pending In", which no roster item shows (RFC 6121 section 3.1.3).
    pub fn pending_in(self) -> bool {
        self.pending_in
    }

    /// The same state without the contact's pending request.
    #[must_use]
    pub fn answered(self) -> Self {
        Self {
            pending_in: false,
            ..self
        }
    }
}

/// What an outbound or inbound subscription stanza does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The state afterwards.
    pub state: State,
    /// Whether the contact is pre-approved afterwards.
    pub approved: bool,
    /// Outbound: send it on to the contact. Inbound: deliver it to the user.
    pub pass: bool,
    /// Inbound: answer the contact in the user's name.
    pub reply: Option<Kind>,
    /// The roster item's visible part changed: push it.
    pub push: bool,
}

/// A subscription stanza from the user to the contact (Appendix A.2).
pub fn outbound(state: State, approved: bool, kind: Kind) -> Transition {
    let mut new = state;
    let mut new_approved = approved;
    let pass = match kind {
        Kind::Subscribe => {
            new.ask = !state.to;
            true
        }
        Kind::Unsubscribe => {
            new.to = false;
            new.ask = false;
            true
        }
        Kind::Subscribed => {
            // Without a request to answer it is a pre-approval, which stays at home.
            new.from |= state.pending_in;
            new.pending_in = false;
            new_approved |= !new.from;
            state.pending_in
        }
        Kind::Unsubscribed => {
            new.from = false;
            new.pending_in = false;
            new_approved = false;
            state.from || state.pending_in
        }
    };
    finish(state, approved, new, new_approved, pass, None)
}

/// A subscription stanza from the contact to the user (Appendix A.3).
pub fn inbound(state: State, approved: bool, kind: Kind) -> Transition {
    let mut new = state;
    let mut reply = None;
    let pass = match kind {
        Kind::Subscribe if state.from || approved => {
            new.from = true;
            new.pending_in = false;
            reply = Some(Kind::Subscribed);
            false
        }
        Kind::Subscribe => {
            new.pending_in = true;
            !state.pending_in
        }
        Kind::Unsubscribe => {
            let known = state.from || state.pending_in;
            new.from = false;
            new.pending_in = false;
            reply = known.then_some(Kind::Unsubscribed);
            known
        }
        Kind::Subscribed => {
            new.to |= state.ask;
            new.ask = false;
            state.ask
        }
        Kind::Unsubscribed => {
            new.to = false;
            new.ask = false;
            state.to || state.ask
        }
    };
    finish(state, approved, new, approved, pass, reply)
}

fn finish(
    old: State,
    old_approved: bool,
    state: State,
    approved: bool,
    pass: bool,
    reply: Option<Kind>,
) -> Transition {
    let push = old.answered() != state.answered() || old_approved != approved;
    Transition {
        state,
        approved,
        pass,
        reply,
        push,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const N: State = State::NONE;
    const NO: State = State::NONE_OUT;
    const NI: State = State::NONE_IN;
    const NOI: State = State::NONE_OUT_IN;
    const T: State = State::TO;
    const TI: State = State::TO_IN;
    const F: State = State::FROM;
    const FO: State = State::FROM_OUT;
    const B: State = State::BOTH;

    /// One row of Appendix A: existing state, routed or delivered, new state.
    type Row = (State, bool, State);

    /// A.2.1
    const OUT_SUBSCRIBE: [Row; 9] = [
        (N, true, NO),
        (NO, true, NO),
        (NI, true, NOI),
        (NOI, true, NOI),
        (T, true, T),
        (TI, true, TI),
        (F, true, FO),
        (FO, true, FO),
        (B, true, B),
    ];
    /// A.2.2
    const OUT_UNSUBSCRIBE: [Row; 9] = [
        (N, true, N),
        (NO, true, N),
        (NI, true, NI),
        (NOI, true, NI),
        (T, true, N),
        (TI, true, NI),
        (F, true, F),
        (FO, true, F),
        (B, true, F),
    ];
    /// A.2.3
    const OUT_SUBSCRIBED: [Row; 9] = [
        (N, false, N),
        (NO, false, NO),
        (NI, true, F),
        (NOI, true, FO),
        (T, false, T),
        (TI, true, B),
        (F, false, F),
        (FO, false, FO),
        (B, false, B),
    ];
    /// A.2.4
    const OUT_UNSUBSCRIBED: [Row; 9] = [
        (N, false, N),
        (NO, false, NO),
        (NI, true, N),
        (NOI, true, NO),
        (T, false, T),
        (TI, true, T),
        (F, true, N),
        (FO, true, NO),
        (B, true, T),
    ];
    /// A.3.1
    const IN_SUBSCRIBE: [Row; 9] = [
        (N, true, NI),
        (NO, true, NOI),
        (NI, false, NI),
        (NOI, false, NOI),
        (T, true, TI),
        (TI, false, TI),
        (F, false, F),
        (FO, false, FO),
        (B, false, B),
    ];
    /// A.3.2
    const IN_UNSUBSCRIBE: [Row; 9] = [
        (N, false, N),
        (NO, false, NO),
        (NI, true, N),
        (NOI, true, NO),
        (T, false, T),
        (TI, true, T),
        (F, true, N),
        (FO, true, NO),
        (B, true, T),
    ];
    /// A.3.3
    const IN_SUBSCRIBED: [Row; 9] = [
        (N, false, N),
        (NO, true, T),
        (NI, false, NI),
        (NOI, true, TI),
        (T, false, T),
        (TI, false, TI),
        (F, false, F),
        (FO, true, B),
        (B, false, B),
    ];
    /// A.3.4
    const IN_UNSUBSCRIBED: [Row; 9] = [
        (N, false, N),
        (NO, true, N),
        (NI, false, NI),
        (NOI, true, NI),
        (T, true, N),
        (TI, true, NI),
        (F, false, F),
        (FO, true, F),
        (B, true, F),
    ];

    fn visible(state: State) -> (Subscription, bool) {
        (state.subscription(), state.ask())
    }

    fn check(
        name: &str,
        kind: Kind,
        rows: &[Row; 9],
        step: fn(State, bool, Kind) -> Transition,
    ) -> usize {
        for (row, state) in rows.iter().zip(State::ALL) {
            assert_eq!(row.0, state, "{name}: the rows are in the RFC's order");
            let got = step(row.0, false, kind);
            assert_eq!(got.state, row.2, "{name}: new state of {state:?}");
            assert_eq!(got.pass, row.1, "{name}: routed or delivered in {state:?}");
        }
        rows.len()
    }

    #[test]
    fn every_row_of_appendix_a() {
        let rows = check("A.2.1", Kind::Subscribe, &OUT_SUBSCRIBE, outbound)
            + check("A.2.2", Kind::Unsubscribe, &OUT_UNSUBSCRIBE, outbound)
            + check("A.2.3", Kind::Subscribed, &OUT_SUBSCRIBED, outbound)
            + check("A.2.4", Kind::Unsubscribed, &OUT_UNSUBSCRIBED, outbound)
            + check("A.3.1", Kind::Subscribe, &IN_SUBSCRIBE, inbound)
            + check("A.3.2", Kind::Unsubscribe, &IN_UNSUBSCRIBE, inbound)
            + check("A.3.3", Kind::Subscribed, &IN_SUBSCRIBED, inbound)
            + check("A.3.4", Kind::Unsubscribed, &IN_UNSUBSCRIBED, inbound);
        assert_eq!(rows, 72);
    }

    #[test]
    fn a_push_follows_exactly_what_an_item_shows() {
        for state in State::ALL {
            for kind in Kind::ALL {
                for step in [outbound, inbound] {
                    for approved in [false, true] {
                        let got = step(state, approved, kind);
                        let changed =
                            visible(state) != visible(got.state) || approved != got.approved;
                        assert_eq!(got.push, changed, "{state:?} {kind:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_server_answers_for_the_user() {
        for state in State::ALL {
            let from = state.subscription().is_from();
            for kind in Kind::ALL {
                let reply = inbound(state, false, kind).reply;
                let expected = match kind {
                    // Note 2 of A.3.1
                    Kind::Subscribe => from.then_some(Kind::Subscribed),
                    // Note 1 of A.3.2
                    Kind::Unsubscribe => (from || state.pending_in()).then_some(Kind::Unsubscribed),
                    _ => None,
                };
                assert_eq!(reply, expected, "{state:?} {kind:?}");
                assert_eq!(outbound(state, false, kind).reply, None);
            }
        }
    }

    #[test]
    fn pre_approval_is_noted_where_section_3_4_2_says() {
        for state in State::ALL {
            let got = outbound(state, false, Kind::Subscribed);
            let noted = [N, NO, T].contains(&state);
            assert_eq!(got.approved, noted, "{state:?}");
            assert!(!(noted && got.pass), "a pre-approval is never routed");
        }
    }

    #[test]
    fn a_pre_approved_request_is_granted_without_asking() {
        for (state, granted) in [(N, F), (NO, FO), (T, B), (F, F), (FO, FO), (B, B)] {
            let got = inbound(state, true, Kind::Subscribe);
            assert_eq!((got.state, got.reply), (granted, Some(Kind::Subscribed)));
            assert!(!got.pass);
        }
    }

    #[test]
    fn pre_approval_is_cancelled_by_unsubscribed_only() {
        for state in State::ALL {
            for kind in Kind::ALL {
                let cancelled = !outbound(state, true, kind).approved;
                assert_eq!(cancelled, kind == Kind::Unsubscribed, "{state:?} {kind:?}");
                assert!(inbound(state, true, kind).approved);
            }
        }
        let silent = outbound(N, true, Kind::Unsubscribed);
        assert!(
            silent.push && !silent.pass,
            "cancelling a pre-approval is not routed"
        );
    }

    #[test]
    fn stored_parts_give_one_of_the_nine_states() {
        use Subscription as S;
        for subscription in [S::None, S::To, S::From, S::Both] {
            for (ask, pending) in [(false, false), (false, true), (true, false), (true, true)] {
                let state = State::new(subscription, ask, pending);
                assert!(State::ALL.contains(&state));
                assert_eq!(state.subscription(), subscription);
            }
        }
        assert_eq!(State::new(S::Both, true, true), B);
        assert_eq!(State::new(S::None, true, true), NOI);
    }

    #[test]
    fn kinds_are_presence_types() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_ty(kind.ty()), Some(kind));
        }
        assert_eq!(Kind::from_ty(Ty::Probe), None);
    }
}
