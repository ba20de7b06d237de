//! Short words for what happens, so that a trace can be read.

use std::fmt::Write as _;

use cirrus_router::PipeOut;
use cirrus_router::log::{Content, Direction, decode};
use cirrus_schema::TableId;
use cirrus_stanza::Stanza;
use cirrus_store::{Condition, Item, Key, Op, Outcome, SkRange, StoreError};

use crate::check::index_of;

/// An operation of the store.
pub fn op(op: &Op) -> String {
    match op {
        Op::Put {
            item: put,
            condition,
            ..
        } => {
            let condition = match condition {
                Condition::Any => String::new(),
                Condition::Absent => " if absent".into(),
                Condition::Version(version) => format!(" if version {version}"),
            };
            format!("put {}{condition}", item(put))
        }
        Op::Delete { key: gone, .. } => format!("delete {}", key(gone)),
        Op::Get { key: wanted } => format!("get {}", key(wanted)),
        Op::Query {
            table,
            pk,
            range,
            limit,
            after,
            ..
        } => {
            let range = match range {
                SkRange::Between(first, last) => {
                    format!(" {}..{}", place(first), place(last))
                }
                _ => String::new(),
            };
            let after = after.as_ref().map(|sk| format!(" after {}", place(sk)));
            let limit = limit.map(|limit| format!(" limit {limit}"));
            format!(
                "query {table:?} {}{range}{}{}",
                owner(pk),
                limit.unwrap_or_default(),
                after.unwrap_or_default()
            )
        }
        Op::BatchGet { .. } => "batch".into(),
    }
}

/// An answer of the store.
pub fn answer(result: &Result<Outcome, StoreError>) -> String {
    match result {
        Ok(Outcome::Page { items, next }) => {
            let items: Vec<_> = items.iter().map(item).collect();
            let more = if next.is_some() { " and more" } else { "" };
            format!("page of {}: {}{more}", items.len(), items.join("; "))
        }
        Ok(other) => format!("{other:?}"),
        Err(StoreError::Conflict { existing, .. }) => {
            let existing = existing.as_ref().map(|existing| item(existing));
            format!("conflict with {existing:?}")
        }
        Err(error) => error.to_string(),
    }
}

fn key(key: &Key) -> String {
    format!("{:?} {} {}", key.table, owner(&key.pk), place(&key.sk))
}

fn owner(pk: &[u8]) -> String {
    let local = pk.rsplit(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(local).into_owned()
}

fn place(sk: &[u8]) -> String {
    match cirrus_schema::keys::archive::hot_seq(sk) {
        Some(u64::MAX) => "end".into(),
        Some(position) => format!("@{position}"),
        None => sk.escape_ascii().to_string(),
    }
}

fn item(item: &Item) -> String {
    let mut text = key(&item.key);
    if item.key.table != TableId::Archive {
        for (name, value) in item.attrs.iter() {
            if name != "z" {
                // Writing to a String can't fail.
                let _ = write!(text, " {name}={value:?}");
            }
        }
        let _ = write!(text, " e={}", item.version);
        return text;
    }
    let Ok((_, records)) = decode(item) else {
        return text + " unreadable";
    };
    for record in records {
        match record.content {
            Content::Message(message) => {
                let way = match message.direction {
                    Direction::In => "in",
                    Direction::Out => "out",
                    Direction::Own => "own",
                };
                let flag = if message.flags.spool { "*" } else { "" };
                let stanza = Stanza::from_stored(&message.stanza);
                let index = stanza.as_ref().and_then(index_of).unwrap_or(usize::MAX);
                let _ = write!(text, " {way}{flag}:m{index}");
            }
            Content::Respool(positions) => {
                let _ = write!(text, " again:{positions:?}");
            }
        }
    }
    text
}

/// What the server tells a pipe.
pub fn out(out: &PipeOut) -> String {
    match out {
        PipeOut::Stanza { n, stanza } => {
            let bytes = stanza.to_bytes();
            format!("{n} {}", String::from_utf8_lossy(&bytes))
        }
        other => format!("{other:?}"),
    }
}
