//! A table that does not do what it says: nothing is told, kept or stored that was not read back.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::filter::table::Stats;

/// Takes leases in and lets them go, or only says so.
#[derive(Default)]
struct Deaf {
    leases: BTreeMap<Net, record::Lease>,
    inserts: bool,
    removes: bool,
}

impl DropTable for Deaf {
    fn insert(&mut self, net: Net, lease: &record::Lease) -> Result<(), FilterError> {
        if self.inserts {
            self.leases.insert(net, *lease);
        }
        Ok(())
    }

    fn remove(&mut self, net: Net) -> Result<bool, FilterError> {
        Ok(!self.removes || self.leases.remove(&net).is_some())
    }

    fn get(&self, net: Net) -> Result<Option<record::Lease>, FilterError> {
        Ok(self.leases.get(&net).copied())
    }

    fn each(&self, see: &mut dyn FnMut(Net, record::Lease)) -> Result<(), FilterError> {
        self.leases.iter().for_each(|(net, lease)| see(*net, *lease));
        Ok(())
    }

    fn allow(&mut self, _: &[Net]) -> Result<(), FilterError> {
        Ok(())
    }

    fn allowed(&self) -> Result<BTreeSet<Net>, FilterError> {
        Ok(BTreeSet::new())
    }

    fn pace(&mut self, _: u32) -> Result<(), FilterError> {
        Ok(())
    }

    fn stats(&self) -> Result<Stats, FilterError> {
        Ok(Stats::default())
    }

    fn commit(&mut self) -> Result<(), FilterError> {
        Ok(())
    }
}

fn worker(folder: &std::path::Path, table: Deaf) -> Worker {
    let path = folder.join("portcullis.db");
    drop(crate::store::Store::open(&path));
    let config = Config { enabled: true, ..Config::default() };
    let mut worker = Worker::new(config, DropStore::open(&path));
    worker.loaded = Some(Loaded { programs: None, table: Box::new(table), throttles: None });
    worker
}

fn give(worker: &mut Worker) -> Result<Given, FilterError> {
    let lease = Lease {
        net: "192.0.2.7".parse().unwrap(),
        until: Boot::NEVER,
        ports: Vec::new(),
        cause: Cause::Administrator,
        reason: String::new(),
    };
    worker.give(vec![lease], false, &Asker::default()).remove(0)
}

#[test]
fn a_drop_that_the_table_does_not_show_is_an_error_and_kept_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let mut worker = worker(folder.path(), Deaf::default());
    let error = give(&mut worker).unwrap_err();
    assert!(error.to_string().contains("does not show what was written"), "{error}");
    assert!(worker.book.is_empty() && worker.store.all().is_empty());
}

#[test]
fn a_drop_that_the_table_still_shows_is_not_told_as_gone() {
    let folder = tempfile::tempdir().unwrap();
    let mut worker = worker(folder.path(), Deaf { inserts: true, ..Deaf::default() });
    give(&mut worker).unwrap();
    let error = worker.take(&["192.0.2.7".parse().unwrap()], Cause::Administrator).remove(0).unwrap_err();
    assert!(error.to_string().contains("it is still dropped"), "{error}");
    assert_eq!((worker.book.len(), worker.store.all().len()), (1, 1));
}

#[test]
fn what_is_read_back_is_kept_and_let_go() {
    let folder = tempfile::tempdir().unwrap();
    let mut worker = worker(folder.path(), Deaf { inserts: true, removes: true, ..Deaf::default() });
    give(&mut worker).unwrap();
    assert_eq!((worker.book.len(), worker.store.all().len()), (1, 1));
    worker.take(&["192.0.2.7".parse().unwrap()], Cause::Administrator).remove(0).unwrap();
    assert!(worker.book.is_empty() && worker.store.all().is_empty());
}
