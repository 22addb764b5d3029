//! The stored form never changes: one pinned line per event, and every value comes back as it went in.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

#[allow(dead_code, reason = "other tests use the rest")]
mod samples;

use api::codec::{
    CodecError, EntryWriter, Record, Variants, decode, decode_entry, encode, state_digest, template_hash,
};
use domain::event::{Batch, Event, Registration};
use domain::id::{Key, Ordinal, RequestId, Revision};
use domain::object::{Node, Pod};
use domain::spec::Template;
use domain::{Request, State};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::fmt::{Debug, Write as _};
use std::path::Path;
use std::sync::Arc;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes everything");
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex digits");
    (0..text.len()).step_by(2).map(digits).collect()
}

#[track_caller]
fn assert_comes_back<T: Record + PartialEq + Debug>(value: &T) {
    let bytes = encode(value);
    assert_eq!(Ok(value), decode::<T>(&bytes).as_ref());
}

#[test]
fn every_event_is_written_as_it_always_was() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/events.txt");
    let mut golden = std::fs::read_to_string(&path).unwrap_or_default();
    for line in golden.lines() {
        let (name, bytes) = line.split_once(' ').expect("a name and bytes");
        let event = decode::<Event>(&unhex(bytes)).unwrap();
        assert_eq!((name, bytes), (event.variant_name(), hex(&encode(&event)).as_str()), "written otherwise today");
    }
    let mut missing = Vec::new();
    for event in samples::events() {
        let line = format!("{} {}", event.variant_name(), hex(&encode(&event)));
        if golden.lines().any(|pinned| pinned == line) {
            continue;
        }
        // With UPDATE=1 lines are added, and never altered: a changed line would make written logs unreadable.
        match std::env::var_os("UPDATE") {
            Some(_) => writeln!(golden, "{line}").unwrap(),
            None => missing.push(line),
        }
    }
    assert!(missing.is_empty(), "not pinned in {}:\n{}", path.display(), missing.join("\n"));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, golden).unwrap();
    }
}

#[test]
fn every_event_has_a_sample() {
    let sampled: BTreeSet<_> = samples::events().iter().map(Variants::variant_name).collect();
    assert_eq!(sampled, Event::NAMES.iter().copied().collect());
}

#[test]
fn every_value_comes_back() {
    samples::events().iter().for_each(assert_comes_back);
    samples::commands().into_iter().for_each(|command| {
        assert_comes_back(&Request {
            actor: "user".into(),
            id: Some(RequestId::new("r-1")),
            expected: Some(Revision(0)),
            command: command.clone(),
        });
        assert_comes_back(&Request { actor: "user".into(), id: None, expected: None, command });
    });
    samples::from_agents().iter().for_each(assert_comes_back);
    samples::to_agents().iter().for_each(assert_comes_back);
    assert_comes_back(&Batch {
        base: Revision(7),
        at_ms: 1_700_000_000_000,
        actor: "planner".into(),
        request: None,
        events: samples::events(),
        planned: 3,
    });
    assert_comes_back(&Batch::default());
}

fn batch_at(base: u64) -> Batch {
    let events = vec![Event::NodeCordoned { node: "n1".into() }];
    Batch { base: Revision(base), actor: "user".into(), events, ..Batch::default() }
}

#[test]
fn an_entry_of_many_batches_is_written_as_it_always_was() {
    let mut entry = EntryWriter::default();
    assert_eq!(entry.take(), None);
    entry.push(&batch_at(3));
    entry.push(&batch_at(4));
    let bytes = entry.take().unwrap();
    let pinned = "000a1108031a04757365722a07ca06040a026e310a1108041a04757365722a07ca06040a026e31";
    assert_eq!(hex(&bytes), pinned);
    assert_eq!(decode_entry(&bytes), Ok(vec![batch_at(3), batch_at(4)]));
    assert_eq!((entry.len_bytes(), entry.take()), (0, None));
}

#[test]
fn an_entry_of_one_batch_is_read_as_it_was_written_at_first() {
    assert_eq!(decode_entry(&encode(&batch_at(3))), Ok(vec![batch_at(3)]));
}

#[test]
fn a_version_that_knows_entries_of_one_batch_alone_refuses_one_of_many() {
    let mut entry = EntryWriter::default();
    entry.push(&batch_at(3));
    let refused = decode::<Batch>(&entry.take().unwrap());
    assert!(matches!(refused, Err(CodecError::Malformed(_))), "{refused:?}");
}

#[test]
fn every_command_and_message_has_a_sample() {
    fn names<T: Variants>(values: &[T]) -> BTreeSet<&'static str> {
        values.iter().map(Variants::variant_name).collect()
    }
    fn all<T: Variants>(_: &[T]) -> BTreeSet<&'static str> {
        T::NAMES.iter().copied().collect()
    }
    let (commands, up, down) = (samples::commands(), samples::from_agents(), samples::to_agents());
    assert_eq!(names(&commands), all(&commands));
    assert_eq!(names(&up), all(&up));
    assert_eq!(names(&down), all(&down));
}

#[test]
fn a_snapshot_is_the_state_with_its_indexes() {
    let state = samples::state();
    let back: State = decode(&encode(&state)).unwrap();
    assert_eq!(format!("{state:#?}"), format!("{back:#?}"));
    assert_eq!(state_digest(&state), state_digest(&back));
}

