//! What one record costs the journal, without the disk: framing, checksum, and the bookkeeping of segments.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use journal::testing::MemDisk;
use journal::{Journal, Options};

/// How long the records are: a small change, and a full entry of the log.
const RECORD_BYTES: [usize; 2] = [512, 256 << 10];
/// The oldest records go after so many: a journal in memory must not grow for as long as it is measured.
const KEPT_RECORDS: u64 = 64;

fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append");
    for bytes in RECORD_BYTES {
        let options = Options { segment_bytes_max: 1 << 20 };
        let (mut journal, _) = Journal::open(MemDisk::new(), options).expect("an empty disk can be opened");
        let record = vec![7; bytes];
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(format!("{bytes} bytes"), |bencher| {
            bencher.iter(|| {
                let seq = journal.append(&record).expect("there is room in memory");
                journal.sync().expect("memory does not fail");
                if seq.0.is_multiple_of(KEPT_RECORDS) {
                    journal.drop_prefix(seq).expect("memory does not fail");
                }
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = journal_append;
    config = Criterion::default().sample_size(20).without_plots();
    targets = append
}
criterion_main!(journal_append);
