//! Tables in DynamoDB.

use std::collections::HashMap;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::query::QueryOutput;
use aws_sdk_dynamodb::types::{
    ConsumedCapacity, KeysAndAttributes, ReturnConsumedCapacity,
    ReturnValuesOnConditionCheckFailure,
};
use bytes::Bytes;
use cirrus_schema::{ATTR_PK, ATTR_SK, TableId, table_name};

use super::AwsOptions;
use super::convert::{Map, Stored, item_map, key_map, stored};
use super::error::{Tries, store_error};
use super::expression::{self, Expression};
use crate::size::{BATCH_REQUEST, usage_of_conflict, usage_of_read, usage_of_write};
use crate::{
    Answer, BoxFuture, Clock, Condition, Direction, Dump, DumpPage, Item, Key, Op, Outcome, Place,
    StoreError, Table, Usage, check,
};

/// Pause before keys that the provider left unprocessed are asked for again, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(25);

/// All tables, in DynamoDB.
#[derive(Clone)]
pub struct DynamoTable {
    client: Client,
    names: HashMap<TableId, String>,
    options: AwsOptions,
    clock: Clock,
}

/// What came of a request, before the provider's view of its cost is known.
type Counted<T> = (Result<T, StoreError>, Usage);

impl DynamoTable {
    /// Tables by the names that the options give; nothing is asked for yet. `clock` decides what
    /// is expired.
    #[must_use]
    pub fn new(config: &SdkConfig, options: &AwsOptions, clock: Clock) -> DynamoTable {
        let config = aws_sdk_dynamodb::config::Builder::from(config)
            .retry_config(options.retries())
            .timeout_config(options.timeouts(options.attempt_timeout, options.deadline))
            .build();
        let name = |table| (table, table_name(&options.prefix, table));
        DynamoTable {
            client: Client::from_conf(config),
            names: TableId::ALL.into_iter().map(name).collect(),
            options: options.clone(),
            clock,
        }
    }

    fn name(&self, table: TableId) -> &str {
        self.names.get(&table).map_or("", String::as_str)
    }

    async fn put(&self, item: Item, condition: Condition, nonce: u128) -> Answer {
        let (tries, now_ms) = (Tries::default(), (self.clock)());
        let new = item.size(nonce != 0);
        let Expression {
            text,
            names,
            values,
        } = expression::condition(condition, now_ms).unwrap_or_default();
        let request = self
            .client
            .put_item()
            .table_name(self.name(item.key.table))
            .set_item(Some(item_map(&item, nonce)))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let request = match text.as_str() {
            "" => request,
            _ => request
                .condition_expression(text)
                .set_expression_attribute_names(Some(names))
                .set_expression_attribute_values(Some(values))
                .return_values_on_condition_check_failure(
                    ReturnValuesOnConditionCheckFailure::AllOld,
                ),
        };
        match request.customize().interceptor(tries.clone()).send().await {
            Ok(output) => {
                let usage = billed(usage_of_write(0, new), output.consumed_capacity());
                Answer {
                    result: Ok(Outcome::Put),
                    usage,
                }
            }
            Err(SdkError::ServiceError(error))
                if matches!(
                    error.err(),
                    PutItemError::ConditionalCheckFailedException(_)
                ) =>
            {
                let existing = match error.into_err() {
                    PutItemError::ConditionalCheckFailedException(failed) => failed.item,
                    _ => None,
                };
                self.conflict(item.key, existing, new, Some(nonce))
            }
            Err(error) => failed(error, Place::Item(item.key), &tries),
        }
    }

