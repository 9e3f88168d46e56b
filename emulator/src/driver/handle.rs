//! Handles: numbers that name the objects of the driver, and the tables to find the objects.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Answer;
use super::result::Error;

/// A pointer to an opaque type for C. It is never dereferenced.
pub type Handle = usize;

/// A number that has never been a handle. All tables share the numbers, so that a handle of another kind or of a removed
/// object is in no table. The first number is an address that no program can have.
pub fn fresh() -> Handle {
    static NEXT: AtomicUsize = AtomicUsize::new(0x0CDA_0000_0000_0010);
    NEXT.fetch_add(16, Ordering::Relaxed)
}

/// Locks a mutex, even if a thread has panicked while it held the lock: entry points turn panics into error codes.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The objects of one kind that exist.
pub struct Table<T> {
    entries: Mutex<BTreeMap<Handle, Arc<T>>>,
}

impl<T> Table<T> {
    pub const fn new() -> Self {
        Table {
            entries: Mutex::new(BTreeMap::new()),
        }
    }

    pub fn insert(&self, object: T) -> Handle {
        self.insert_with(|_| object)
    }

    /// Inserts an object that knows its own handle.
    pub fn insert_with(&self, make: impl FnOnce(Handle) -> T) -> Handle {
        let handle = fresh();
        lock(&self.entries).insert(handle, Arc::new(make(handle)));
        handle
    }

    /// The object, or `INVALID_HANDLE`.
    pub fn get(&self, handle: Handle) -> Answer<Arc<T>> {
        let entries = lock(&self.entries);
        entries.get(&handle).cloned().ok_or(Error::INVALID_HANDLE)
    }

    /// Removes the handle and returns its object, or `INVALID_HANDLE`.
    pub fn remove(&self, handle: Handle) -> Answer<Arc<T>> {
        lock(&self.entries)
            .remove(&handle)
            .ok_or(Error::INVALID_HANDLE)
    }

    /// Removes all objects for which `keep` is false.
    pub fn retain(&self, keep: impl Fn(&T) -> bool) {
        lock(&self.entries).retain(|_, object| keep(object));
    }
}
