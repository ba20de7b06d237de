//! The tables of `docs/COST.md`.

use super::{Bill, DAYS, GB, HOP_BYTES, HOPS, Question, ROW, ROWS_A_VCPU, Relational};
use crate::day::{ASSUMED, Assumed, DAY, Day, HOURS, RECEIVED, peak};
use crate::document::{self, number, users, words};
use crate::measured::{self, BODY, STORED, VIEW_MEMBER};
use crate::plan::Resources;
use crate::price::Prices;

const USERS: [f64; 4] = [1e3, 1e4, 1e5, 1e6];

type Table = Result<String, String>;

/// The table of that name.
///
/// # Errors
/// When there is none, or something that it needs is missing.
pub fn table(name: &str) -> Table {
    let (resources, prices) = (Resources::of_file()?, Prices::of_file()?);
    let ask = |users: f64, assumed: Assumed| Question {
        users,
        resources: &resources,
        prices: &prices,
        assumed,
    };
    match name {
        "totals" => totals(&ask),
        "bill" => bill(&ask),
        "script" => script(),
        "day" => day(),
        "stored" => Ok(stored()),
        "retention" => retention(&ask),
        "assumed" => Ok(assumed(&resources)),
        "moves" => moves(&ask),
        "relational" => relational(&ask),
        "resources" => Ok(planned(&resources)),
        "prices" => Ok(listed(&prices)),
        other => Err(format!("no table `{other}`")),
    }
}

fn head(first: &str) -> Vec<String> {
    let all = USERS.iter().map(|count| users(*count));
    std::iter::once(first.to_owned()).chain(all).collect()
}

fn row(first: &str, cells: impl IntoIterator<Item = f64>) -> Vec<String> {
    let cells = cells.into_iter().map(number);
    std::iter::once(first.to_owned()).chain(cells).collect()
}

fn bills<'a>(
    ask: &impl Fn(f64, Assumed) -> Question<'a>,
    of: impl Fn(&Question<'a>) -> Result<Bill, String>,
) -> Result<Vec<Bill>, String> {
    USERS
        .iter()
        .map(|count| of(&ask(*count, ASSUMED)))
        .collect()
}

fn totals<'a>(ask: &impl Fn(f64, Assumed) -> Question<'a>) -> Table {
    let designs = [
        ("Cirrus", bills(ask, Question::cirrus)?),
        ("an item for each message", bills(ask, Question::items)?),
        ("a relational database", bills(ask, Question::relational)?),
    ];
    let mut rows = Vec::new();
    for (name, bills) in &designs {
        rows.push(row(&format!("**{name}**"), bills.iter().map(Bill::total)));
    }
    let cents = |bills: &[Bill]| -> Vec<f64> {
        let all = bills.iter().zip(USERS);
        all.map(|(bill, users)| bill.total() * 100.0 / users)
            .collect()
    };
    for (name, bills) in &designs {
        rows.push(row(&format!("{name}, cents a user"), cents(bills)));
    }
    for (name, bills) in &designs {
        rows.push(row(
            &format!("{name}, what stores"),
            bills.iter().map(|it| it.store),
        ));
    }
    let short = |of: &dyn Fn(&Question<'a>) -> Result<Bill, String>| {
        let assumed = Assumed {
            kept_days: ASSUMED.table_days,
            ..ASSUMED
        };
        let all = USERS
            .iter()
            .map(|count| Ok(of(&ask(*count, assumed))?.store));
        all.collect::<Result<Vec<f64>, String>>()
    };
    let kept = format!("what stores, {} days kept", number(ASSUMED.table_days));
    rows.push(row(&format!("Cirrus, {kept}"), short(&Question::cirrus)?));
    let items = short(&Question::items)?;
    rows.push(row(&format!("an item for each message, {kept}"), items));
    let relational = short(&Question::relational)?;
    rows.push(row(&format!("a relational database, {kept}"), relational));
    Ok(document::table(
        &head("dollars a month; users a day"),
        &rows,
    ))
}

fn bill<'a>(ask: &impl Fn(f64, Assumed) -> Question<'a>) -> Table {
    let bills = bills(ask, Question::cirrus)?;
    let lines = bills.first().map_or(&[][..], |bill| &bill.lines);
    let mut rows: Vec<Vec<String>> = lines
        .iter()
        .enumerate()
        .map(|(at, (name, _))| row(name, bills.iter().map(|bill| bill.lines[at].1)))
        .collect();
    rows.push(row("**sum**", bills.iter().map(Bill::total)));
    let nodes = USERS.map(|count| ask(count, ASSUMED).nodes());
    let most = |all: [f64; 24]| all.into_iter().fold(0.0, f64::max);
    let mean = |all: [f64; 24]| all.iter().sum::<f64>() / 24.0;
    rows.push(row("nodes, busiest hour", nodes.map(most)));
    rows.push(row("nodes, mean", nodes.map(mean)));
    Ok(document::table(
        &head("dollars a month; users a day"),
        &rows,
    ))
}