    async fn delete(&self, key: Key, condition: Condition) -> Answer {
        let (tries, now_ms) = (Tries::default(), (self.clock)());
        let Expression {
            text,
            names,
            values,
        } = expression::condition(condition, now_ms).unwrap_or_default();
        let request = self
            .client
            .delete_item()
            .table_name(self.name(key.table))
            .set_key(Some(key_map(&key.pk, &key.sk)))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let request = match text.as_str() {
            "" => request,
            _ => request
                .condition_expression(text)
                .set_expression_attribute_names(Some(names))
                .set_expression_attribute_values(Some(values))
                .return_values_on_condition_check_failure(
                    ReturnValuesOnConditionCheckFailure::AllOld,
                ),
        };
        match request.customize().interceptor(tries.clone()).send().await {
            Ok(output) => {
                let usage = billed(usage_of_write(0, 0), output.consumed_capacity());
                Answer {
                    result: Ok(Outcome::Deleted),
                    usage,
                }
            }
            Err(SdkError::ServiceError(error))
                if matches!(
                    error.err(),
                    DeleteItemError::ConditionalCheckFailedException(_)
                ) =>
            {
                let existing = match error.into_err() {
                    DeleteItemError::ConditionalCheckFailedException(failed) => failed.item,
                    _ => None,
                };
                self.conflict(key, existing, 0, None)
            }
            Err(error) => failed(error, Place::Item(key), &tries),
        }
    }

    /// What a failed condition means: our own earlier try succeeded, or somebody else was there.
    fn conflict(&self, key: Key, existing: Option<Map>, new: usize, nonce: Option<u128>) -> Answer {
        let existing = match existing.map(|map| stored(key.table, map)).transpose() {
            Ok(existing) => existing,
            Err(error) => {
                return Answer {
                    result: Err(error),
                    usage: usage_of_conflict(0, new),
                };
            }
        };
        let usage = usage_of_conflict(existing.as_ref().map_or(0, Stored::size), new);
        let now_ms = (self.clock)();
        let alive = existing.filter(|stored| !stored.item.is_expired(now_ms));
        let is_ours = |stored: &Stored| stored.nonce != 0 && Some(stored.nonce) == nonce;
        if alive.as_ref().is_some_and(is_ours) {
            return Answer {
                result: Ok(Outcome::Put),
                usage,
            };
        }
        let existing = alive.map(|stored| Box::new(stored.item));
        Answer {
            result: Err(StoreError::Conflict { key, existing }),
            usage,
        }
    }

    async fn get(&self, key: Key) -> Answer {
        let request = self
            .client
            .get_item()
            .table_name(self.name(key.table))
            .set_key(Some(key_map(&key.pk, &key.sk)))
            .consistent_read(true)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let output = match request.send().await {
            Ok(output) => output,
            Err(error) => return failed(error, Place::Item(key), &Tries::default()),
        };
        let capacity = output.consumed_capacity().cloned();
        let found = output.item.map(|map| stored(key.table, map)).transpose();
        let size = found
            .as_ref()
            .map_or(0, |found| found.as_ref().map_or(0, Stored::size));
        let usage = billed(usage_of_read(size), capacity.as_ref());
        let now_ms = (self.clock)();
        let alive = |found: Option<Stored>| {
            found
                .map(|stored| stored.item)
                .filter(|item| !item.is_expired(now_ms))
        };
        Answer {
            result: found.map(|found| Outcome::Item(alive(found))),
            usage,
        }
    }

    async fn query(&self, op: Op) -> Answer {
        let place = op.place();
        let Op::Query {
            table,
            pk,
            range,
            direction,
            limit,
            after,
        } = op
        else {
            return Answer::free(StoreError::invalid(place, "not a query"));
        };
        let keys = expression::keys(&pk, &range, direction, after.as_ref());
        let Some((
            Expression {
                text,
                names,
                values,
            },
            start,
        )) = keys
        else {
            let nothing = Outcome::Page {
                items: vec![],
                next: None,
            };
            return Answer {
                result: Ok(nothing),
                usage: Usage::default(),
            };
        };
        let request = self
            .client
            .query()
            .table_name(self.name(table))
            .key_condition_expression(text)
            .set_expression_attribute_names(Some(names))
            .set_expression_attribute_values(Some(values))
            .set_exclusive_start_key(start.map(|sk| key_map(&pk, &sk)))
            .scan_index_forward(direction == Direction::Forward)
            .set_limit(limit.map(|limit| i32::try_from(limit).unwrap_or(i32::MAX)))
            .consistent_read(true)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let output = match request.send().await {
            Ok(output) => output,
            Err(error) => return failed(error, place, &Tries::default()),
        };
        self.page(table, output)
    }

