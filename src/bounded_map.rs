//! A map that forgets its oldest entries, bounded by their number and by their bytes.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// A map of at most `max_entries` entries and `max_bytes` bytes, as the caller counts them. An insertion beyond either
/// removes the entries inserted the longest ago.
#[derive(Debug)]
pub(crate) struct BoundedMap<K, V> {
    max_entries: usize,
    max_bytes: usize,
    bytes: usize,
    entries: HashMap<K, Entry<V>>,
    by_age: BTreeMap<u64, K>,
    next_age: u64,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    bytes: usize,
    age: u64,
}

impl<K: Hash + Eq + Clone, V> BoundedMap<K, V> {
    pub(crate) fn new(max_entries: usize, max_bytes: usize) -> Self {
        Self { max_entries, max_bytes, bytes: 0, entries: HashMap::new(), by_age: BTreeMap::new(), next_age: 0 }
    }

    /// Inserts or replaces an entry, which is the youngest then. An entry of more than half the bytes is not kept: it
    /// would push out most of the others.
    pub(crate) fn insert(&mut self, key: K, value: V, bytes: usize) {
        self.remove(&key);
        if bytes > self.max_bytes / 2 {
            return;
        }
        let age = self.next_age;
        self.next_age += 1;
        self.bytes += bytes;
        self.by_age.insert(age, key.clone());
        self.entries.insert(key, Entry { value, bytes, age });
        while self.entries.len() > self.max_entries || self.bytes > self.max_bytes {
            let Some((_, oldest)) = self.by_age.pop_first() else { return };
            self.remove(&oldest);
        }
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.remove(key)?;
        self.by_age.remove(&entry.age);
        self.bytes -= entry.bytes;
        Some(entry.value)
    }

    /// Removes the entries that `is_over` holds for.
    pub(crate) fn remove_if(&mut self, is_over: impl Fn(&V) -> bool) {
        let over: Vec<K> =
            self.entries.iter().filter(|(_, entry)| is_over(&entry.value)).map(|(key, _)| key.clone()).collect();
        over.iter().for_each(|key| drop(self.remove(key)));
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|entry| &entry.value)
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key).map(|entry| &mut entry.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oldest_entries_go_beyond_either_bound() {
        let mut map = BoundedMap::new(3, 100);
        for number in 0..5 {
            map.insert(number, "value", 1);
        }
        assert_eq!((0..5).filter(|number| map.get(number).is_some()).collect::<Vec<_>>(), [2, 3, 4]);
        map.insert(5, "large", 50);
        map.insert(6, "large", 50);
        assert_eq!((0..7).filter(|number| map.get(number).is_some()).collect::<Vec<_>>(), [5, 6]);
        assert_eq!((map.bytes, map.by_age.len()), (100, 2));
    }

    #[test]
    fn entry_above_half_of_the_bytes_is_not_kept_and_removes_no_other() {
        let mut map = BoundedMap::new(3, 100);
        map.insert("small", 1, 10);
        map.insert("huge", 2, 51);
        assert_eq!((map.get(&"small"), map.get(&"huge")), (Some(&1), None));
    }

    #[test]
    fn replaced_entry_counts_once_and_is_the_youngest() {
        let mut map = BoundedMap::new(2, 100);
        map.insert("a", 1, 40);
        map.insert("b", 2, 40);
        map.insert("a", 3, 50);
        map.insert("c", 4, 1);
        assert_eq!((map.get(&"a"), map.get(&"b"), map.get(&"c")), (Some(&3), None, Some(&4)));
        assert_eq!(map.bytes, 51);
    }
}
