//! Snapshots and ledgers, and every store on real files.

use journal::testing::MemDisk;
use journal::{Damage, DirDisk, Disk, FileError, Journal, Ledger, Options, Seq, SnapshotId, SnapshotStore};

#[test]
fn two_newest_snapshots_are_kept() {
    let disk = MemDisk::new();
    let mut store = SnapshotStore::open(disk.clone()).unwrap();
    assert_eq!(store.latest().unwrap(), None);
    for index in [9, 10, 100] {
        store.save(index, 3, format!("state {index}").as_bytes()).unwrap();
    }
    assert_eq!(store.list().unwrap(), [SnapshotId { index: 10, term: 3 }, SnapshotId { index: 100, term: 3 }]);
    let latest = store.latest().unwrap().expect("there is one");
    assert_eq!((latest.index, latest.term, latest.bytes.as_slice()), (100, 3, &b"state 100"[..]));
}

#[test]
fn damaged_newest_snapshot_is_refused_rather_than_passed_over() {
    let disk = MemDisk::new();
    let mut store = SnapshotStore::open(disk.clone()).unwrap();
    store.save(1, 1, b"one").unwrap();
    store.save(2, 1, b"two").unwrap();
    let name = disk.list().unwrap().pop().expect("there is a file");
    for offset in 0..disk.read(&name).unwrap().len() as u64 {
        let damaged = disk.fork();
        damaged.flip_bit(&name, offset);
        let error = SnapshotStore::open(damaged).unwrap().latest().expect_err("it is damaged");
        assert!(matches!(error, FileError::Damaged { .. }), "byte {offset}: {error}");
        assert!(error.to_string().contains("put it back; otherwise leave the process stopped"), "{error}");
    }
}

#[test]
fn ledger_replaces_its_value_and_refuses_a_damaged_one() {
    let mut disk = MemDisk::new();
    let mut ledger = Ledger::open(&mut disk, "identity").unwrap();
    assert_eq!(ledger.load().unwrap(), None);
    ledger.save(b"first").unwrap();
    ledger.save(b"").unwrap();
    assert_eq!(ledger.load().unwrap(), Some(Vec::new()));
    ledger.save(b"second").unwrap();
    assert_eq!(ledger.load().unwrap().as_deref(), Some(&b"second"[..]));
    disk.flip_bit("identity", 25);
    let error = Ledger::open(&mut disk, "identity").unwrap().load().expect_err("it is damaged");
    assert!(matches!(error, FileError::Damaged { damage: Damage::Checksum, .. }));
}

#[test]
fn real_files_hold_journal_snapshots_and_ledgers() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes_max: 64 << 10 };
    let path = dir.path().join("server").join("journal");
    let (mut journal, _) = Journal::open(DirDisk::open(&path).unwrap(), options.clone()).unwrap();
    for number in 1..=500_u64 {
        journal.append(&vec![number as u8; 1000]).unwrap();
        if number % 10 == 0 {
            journal.sync().unwrap();
        }
    }
    journal.drop_prefix(Seq(200)).unwrap();
    drop(journal);
    let (journal, recovered) = Journal::open(DirDisk::open(&path).unwrap(), options).unwrap();
    assert_eq!(recovered.torn_tail, None);
    assert!(Seq(1) < journal.first_seq() && journal.first_seq() <= Seq(200));
    let (last, bytes) = recovered.records.last().expect("there are records");
    assert_eq!((*last, bytes.as_slice()), (Seq(500), &[500_u64 as u8; 1000][..]));

    let mut disk = DirDisk::open(dir.path().join("snapshots")).unwrap();
    SnapshotStore::open(&mut disk).unwrap().save(7, 2, b"state").unwrap();
    assert_eq!(SnapshotStore::open(&mut disk).unwrap().latest().unwrap().expect("saved").bytes, b"state");
    Ledger::open(&mut disk, "identity").unwrap().save(b"n1").unwrap();
    assert_eq!(Ledger::open(&mut disk, "identity").unwrap().load().unwrap().as_deref(), Some(&b"n1"[..]));
}

#[test]
fn prepared_file_takes_its_name_when_it_is_created() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = DirDisk::open(dir.path()).unwrap();
    disk.prepare(3 << 20);
    disk.create("other", 10).unwrap();
    disk.create("next", 3 << 20).unwrap();
    assert_eq!(disk.list().unwrap(), ["next", "other"]);
    assert_eq!(disk.read("next").unwrap(), vec![0; 3 << 20]);
    assert!(!dir.path().join(".prepared").exists());
}

#[test]
fn directory_has_one_owner_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let disk = DirDisk::open(dir.path()).unwrap();
    let error = DirDisk::open(dir.path()).expect_err("it is locked");
    assert!(error.to_string().contains("in use"), "{error}");
    drop(disk);
    DirDisk::open(dir.path()).unwrap();
}

#[test]
fn error_names_the_whole_path_and_the_action() {
    let dir = tempfile::tempdir().unwrap();
    let disk = DirDisk::open(dir.path().join("data")).unwrap();
    let (mut journal, _) = Journal::open(disk, Options { segment_bytes_max: 4096 }).unwrap();
    // Moved, not removed: the thread that prepares the next segment may be adding its file.
    std::fs::rename(dir.path().join("data"), dir.path().join("moved")).unwrap();
    journal.append(b"the open handle still works").unwrap();
    let error = journal.append(&[1; 5000]).expect_err("a new segment cannot be created");
    let text = error.to_string();
    assert!(text.contains("could not create") && text.contains("data/segment-"), "{text}");
}

#[test]
fn a_flip_is_put_back_where_it_still_is_and_nowhere_else() {
    let mut disk = MemDisk::new();
    disk.create("a", 4).unwrap();
    disk.write_at("a", 0, b"abcd").unwrap();
    disk.sync("a").unwrap();
    disk.sync_dir().unwrap();
    let content = |disk: &MemDisk| disk.read("a").unwrap();

    let flip = disk.flip_bit("a", 1);
    assert_eq!(content(&disk), b"accd");
    disk.crash(0);
    assert_eq!(content(&disk), b"accd", "it is durable");
    disk.put_back(&flip);
    disk.crash(0);
    assert_eq!(content(&disk), b"abcd");

    // Written over, but not durably.
    let flip = disk.flip_bit("a", 1);
    disk.write_at("a", 1, b"x").unwrap();
    disk.put_back(&flip);
    assert_eq!(content(&disk), b"axcd");
    disk.crash_with(|_| false);
    assert_eq!(content(&disk), b"abcd");

    // Another file has the name now.
    let flip = disk.flip_bit("a", 1);
    disk.remove("a").unwrap();
    disk.create("a", 4).unwrap();
    disk.write_at("a", 0, b"abcd").unwrap();
    disk.sync("a").unwrap();
    disk.sync_dir().unwrap();
    disk.put_back(&flip);
    assert_eq!(content(&disk), b"abcd");
}
