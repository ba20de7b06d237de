//! How often something may happen in a window of time, for each of many keys.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

/// Keys that are remembered at once. Past it, those whose window is over go first; if there is
/// none, new keys are not counted: an attacker with that many addresses has other limits to meet.
const KEYS: usize = 65_536;

/// Counts events by key. Time is in milliseconds.
#[derive(Debug)]
pub(super) struct Throttle<K> {
    limit: u32,
    window_ms: u64,
    windows: Mutex<HashMap<K, Window>>,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    since: u64,
    count: u32,
}

impl<K: Eq + Hash> Throttle<K> {
    pub(super) fn new(limit: u32, window_ms: u64) -> Self {
        Self {
            limit,
            window_ms,
            windows: Mutex::default(),
        }
    }

    /// Whether the key has had as many events as it may.
    pub(super) fn is_over(&self, key: &K, now: u64) -> bool {
        let windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let window = windows
            .get(key)
            .filter(|window| self.is_running(window, now));
        window.is_some_and(|window| window.count >= self.limit)
    }

    /// Counts an event.
    pub(super) fn count(&self, key: K, now: u64) {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.len() >= KEYS && !windows.contains_key(&key) {
            windows.retain(|_, window| self.is_running(window, now));
            if windows.len() >= KEYS {
                return;
            }
        }
        let window = windows.entry(key).or_insert(Window {
            since: now,
            count: 0,
        });
        if !self.is_running(window, now) {
            *window = Window {
                since: now,
                count: 0,
            };
        }
        window.count = window.count.saturating_add(1);
    }

    fn is_running(&self, window: &Window, now: u64) -> bool {
        now.saturating_sub(window.since) < self.window_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_its_limit_for_its_window() {
        let throttle = Throttle::new(2, 1_000);
        assert!(!throttle.is_over(&"a", 0));
        throttle.count("a", 0);
        throttle.count("a", 500);
        assert!(throttle.is_over(&"a", 999) && !throttle.is_over(&"b", 999));
        assert!(!throttle.is_over(&"a", 1_000));
        throttle.count("a", 1_000);
        assert!(!throttle.is_over(&"a", 1_000));
    }

    #[test]
    fn keys_are_bounded_and_old_ones_go() {
        let throttle = Throttle::new(1, 1_000);
        for key in 0..KEYS {
            throttle.count(key, 0);
        }
        throttle.count(KEYS, 500);
        assert!(!throttle.is_over(&KEYS, 500), "no place for it");
        assert!(throttle.is_over(&0, 500), "the known ones stay");
        throttle.count(KEYS, 1_000);
        assert!(throttle.is_over(&KEYS, 1_000));
        assert_eq!(throttle.windows.lock().unwrap().len(), 1);
    }
}
