//! The scripted day of one user, and what it asks of the store.

use crate::measured::{self, BODY, STORED};

/// Something that a user does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Act {
    /// In words.
    pub what: &'static str,
    /// How often in a day, on average.
    pub times: f64,
    /// The step of the measured day that says what one costs.
    pub step: &'static str,
    /// Bytes that one brings to clients, all headers included. Assumed.
    pub sent: f64,
    /// Stanzas of one that go from account to account.
    pub stanzas: f64,
    /// What one adds to archives.
    pub archived: Archived,
    /// It opens a connection.
    pub connects: bool,
}

/// What is archived, in both users' archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Archived {
    /// Nothing.
    Nothing,
    /// A message: an item and a record in each.
    Message,
    /// A receipt and a marker, which other items take along: two records in each.
    ReceiptAndMarker,
}

use Archived::{Message, Nothing, ReceiptAndMarker};

const fn act(what: &'static str, times: f64, step: &'static str, sent: f64) -> Act {
    Act {
        what,
        times,
        step,
        sent,
        stanzas: 0.0,
        archived: Nothing,
        connects: false,
    }
}

const fn to_others(act: Act, stanzas: f64, archived: Archived) -> Act {
    Act {
        stanzas,
        archived,
        ..act
    }
}

const fn connects(act: Act) -> Act {
    Act {
        connects: true,
        ..act
    }
}

/// The day. What another user does to this one stands at the other one's day.
pub const DAY: &[Act] = &[
    connects(act(
        "logs in, is not in memory",
        2.0,
        "login, cold",
        12_000.0,
    )),
    connects(act(
        "logs in and gets what waited",
        1.0,
        "login that gets two messages, and their cursor",
        14_000.0,
    )),
    connects(act(
        "logs in with a second client",
        1.0,
        "login of a second resource",
        12_000.0,
    )),
    connects(act("resumes the session", 20.0, "resumption", 3_000.0)),
    to_others(
        act(
            "shows another presence to 10 who are there",
            10.0,
            "presence",
            3_000.0,
        ),
        10.0,
        Nothing,
    ),
    to_others(
        act("shows that they write", 80.0, "chat state", 300.0),
        1.0,
        Nothing,
    ),
    to_others(
        act(
            "writes to somebody who is there",
            30.0,
            "message that takes a receipt and a marker along",
            800.0,
        ),
        1.0,
        Message,
    ),
    to_others(
        act(
            "writes to somebody who is away",
            9.93,
            "message to a user who is away",
            800.0,
        ),
        1.0,
        Message,
    ),
    to_others(
        act(
            "writes the week's first message, for both",
            0.07,
            "message to a user who is away and not in memory, the first in a week for both",
            800.0,
        ),
        1.0,
        Message,
    ),
    to_others(
        act(
            "sends a receipt (XEP-0184) and a displayed marker (XEP-0333)",
            40.0,
            "receipt and marker, which wait",
            700.0,
        ),
        2.0,
        ReceiptAndMarker,
    ),
    act(
        "asks for a page of 50 messages",
        5.0,
        "page of the archive, and the index",
        35_000.0,
    ),
    act(
        "asks for the archive's ends",
        2.0,
        "first and last of the archive",
        500.0,
    ),
    act(
        "asks for the archive's length",
        2.0,
        "number of messages in the archive",
        500.0,
    ),
    act(
        "changes the roster",
        0.1,
        "roster item added, with its push",
        500.0,
    ),
    act(
        "changes archive preferences",
        0.01,
        "archive preferences",
        500.0,
    ),
    act("ends a session", 4.0, "end of a session", 200.0),
];

/// What moves with the users and not with the product, each with what is assumed of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Assumed {
    /// Messages, and what goes with them, against the script.
    pub talk: f64,
    /// Characters of a body.
    pub body: f64,
    /// Bytes to clients against the script.
    pub sent: f64,
    /// Sessions in the busiest hour for each user of the day: half of them are there, with 1.4
    /// clients each.
    pub sessions: f64,
    /// Sessions of a node beyond which another one is added, against the plan.
    pub sessions_per_node: f64,
    /// Days that items stay in the table: 91 after their row's day, which is at most 7 later.
    pub table_days: f64,
    /// Days that segments are kept when the bill is made.
    pub kept_days: f64,
    /// Tables are backed up as the plan says.
    pub backed_up: bool,
    /// Share of the nodes above the first that are spot instances.
    pub spot: f64,
}

