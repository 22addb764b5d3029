//! What a journal says about files that were left, torn, damaged or lost.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use journal::testing::MemDisk;
use journal::{Disk, Journal, JournalError, Options, Recovered, Seq};

const SMALL: Options = Options { segment_bytes_max: 1024 };

fn open(disk: &MemDisk) -> (Journal<MemDisk>, Recovered) {
    Journal::open(disk.clone(), SMALL).expect("the journal opens")
}

fn refusal(disk: &MemDisk) -> JournalError {
    Journal::open(disk.clone(), SMALL).expect_err("the journal is refused")
}

fn payload(number: u64) -> Vec<u8> {
    format!("record {number} {}", "x".repeat(number as usize % 60)).into_bytes()
}

/// A journal of `count` records, each synced.
fn filled(count: u64) -> MemDisk {
    let disk = MemDisk::new();
    let (mut journal, _) = open(&disk);
    for number in 1..=count {
        assert_eq!(journal.append(&payload(number)).unwrap(), Seq(number));
        journal.sync().unwrap();
    }
    disk
}

fn segments(disk: &MemDisk) -> Vec<String> {
    disk.list().unwrap().into_iter().filter(|name| name.starts_with("segment-")).collect()
}

/// Where `needle` begins in a file.
fn find(disk: &MemDisk, name: &str, needle: &[u8]) -> u64 {
    let bytes = disk.read(name).unwrap();
    bytes.windows(needle.len()).position(|window| window == needle).expect("the bytes are there") as u64
}

fn assert_holds(recovered: &Recovered, numbers: std::ops::RangeInclusive<u64>) {
    let expected: Vec<_> = numbers.map(|number| (Seq(number), payload(number))).collect();
    assert_eq!(recovered.records, expected);
}

#[test]
fn records_come_back_in_order_across_segments() {
    let disk = filled(50);
    assert!(segments(&disk).len() > 3);
    disk.crash_with(|_| false);
    let (mut journal, recovered) = open(&disk);
    assert_holds(&recovered, 1..=50);
    assert_eq!(recovered.torn_tail, None);
    assert_eq!(journal.append(&payload(51)).unwrap(), Seq(51));
    journal.sync().unwrap();
    assert_holds(&open(&disk).1, 1..=51);
}

#[test]
fn empty_and_oversized_records_are_kept() {
    let disk = MemDisk::new();
    let (mut journal, _) = open(&disk);
    let large = vec![7; 5000];
    for bytes in [&[][..], &large, &[], &large, b"end"] {
        journal.append(bytes).unwrap();
    }
    journal.sync().unwrap();
    disk.crash_with(|_| false);
    let sizes: Vec<_> = open(&disk).1.records.iter().map(|(_, bytes)| bytes.len()).collect();
    assert_eq!(sizes, [0, 5000, 0, 5000, 3]);
}

#[test]
fn torn_tail_is_cleared_and_reported() {
    let disk = filled(3);
    let (mut journal, _) = open(&disk);
    let start = journal.append(&[b'a'; 1500]).unwrap();
    assert_eq!(start, Seq(4));
    let mut part = 0;
    disk.crash_with(|_| {
        part += 1;
        part != 2
    });
    let (mut journal, recovered) = open(&disk);
    assert_holds(&recovered, 1..=3);
    let torn = recovered.torn_tail.expect("the torn tail is reported");
    assert!(torn.file.starts_with("segment-") && 0 < torn.bytes);
    assert_eq!(journal.append(&payload(4)).unwrap(), Seq(4));
    journal.sync().unwrap();
    let (_, recovered) = open(&disk);
    assert_holds(&recovered, 1..=4);
    assert_eq!(recovered.torn_tail, None);
}

#[test]
fn reordered_unsynced_writes_are_a_torn_tail() {
    let disk = filled(2);
    let (mut journal, _) = open(&disk);
    journal.append(&payload(3)).unwrap();
    journal.append(&payload(4)).unwrap();
    let mut write = 0;
    disk.crash_with(|_| {
        write += 1;
        write != 1
    });
    let (_, recovered) = open(&disk);
    assert_holds(&recovered, 1..=2);
    assert!(recovered.torn_tail.is_some());
}

#[test]
fn flipped_bit_before_later_records_is_refused() {
    for number in [1, 2, 20, 49] {
        let disk = filled(50);
        let needle = format!("record {number} ");
        let name = segments(&disk)
            .into_iter()
            .find(|name| disk.read(name).unwrap().windows(needle.len()).any(|window| window == needle.as_bytes()))
            .expect("some segment holds the record");
        disk.flip_bit(&name, find(&disk, &name, needle.as_bytes()));
        let error = refusal(&disk);
        assert!(matches!(&error, JournalError::Damaged { seq, .. } if seq.0 == number), "{error}");
        assert!(error.to_string().contains("otherwise leave this server stopped"), "{error}");
    }
}