    /// One page of a query, and what it cost.
    fn page(&self, table: TableId, output: QueryOutput) -> Answer {
        let capacity = output.consumed_capacity().cloned();
        let next = output
            .last_evaluated_key
            .map(|mut key| sort_key(&mut key, table))
            .transpose();
        let found = output
            .items
            .unwrap_or_default()
            .into_iter()
            .map(|map| stored(table, map));
        let found: Result<Vec<Stored>, StoreError> = found.collect();
        let size = found
            .as_ref()
            .map_or(0, |found| found.iter().map(Stored::size).sum());
        let usage = billed(usage_of_read(size), capacity.as_ref());
        let page = |found: Vec<Stored>| {
            Ok(Outcome::Page {
                items: self.alive(found),
                next: next?,
            })
        };
        Answer {
            result: found.and_then(page),
            usage,
        }
    }

    fn alive(&self, found: Vec<Stored>) -> Vec<Item> {
        let now_ms = (self.clock)();
        let items = found.into_iter().map(|stored| stored.item);
        items.filter(|item| !item.is_expired(now_ms)).collect()
    }

    async fn batch_get(&self, keys: Vec<Key>) -> Answer {
        let Some(table) = keys.first().map(|key| key.table) else {
            return Answer {
                result: Ok(Outcome::Items(vec![])),
                usage: Usage::default(),
            };
        };
        let mut distinct = keys.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let (mut found, mut usage) = (HashMap::new(), Usage::default());
        for part in distinct.chunks(BATCH_REQUEST) {
            let (result, cost) = self.batch_part(table, part).await;
            usage.requests += cost.requests;
            usage.read_units += cost.read_units;
            usage.read += cost.read;
            match result {
                Ok(items) => {
                    found.extend(items.into_iter().map(|item| (item.key.clone(), item)));
                }
                Err(error) => {
                    return Answer {
                        result: Err(error),
                        usage,
                    };
                }
            }
        }
        let items = keys
            .iter()
            .filter_map(|key| found.get(key))
            .cloned()
            .collect();
        Answer {
            result: Ok(Outcome::Items(items)),
            usage,
        }
    }

