//! What a leader makes of answers that come in one group.

use bytes::Bytes;
use consensus::{Config, Input, Output, Recovered, Replica};
use protobuf::Message as _;
use raft::eraftpb::{Message, MessageType};

fn input(kind: MessageType, from: u64, fill: impl FnOnce(&mut Message)) -> Input {
    let mut message = Message { from, to: 1, term: 1, ..Message::default() };
    message.set_msg_type(kind);
    fill(&mut message);
    Input::Message(Bytes::from(message.write_to_bytes().unwrap()))
}

fn sent(outputs: &[Output]) -> Vec<Message> {
    let sent = outputs.iter().filter_map(|output| match output {
        Output::Send { message, .. } => Some(Message::parse_from_bytes(message).unwrap()),
        _ => None,
    });
    sent.collect()
}

fn appends(outputs: &[Output]) -> Vec<Message> {
    sent(outputs).into_iter().filter(|message| message.get_msg_type() == MessageType::MsgAppend).collect()
}

/// Leads, by the votes of peer 2.
fn leader() -> Replica {
    let mut replica = Replica::new(Config::new(1, vec![1, 2, 3], 7), Recovered::default()).unwrap();
    let mut outputs = Vec::new();
    for _ in 0..100 {
        if replica.is_leader() {
            return replica;
        }
        let answers = sent(&outputs).into_iter().filter(|question| question.to == 2).filter_map(|question| {
            let kind = match question.get_msg_type() {
                MessageType::MsgRequestPreVote => MessageType::MsgRequestPreVoteResponse,
                MessageType::MsgRequestVote => MessageType::MsgRequestVoteResponse,
                _ => return None,
            };
            Some(input(kind, 2, |answer| answer.term = question.term))
        });
        outputs = replica.step_all(answers.chain([Input::Tick]).collect::<Vec<_>>());
    }
    panic!("nobody leads");
}

#[test]
fn entries_only_follow_the_index_that_their_message_begins_at() {
    let mut leader = leader();
    for peer in [2, 3] {
        let _ = leader.step(input(MessageType::MsgAppendResponse, peer, |message| message.index = 1));
    }
    let _ = leader.step(Input::Propose(vec![Bytes::from_static(b"second")]));
    // The first answer commits the entry, of which peer 2 is told without entries; with the second, peer 2 asks for the
    // entry again, before that message is on its way.
    let group = [
        input(MessageType::MsgAppendResponse, 3, |message| message.index = 2),
        input(MessageType::MsgAppendResponse, 2, |message| {
            (message.index, message.reject, message.reject_hint) = (2, true, 1);
        }),
    ];
    let sent = appends(&leader.step_all(group));
    assert!(sent.iter().any(|message| message.to == 2 && !message.entries.is_empty()), "{sent:?}");
    for message in sent {
        if let Some(first) = message.entries.first() {
            assert_eq!(first.index, message.index + 1, "the peer would acknowledge entries that it does not have");
        }
    }
}