#[test]
fn pods_of_a_snapshot_share_their_template() {
    let back: State = decode(&encode(&samples::state())).unwrap();
    let set = back.sets.get(&Key::new("default", "web")).unwrap();
    let pods: Vec<_> = back.pods.values().collect();
    assert!(2 <= pods.len());
    assert!(pods.iter().all(|pod| Arc::ptr_eq(&pod.template, &set.spec.template)));
}

#[test]
fn the_digest_does_not_depend_on_who_shares_a_template_with_whom() {
    let shared = samples::state();
    let mut apart = shared.clone();
    for (key, pod) in &shared.pods {
        let template = Arc::new((*pod.template).clone());
        apart.pods.insert(key.clone(), Arc::new(Pod { template, ..(**pod).clone() }));
    }
    assert_eq!(state_digest(&shared), state_digest(&apart));
    assert_ne!(state_digest(&shared), state_digest(&State::default()));
}

#[test]
fn a_template_is_digested_without_its_digest() {
    let template = samples::template();
    let hash = template_hash(&template);
    assert_eq!(hash, template_hash(&Template { hash, ..template.clone() }));
    assert_ne!(hash, template_hash(&Template { grace_ms: 1, ..template }));
    // Pinned: another number would roll every set at the next upgrade.
    assert_eq!(template_hash(&Template::default()), 0xcbf2_9ce4_8422_2325);
    assert_eq!(template_hash(&samples::template()), samples::TEMPLATE_HASH);
}

#[test]
fn defaults_cost_nothing_and_options_keep_their_zero() {
    assert_eq!(encode(&Batch::default()), Vec::<u8>::new());
    let scaled = Event::SetScaled { set: Key::default(), replicas: 0 };
    assert_eq!(hex(&encode(&scaled)), "6200");
    assert_comes_back(&scaled);
    let command =
        domain::Command::ScaleSet { set: Key::default(), replicas: 0, current: Some(0), force_unready: false };
    assert_comes_back(&Request { actor: "".into(), id: Some(RequestId::new("")), expected: None, command });
}

#[test]
fn unknown_fields_are_skipped_and_unknown_variants_are_not() {
    let mut bytes = encode(&Batch { at_ms: 5, ..Batch::default() });
    bytes.extend([0xfa, 0x07, 0x02, 0xff, 0xff]); // field 127, two bytes
    assert_eq!(decode::<Batch>(&bytes).unwrap(), Batch { at_ms: 5, ..Batch::default() });
    let newer = decode::<Event>(&[0xfa, 0x07, 0x00]);
    assert_eq!(newer, Err(CodecError::VariantUnknown { kind: "Event", number: 127 }));
    assert_eq!(decode::<Event>(&[]), Err(CodecError::Missing { kind: "Event" }));
}

#[test]
fn a_node_and_a_registration_that_list_ended_boots_are_read_all_the_same() {
    let ended =
        |field: u8, boot: &str| [&[field << 3 | 2, u8::try_from(boot.len()).unwrap()], boot.as_bytes()].concat();
    let node = Node { is_cordoned: true, boot_id: "boot-2".into(), ..Node::default() };
    let node_bytes = [encode(&node), ended(15, "boot-0"), ended(15, "boot-1")].concat();
    assert_eq!(decode(&node_bytes), Ok(node));
    let registration = Registration { boot_id: "boot-2".into(), ..Registration::default() };
    let registration_bytes = [encode(&registration), ended(9, "boot-0"), ended(9, "boot-1")].concat();
    assert_eq!(decode(&registration_bytes), Ok(Registration { former_boot: "boot-1".into(), ..registration }));
}

#[test]
fn long_messages_have_long_lengths() {
    let leftovers = (0..100_000).map(domain::id::Uid).collect();
    assert_comes_back(&Event::NodeReturned { node: "n1".into(), leftovers });
    assert_comes_back(&Event::PodCreated {
        set: Key::new("default", &"x".repeat(122)),
        ordinal: Ordinal(u32::MAX),
        revision: "x".repeat(20_000).into(),
        claims: Vec::new(),
    });
}

proptest! {
    #[test]
    fn damaged_bytes_never_panic(at in 0_usize..100_000, byte: u8, cut in 0_usize..100_000) {
        let mut bytes = encode(&Batch { events: samples::events(), ..Batch::default() });
        let (at, cut) = (at % bytes.len(), cut % bytes.len());
        bytes[at] = byte;
        let _ = decode::<Batch>(&bytes);
        let _ = decode::<Batch>(&bytes[..cut]);
        let _ = decode::<State>(&bytes);
    }

    #[test]
    fn any_bytes_never_panic(bytes: Vec<u8>) {
        let _ = decode::<Batch>(&bytes);
        let _ = decode_entry(&bytes);
        let _ = decode::<Event>(&bytes);
        let _ = decode::<State>(&bytes);
    }

    #[test]
    fn numbers_come_back(exit: i32, large: u64, small: u32) {
        let mut status = samples::pod_status();
        status.containers[0].last_exit = Some(exit);
        status.containers[0].pid = small;
        status.started_at_ms = large;
        let event = Event::PodReported { pod: Key::default(), uid: domain::id::Uid(large), status };
        prop_assert_eq!(&event, &decode::<Event>(&encode(&event)).unwrap());
    }
}