    /// One batch request, and more for what the provider leaves unprocessed: as often as others
    /// are tried, not counting those that get something done.
    async fn batch_part(&self, table: TableId, keys: &[Key]) -> Counted<Vec<Item>> {
        let place = || Place::Table(table);
        let mut open: Vec<Map> = keys.iter().map(|key| key_map(&key.pk, &key.sk)).collect();
        let (mut items, mut usage) = (Vec::new(), Usage::default());
        let (mut idle, mut pause) = (0, FIRST_PAUSE);
        while !open.is_empty() {
            let before = open.len();
            let asked = KeysAndAttributes::builder()
                .set_keys(Some(open))
                .consistent_read(true);
            let asked = match asked.build() {
                Ok(asked) => asked,
                Err(error) => {
                    return (Err(StoreError::invalid(place(), error.to_string())), usage);
                }
            };
            let request = self
                .client
                .batch_get_item()
                .request_items(self.name(table), asked)
                .return_consumed_capacity(ReturnConsumedCapacity::Total);
            usage.requests += 1;
            let output = match request.send().await {
                Ok(output) => output,
                Err(error) => return (Err(store_error(error, place(), false)), usage),
            };
            let units: f64 = output.consumed_capacity().iter().filter_map(units).sum();
            usage.read_units += units.ceil() as u32;
            let left = output
                .unprocessed_keys
                .and_then(|mut left| left.remove(self.name(table)));
            open = left.map(|left| left.keys).unwrap_or_default();
            let maps = output
                .responses
                .and_then(|mut all| all.remove(self.name(table)));
            let found = maps
                .unwrap_or_default()
                .into_iter()
                .map(|map| stored(table, map));
            let found = match found.collect::<Result<Vec<Stored>, StoreError>>() {
                Ok(found) => found,
                Err(error) => return (Err(error), usage),
            };
            usage.read += found.iter().map(|stored| stored.size() as u64).sum::<u64>();
            items.extend(self.alive(found));
            if open.len() == before {
                idle += 1;
                if idle >= self.options.attempts {
                    return (
                        Err(StoreError::Throttled {
                            place: place(),
                            source: None,
                        }),
                        usage,
                    );
                }
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
        }
        (Ok(items), usage)
    }

    async fn scan(&self, table: TableId, after: Option<Bytes>) -> Result<DumpPage, StoreError> {
        let place = || Place::Table(table);
        let start = after.map(|token| {
            let sk = token.get(2..).and_then(|rest| {
                let length = usize::from(u16::from_be_bytes([token[0], token[1]]));
                rest.split_at_checked(length)
            });
            sk.map(|(pk, sk)| key_map(pk, sk))
                .ok_or_else(|| StoreError::invalid(place(), "not the token of a page"))
        });
        let request = self
            .client
            .scan()
            .table_name(self.name(table))
            .set_exclusive_start_key(start.transpose()?)
            .consistent_read(true);
        let output = request
            .send()
            .await
            .map_err(|error| store_error(error, place(), false))?;
        let next = output.last_evaluated_key.map(|mut key| {
            let (pk, sk) = (
                key_part(&mut key, ATTR_PK, table)?,
                sort_key(&mut key, table)?,
            );
            // At most MAX_PK = 2,048 bytes.
            Ok(Bytes::from(
                [&(pk.len() as u16).to_be_bytes()[..], &pk, &sk].concat(),
            ))
        });
        let found = output
            .items
            .unwrap_or_default()
            .into_iter()
            .map(|map| stored(table, map));
        let found = found.collect::<Result<Vec<Stored>, StoreError>>()?;
        Ok(DumpPage {
            items: self.alive(found),
            next: next.transpose()?,
        })
    }
}

fn sort_key(key: &mut Map, table: TableId) -> Result<Bytes, StoreError> {
    key_part(key, ATTR_SK, table)
}

fn key_part(key: &mut Map, name: &str, table: TableId) -> Result<Bytes, StoreError> {
    let value = key
        .remove(name)
        .and_then(|value| value.as_b().ok().cloned());
    let missing = || StoreError::corrupt(Place::Table(table), format!("a token without {name:?}"));
    Ok(Bytes::from(value.ok_or_else(missing)?.into_inner()))
}

fn failed<E>(error: SdkError<E>, place: Place, tries: &Tries) -> Answer
where
    E: aws_sdk_dynamodb::error::ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let result = Err(store_error(error, place, tries.may_be_done()));
    Answer {
        result,
        usage: Usage {
            requests: 1,
            ..Usage::default()
        },
    }
}

fn units(capacity: &ConsumedCapacity) -> Option<f64> {
    capacity.capacity_units()
}

/// The computed cost, with the units that the provider reports in place of ours.
fn billed(computed: Usage, capacity: Option<&ConsumedCapacity>) -> Usage {
    let Some(units) = capacity.and_then(units) else {
        return computed;
    };
    let units = units.ceil() as u32;
    match computed.write_units {
        0 => Usage {
            read_units: units,
            ..computed
        },
        _ => Usage {
            write_units: units,
            ..computed
        },
    }
}

impl Table for DynamoTable {
    fn apply(&self, op: Op) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        Box::pin(async move { self.apply_counted(op).await.result })
    }

    fn apply_counted(&self, op: Op) -> BoxFuture<'_, Answer> {
        if let Err(error) = check::check(&op) {
            return Box::pin(async { Answer::free(error) });
        }
        match op {
            Op::Put {
                item,
                condition,
                nonce,
            } => Box::pin(self.put(item, condition, nonce)),
            Op::Delete { key, condition } => Box::pin(self.delete(key, condition)),
            Op::Get { key } => Box::pin(self.get(key)),
            Op::Query { .. } => Box::pin(self.query(op)),
            Op::BatchGet { keys } => Box::pin(async move {
                let place = Place::Table(keys.first().map_or(TableId::Cluster, |key| key.table));
                let answer = self.batch_get(keys);
                match tokio::time::timeout(self.options.deadline, answer).await {
                    Ok(answer) => answer,
                    Err(error) => Answer::free(StoreError::Timeout {
                        place,
                        source: Some(error.into()),
                    }),
                }
            }),
        }
    }
}

impl Dump for DynamoTable {
    fn dump(
        &self,
        table: TableId,
        after: Option<Bytes>,
    ) -> BoxFuture<'_, Result<DumpPage, StoreError>> {
        Box::pin(self.scan(table, after))
    }
}