fn script() -> Table {
    let steps = measured::steps()?;
    let mut rows = Vec::new();
    for act in DAY {
        let units = steps.get(act.step).ok_or(act.step)?;
        let step = if units.write + units.read > 0.0 {
            act.step
        } else {
            ""
        };
        rows.push(vec![
            act.what.to_owned(),
            number(act.times),
            number(units.write),
            number(units.read),
            number(act.sent),
            step.to_owned(),
        ]);
    }
    let head = ["a user", "times", "WU", "RU", "bytes to clients", "step"];
    let head = head.map(str::to_owned);
    Ok(document::table(&head, &rows).replacen(
        "|---:|---:|---:|---:|---:|",
        "|---:|---:|---:|---:|---|",
        1,
    ))
}

fn day() -> Table {
    let day = Day::of(&ASSUMED)?;
    let rows = [
        ("messages sent, and as many received", day.messages),
        ("write units", day.writes),
        ("of these, for messages", 2.0 * day.messages),
        ("read units", day.reads),
        ("of these, to seal segments", day.seals * STORED.seal_reads),
        ("records in the archive", day.records),
        ("segments", day.seals),
        ("bytes in the table", day.item_bytes),
        ("bytes in segments", day.segment_bytes),
        ("bytes to clients", day.sent),
        ("connections", day.connections),
    ];
    let rows: Vec<_> = rows
        .iter()
        .map(|(name, value)| row(name, [*value]))
        .collect();
    let head = ["of one user, in a day", ""].map(str::to_owned);
    Ok(document::table(&head, &rows))
}

fn stored() -> String {
    let rows = [
        (
            format!("bytes of a message with {BODY} characters, in each archive"),
            STORED.message,
        ),
        (
            "bytes that a receipt and a marker add to the next item".into(),
            STORED.receipt_and_marker,
        ),
        ("records of a segment".into(), STORED.segment_records),
        (
            "bytes of a record in a segment".into(),
            STORED.segment_record,
        ),
        ("read units to seal a segment".into(), STORED.seal_reads),
        ("write units to seal a segment".into(), STORED.seal_writes),
        ("objects put to seal a segment".into(), STORED.seal_objects),
    ];
    let rows: Vec<_> = rows
        .iter()
        .map(|(name, value)| row(name, [*value]))
        .collect();
    document::table(&["measured".to_owned(), String::new()], &rows)
}

fn retention<'a>(ask: &impl Fn(f64, Assumed) -> Question<'a>) -> Table {
    let mut rows = Vec::new();
    let day = Day::of(&ASSUMED)?;
    let table = |count: f64| count * day.item_bytes * ASSUMED.table_days / GB;
    let objects = |count: f64| count * day.segment_bytes * ASSUMED.kept_days / GB;
    rows.push(row("GB in the table, from day 98 on", USERS.map(table)));
    rows.push(row("GB in segments after a year", USERS.map(objects)));
    let line = |days: f64, count: f64| -> Result<f64, String> {
        let bill = ask(
            count,
            Assumed {
                kept_days: days,
                ..ASSUMED
            },
        )
        .cirrus()?;
        let its = bill.lines.iter().filter(|(name, _)| {
            ["DynamoDB: storage", "DynamoDB: backup", "S3: segments"].contains(name)
        });
        Ok(its.map(|(_, dollars)| dollars).sum())
    };
    for (name, days) in [
        ("1 year", 365.0),
        ("3 years", 1_095.0),
        ("10 years", 3_650.0),
    ] {
        let cells: Result<Vec<f64>, String> = USERS.iter().map(|it| line(days, *it)).collect();
        rows.push(row(
            &format!("dollars a month for storage after {name}"),
            cells?,
        ));
    }
    let mut year = Vec::new();
    for count in USERS {
        let day = |day: u32| -> Result<f64, String> {
            let days = f64::from(day);
            let table = Assumed {
                table_days: days.min(ASSUMED.table_days),
                kept_days: days,
                ..ASSUMED
            };
            let bill = ask(count, table).cirrus()?;
            let all = bill.lines.iter();
            let its = all.filter(|(name, _)| {
                name.contains("storage") || name.contains("backup") || name.contains("segments")
            });
            Ok(its.map(|(_, dollars)| dollars / DAYS).sum())
        };
        year.push((1..=365).map(day).sum::<Result<f64, String>>()?);
    }
    rows.push(row("dollars for storage in the first year", year));
    Ok(document::table(&head("users a day"), &rows))
}

fn assumed(resources: &Resources) -> String {
    let hours: Vec<String> = HOURS.iter().map(|it| number(*it)).collect();
    let rows = [
        (
            "sessions in the busiest hour, for each user of the day",
            number(ASSUMED.sessions),
        ),
        (
            "the hours of a day, against the busiest one",
            hours.join(" "),
        ),
        ("the busiest hour against the mean", number(peak())),
        (
            "sessions of a node beyond which another one is added (plan)",
            number(resources.sessions_per_node),
        ),
        ("characters of a message's body", number(ASSUMED.body)),
        ("bytes from clients for each byte to them", number(RECEIVED)),
        (
            "days that items stay in the table: 91, and up to 7",
            number(ASSUMED.table_days),
        ),
        (
            "days that segments are kept when the bill is made",
            number(ASSUMED.kept_days),
        ),
        (
            "times that a stanza goes from node to node; bytes each",
            format!("{}; {}", number(HOPS), number(HOP_BYTES)),
        ),
        (
            "bytes of a member in the view (measured: `cirrus-sim grow 50`)",
            number(VIEW_MEMBER),
        ),
    ];
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|(name, value)| vec![name.to_owned(), value])
        .collect();
    words(&["assumed", ""], &rows)
}