#[test]
fn lost_sector_before_a_record_that_proves_it_was_synced_is_refused() {
    let mut disk = MemDisk::new();
    let (mut journal, _) = open(&disk);
    for number in 1..=12 {
        journal.append(&payload(number)).unwrap();
        journal.sync().unwrap();
    }
    let name = &segments(&disk)[0];
    assert!(find(&disk, name, &payload(12)) > 512, "the last record lies behind the first sector");
    let start = find(&disk, name, &payload(3)) - 32;
    disk.write_at(name, start, &vec![0; 512 - start as usize]).unwrap();
    assert!(matches!(refusal(&disk), JournalError::Damaged { seq: Seq(3), .. }));
}

#[test]
fn flipped_bit_anywhere_in_the_last_record_is_refused() {
    // With an end mark of four bytes at a multiple of eight: the third record has no padding, the fourth has seven bytes.
    for last in [3, 4] {
        let disk = filled(last);
        let name = &segments(&disk)[0];
        let body = find(&disk, name, &payload(last));
        let end = (body + payload(last).len() as u64 + 4).next_multiple_of(8);
        for offset in body - 32..end {
            let damaged = disk.fork();
            damaged.flip_bit(name, offset);
            let error = refusal(&damaged);
            assert!(matches!(error, JournalError::Damaged { seq, .. } if seq == Seq(last)), "byte {offset}");
        }
    }
}

#[test]
fn flipped_bit_in_a_segment_header_is_refused() {
    let disk = filled(50);
    for name in segments(&disk) {
        for offset in 0..24 {
            let damaged = disk.fork();
            damaged.flip_bit(&name, offset);
            assert!(matches!(refusal(&damaged), JournalError::Damaged { offset: 0, .. }), "{name} byte {offset}");
        }
    }
}

#[test]
fn missing_segment_is_refused_wherever_it_was() {
    let disk = filled(50);
    for name in segments(&disk) {
        let mut lost = disk.fork();
        lost.remove(&name).unwrap();
        let error = refusal(&lost);
        assert!(matches!(&error, JournalError::MissingSegment { file, .. } if *file == name), "{name}: {error}");
    }
}

#[test]
fn lost_directory_content_is_refused() {
    let disk = filled(3);
    let mut lost = disk.fork();
    lost.remove("floor").unwrap();
    assert!(matches!(refusal(&lost), JournalError::MissingFloor { .. }));
    let mut lost = disk.fork();
    lost.remove(&segments(&disk)[0]).unwrap();
    assert!(matches!(refusal(&lost), JournalError::MissingSegment { seq: Seq(1), .. }));
}

#[test]
fn dropped_prefix_stays_dropped_and_its_loss_is_no_damage() {
    let disk = filled(50);
    let (mut journal, _) = open(&disk);
    journal.drop_prefix(Seq(30)).unwrap();
    let first = journal.first_seq();
    assert!(Seq(1) < first && first <= Seq(30));
    disk.crash_with(|_| false);
    let (mut journal, recovered) = open(&disk);
    assert_holds(&recovered, first.0..=50);
    journal.drop_prefix(Seq(1000)).unwrap();
    assert_eq!(segments(&disk).len(), 1);
    assert_eq!(journal.append(&payload(51)).unwrap(), Seq(51));

    let mut lost = disk.fork();
    lost.remove(&segments(&disk)[0]).unwrap();
    assert!(matches!(refusal(&lost), JournalError::MissingSegment { .. }));
}

#[test]
fn failed_step_closes_the_journal() {
    let disk = filled(3);
    let (mut journal, _) = open(&disk);
    journal.append(b"unsynced").unwrap();
    disk.fail_after(0);
    assert!(matches!(journal.sync(), Err(JournalError::Disk(_))));
    disk.fail_after(1000);
    assert!(matches!(journal.sync(), Err(JournalError::Failed)));
    assert!(matches!(journal.append(b"more"), Err(JournalError::Failed)));
    assert!(matches!(journal.drop_prefix(Seq(2)), Err(JournalError::Failed)));
}

#[test]
fn sync_without_new_records_costs_nothing() {
    let disk = filled(3);
    let (mut journal, _) = open(&disk);
    let before = disk.step_count();
    journal.sync().unwrap();
    assert_eq!(disk.step_count(), before);
}