/// As the document reckons.
pub const ASSUMED: Assumed = Assumed {
    talk: 1.0,
    body: BODY as f64,
    sent: 1.0,
    sessions: 0.7,
    sessions_per_node: 1.0,
    table_days: 98.0,
    kept_days: 365.0,
    backed_up: true,
    spot: 0.0,
};

/// Sessions and whatever users do, hour by hour, as a share of the busiest hour.
pub const HOURS: [f64; 24] = [
    0.35, 0.25, 0.2, 0.18, 0.18, 0.2, 0.3, 0.45, 0.6, 0.7, 0.75, 0.8, 0.85, 0.8, 0.8, 0.8, 0.85,
    0.9, 0.95, 1.0, 1.0, 0.9, 0.7, 0.5,
];

/// What comes from clients for each byte that goes to them.
pub const RECEIVED: f64 = 0.5;

/// Bytes that DynamoDB reckons for an item besides its own.
pub const ITEM_OVERHEAD: f64 = 100.0;

/// Most bytes of a write unit.
pub const WRITE_UNIT: f64 = 1_024.0;

/// One user's day, summed.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Day {
    /// Write units, sealing included.
    pub writes: f64,
    /// Read units, sealing included.
    pub reads: f64,
    /// Segments sealed.
    pub seals: f64,
    /// Messages sent.
    pub messages: f64,
    /// Messages for somebody who is away.
    pub late: f64,
    /// Pairs of a receipt and a marker.
    pub receipts: f64,
    /// Items of archives.
    pub items: f64,
    /// Their bytes, as DynamoDB reckons storage.
    pub item_bytes: f64,
    /// Records of archives.
    pub records: f64,
    /// Bytes of segments.
    pub segment_bytes: f64,
    /// Bytes to clients.
    pub sent: f64,
    /// Stanzas from account to account.
    pub stanzas: f64,
    /// Connections that are opened.
    pub connections: f64,
}

impl Day {
    /// The script under these assumptions.
    ///
    /// # Errors
    /// When the measured day lacks a step of the script.
    pub fn of(assumed: &Assumed) -> Result<Self, String> {
        let steps = measured::steps()?;
        let mut day = Self::default();
        for act in DAY {
            let units = steps.get(act.step);
            let units = units.ok_or(format!("the measured day has no `{}`", act.step))?;
            let talks = act.archived != Nothing || act.step == "chat state";
            let times = act.times * if talks { assumed.talk } else { 1.0 };
            day.writes += times * units.write;
            day.reads += times * units.read;
            day.sent += times * act.sent * assumed.sent;
            day.stanzas += times * act.stanzas;
            day.connections += if act.connects { times } else { 0.0 };
            match act.archived {
                Nothing => {}
                Message => day.messages += times,
                ReceiptAndMarker => day.receipts += times,
            }
            day.late += if act.step.contains("away") {
                times
            } else {
                0.0
            };
        }
        let longer = assumed.body - BODY as f64;
        let taken = STORED.message + STORED.receipt_and_marker + longer;
        // Beyond what was measured, each unit more counts in both archives.
        day.writes += day.messages * 2.0 * ((taken / WRITE_UNIT).ceil() - 1.0);
        day.items = day.messages * 2.0;
        day.item_bytes = day.items * (STORED.message + longer + ITEM_OVERHEAD)
            + day.receipts * 2.0 * STORED.receipt_and_marker;
        day.records = day.messages * 2.0 + day.receipts * 4.0;
        day.segment_bytes = day.records * STORED.segment_record + day.messages * 2.0 * longer;
        day.seals = day.records / STORED.segment_records;
        day.writes += day.seals * STORED.seal_writes;
        // What is longer is read in units of 4 KB.
        let more = day.messages * 2.0 * longer / 4_096.0;
        day.reads += day.seals * STORED.seal_reads + more;
        Ok(day)
    }
}

/// The busiest hour against the mean of the day.
#[must_use]
pub fn peak() -> f64 {
    HOURS.len() as f64 / HOURS.iter().sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_two_units_and_longer_ones_are_more() {
        let day = Day::of(&ASSUMED).unwrap();
        let silent = Day::of(&Assumed {
            talk: 0.0,
            ..ASSUMED
        })
        .unwrap();
        let units = (day.writes - silent.writes) / day.messages;
        assert!((2.0..2.1).contains(&units), "{units}");
        let long = Day::of(&Assumed {
            body: 1_000.0,
            ..ASSUMED
        })
        .unwrap();
        let more = (long.writes - day.writes) / day.messages;
        assert!((more - 2.0).abs() < 0.1, "{more}");
    }
}