/// What else could be assumed.
fn variants() -> Vec<(&'static str, Assumed)> {
    let a = ASSUMED;
    vec![
        (
            "twice as many messages, with receipts and chat states",
            Assumed { talk: 2.0, ..a },
        ),
        ("bodies of 1,000 characters", Assumed { body: 1_000.0, ..a }),
        (
            "twice the sessions",
            Assumed {
                sessions: 2.0 * a.sessions,
                ..a
            },
        ),
        (
            "half of the sessions",
            Assumed {
                sessions: a.sessions / 2.0,
                ..a
            },
        ),
        (
            "nodes of twice as many sessions",
            Assumed {
                sessions_per_node: 2.0,
                ..a
            },
        ),
        ("twice the bytes to clients", Assumed { sent: 2.0, ..a }),
        (
            "segments of three years",
            Assumed {
                kept_days: 3.0 * 365.0,
                ..a
            },
        ),
        (
            "items that expire after 30 days in place of 91 (no option)",
            Assumed {
                table_days: 30.0,
                ..a
            },
        ),
        (
            "no point-in-time recovery",
            Assumed {
                backed_up: false,
                ..a
            },
        ),
        (
            "all nodes but one are spot instances",
            Assumed { spot: 1.0, ..a },
        ),
    ]
}

fn moves<'a>(ask: &impl Fn(f64, Assumed) -> Question<'a>) -> Table {
    let mut rows = Vec::new();
    for (name, assumed) in variants() {
        let mut cells = Vec::new();
        for count in USERS {
            let base = ask(count, ASSUMED).cirrus()?.total();
            cells.push(ask(count, assumed).cirrus()?.total() / base * 100.0 - 100.0);
        }
        rows.push((name, cells));
    }
    let size = |cells: &[f64]| cells.last().map_or(0.0, |it| it.abs());
    rows.sort_by(|a, b| size(&b.1).total_cmp(&size(&a.1)));
    let cell = |percent: f64| {
        format!("{percent:+.0} %")
            .replace("-0 %", "0 %")
            .replace("+0 %", "0 %")
    };
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|(name, cells)| {
            let cells = cells.into_iter().map(cell);
            std::iter::once(name.to_owned()).chain(cells).collect()
        })
        .collect();
    Ok(document::table(
        &head("Cirrus' sum, if; users a day"),
        &rows,
    ))
}

fn relational<'a>(ask: &impl Fn(f64, Assumed) -> Question<'a>) -> Table {
    let day = Day::of(&ASSUMED)?;
    let all = USERS.map(|count| Relational::of(&ask(count, ASSUMED), &day));
    let bills = bills(ask, Question::relational)?;
    let line = |at: usize| bills.iter().map(move |bill| bill.lines[at].1);
    let rows = [
        row("databases", all.map(|it| it.instances)),
        row("vCPUs of each (db.m6g)", all.map(|it| it.vcpus)),
        row("GB after a year", all.map(|it| it.gb)),
        row("I/O a second beyond those included", all.map(|it| it.iops)),
        row("dollars a month: instances", line(0)),
        row("dollars a month: storage", line(1)),
        row("dollars a month: I/O", line(2)),
    ];
    let table = document::table(&head("users a day"), &rows);
    Ok(format!(
        "A row has {} bytes with its indices besides the body; a vCPU inserts {} rows a second;\n\
         a row is one I/O; a fifth of the storage is free; the busiest second is twice the mean\n\
         of the busiest hour.\n\n{table}",
        number(ROW),
        number(ROWS_A_VCPU)
    ))
}

fn planned(resources: &Resources) -> String {
    let lines = resources.lines();
    let rows = lines.lines().filter_map(|line| line.split_once(": "));
    let rows: Vec<_> = rows
        .map(|(name, value)| vec![name.to_owned(), value.to_owned()])
        .collect();
    words(&["planned", ""], &rows)
}

fn listed(prices: &Prices) -> String {
    let dollars = |price: &crate::price::Price| {
        format!("{} for {} {}", price.dollars, number(price.per), price.unit)
    };
    let row = |price: &crate::price::Price| {
        let by = price.by.as_deref().unwrap_or("**not confirmed**");
        let seen = price
            .seen
            .as_deref()
            .map(|seen| format!(", {seen}"))
            .unwrap_or_default();
        vec![
            format!("[{}]({})", price.what, price.page),
            dollars(price),
            format!("{by}{seen}"),
        ]
    };
    let rows: Vec<_> = prices.iter().map(row).collect();
    words(&["price", "dollars", "compared with"], &rows)
}
