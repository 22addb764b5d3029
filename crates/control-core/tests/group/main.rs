//! Stories of three servers on a network and disks of the test's making.

mod members;
mod world;

use control_core::{CallError, Input, Output, Reply};
use domain::agent::{FromAgent, ToAgent};
use domain::command::{Command, PodReport, Rejection};
use domain::event::Registration;
use domain::id::{Key, NodeName, Revision, Uid};
use domain::object::{Phase, PodStatus};
use world::{Answer, World, apply_set, registration, request};

#[test]
fn a_change_is_taken_by_the_leader_alone_and_reaches_every_server() {
    let mut world = World::new(3);
    let leader = world.elect();
    let follower = world.other_than(leader);
    let refused = world.call(follower, request("r1", apply_set("web", 0)));
    assert_eq!(world.answer(follower, refused), Answer::NotLeader { leader: Some(leader) });

    let taken = world.call(leader, request("r1", apply_set("web", 0)));
    world.run_until("the change is answered", |world| world.has_answer(leader, taken));
    let Answer::Replied(Ok(Reply { revision, changed: true })) = world.answer(leader, taken) else {
        panic!("it was carried out")
    };
    world.run_until("all servers have it", |world| world.revisions().iter().all(|&reached| reached == revision));
    world.assert_equal_states();
}

#[test]
fn a_request_id_is_applied_once() {
    let mut world = World::new(3);
    let leader = world.elect();
    let first = world.call(leader, request("r1", apply_set("web", 0)));
    let retry = world.call(leader, request("r1", apply_set("web", 0)));
    world.run_until("both are answered", |world| world.has_answer(leader, first) && world.has_answer(leader, retry));
    assert_eq!(world.answer(leader, first), world.answer(leader, retry));
    let revision = world.control(leader).state().revision;

    world.stop(leader);
    let next = world.elect();
    let late = world.call(next, request("r1", apply_set("web", 0)));
    world.run_until("the retry is answered", |world| world.has_answer(next, late));
    assert!(matches!(world.answer(next, late), Answer::Replied(Ok(Reply { revision: same, .. })) if same == revision));
    assert_eq!(world.control(next).state().revision, revision);
}

#[test]
fn a_refusal_waits_for_what_it_relied_on() {
    let mut world = World::new(3);
    let leader = world.elect();
    world.cut_off(leader);
    let first = world.call(leader, request("r1", apply_set("web", 0)));
    let second = world.call(
        leader,
        request(
            "r2",
            Command::DeletePod { pod: Key::new("default", "gone-0"), grace_ms: None, force: false, uid: None },
        ),
    );
    world.steps(2);
    assert!(!world.has_answer(leader, first) && !world.has_answer(leader, second));
    world.heal();
    world.run_until("both are answered", |world| world.has_answer(leader, first) && world.has_answer(leader, second));
    assert!(matches!(world.answer(leader, first), Answer::Replied(Ok(_))));
    assert!(matches!(
        world.answer(leader, second),
        Answer::Replied(Err(CallError::Rejected(Rejection::NotFound { .. })))
    ));
}

#[test]
fn a_leader_that_is_cut_off_refuses_nothing_though_nothing_is_in_flight() {
    let mut world = World::new(3);
    let leader = world.elect();
    world.cut_off(leader);
    let gone = Command::DeletePod { pod: Key::new("default", "gone-0"), grace_ms: None, force: false, uid: None };
    let refused = world.call(leader, request("r1", gone));
    world.elect_other_than(leader);
    assert!(
        !world.has_answer(leader, refused)
            || matches!(
                world.answer(leader, refused),
                Answer::NotLeader { .. } | Answer::Replied(Err(CallError::OutcomeUnknown))
            ),
        "by the state of the new leader it may be there"
    );
}

#[test]
fn a_deposed_leader_says_that_it_does_not_know() {
    let mut world = World::new(3);
    let old = world.elect();
    world.cut_off(old);
    let lost = world.call(old, request("r1", apply_set("web", 0)));
    let read = world.read(old);
    let new = world.elect_other_than(old);
    world.run_until("the old leader gives up", |world| world.has_answer(old, lost));
    assert_eq!(world.answer(old, lost), Answer::Replied(Err(CallError::OutcomeUnknown)));
    assert!(
        matches!(world.answer(old, read), Answer::NotLeader { .. }),
        "it must not read from a state that may be old"
    );

    world.heal();
    let retried = world.call(new, request("r1", apply_set("web", 0)));
    world.run_until("the retry is answered", |world| world.has_answer(new, retried));
    world.run_until("the old leader catches up", |world| world.revisions().windows(2).all(|two| two[0] == two[1]));
    world.assert_equal_states();
}

#[test]
fn any_server_answers_reads_with_everything_acknowledged() {
    let mut world = World::new(3);
    let leader = world.elect();
    let taken = world.call(leader, request("r1", apply_set("web", 0)));
    world.run_until("the change is answered", |world| world.has_answer(leader, taken));
    for server in 1..=3 {
        let read = world.read(server);
        world.run_until("the read is answered", |world| world.has_answer(server, read));
        let Answer::Read(revision) = world.answer(server, read) else { panic!("the cluster is whole") };
        assert_eq!(revision, world.control(leader).state().revision);
    }
}

#[test]
fn a_silent_node_becomes_unreachable_and_its_pod_is_held() {
    let mut world = World::new(3);
    let leader = world.elect();
    let session = world.register(leader, "n1", "boot-1");
    let applied = world.call(leader, request("r1", apply_set("web", 1)));
    world.run_until("the pod is assigned", |world| {
        world.has_answer(leader, applied)
            && world.frames(session).iter().any(|frame| matches!(frame, ToAgent::Assign(work) if work.pods.len() == 1))
    });
    let pod = Key::new("default", "web-0");
    let uid = world.control(leader).state().pods[&pod].meta.uid;
    world.report_running(leader, session, &pod, uid);
    world.run_until("the report is acknowledged", |world| {
        world.frames(session).contains(&ToAgent::ReportAcked { number: 1 })
    });

    for round in 0..40 {
        world.say(leader, session, heartbeat(round, None));
        world.steps(2);
    }
    assert!(world.frames(session).contains(&ToAgent::HeartbeatAcked { sent_at_ms: 7 }));
    assert!(
        world.control(leader).state().nodes[&NodeName::new("n1")].unreachable.is_none(),
        "heartbeats renew the lease"
    );
    world.run_until("the silent node is noticed", |world| {
        world.control(leader).state().nodes[&NodeName::new("n1")].unreachable.is_some()
    });
    assert!(world.control(leader).state().pods[&pod].hold.is_some());
    assert!(world.frames(session).contains(&ToAgent::Redirect { leader: Some(leader) }), "it has to register again");

    let again = world.register(leader, "n1", "boot-1");
    world.run_until("the node is back", |world| {
        world.frames(again).iter().any(|frame| matches!(frame, ToAgent::Registered { .. }))
    });
    let back = &world.control(leader).state().pods[&pod];
    assert!(back.hold.is_none() && back.meta.uid == uid, "the same pod goes on");
}

const fn heartbeat(sent_at_ms: u64, shutdown_within_ms: Option<u64>) -> FromAgent {
    FromAgent::Heartbeat { sent_at_ms, shutdown_within_ms }
}

/// `semantics A11-166`.
#[test]
fn a_heartbeat_says_that_the_node_is_being_shut_down_and_the_next_that_it_is_not() {
    let mut world = World::new(1);
    let leader = world.elect();
    let session = world.register(leader, "n1", "boot-1");
    let applied = world.call(leader, request("r1", apply_set("web", 1)));
    let is_told = |world: &World, work: fn(&domain::agent::Assignment) -> bool| {
        world.frames(session).iter().any(|frame| matches!(frame, ToAgent::Assign(assigned) if work(assigned)))
    };
    world.run_until("the pod is assigned", |world| {
        world.has_answer(leader, applied) && is_told(world, |work| work.pods.len() == 1)
    });
    world.say(leader, session, heartbeat(1, Some(7_000)));
    world.run_until("the agent hears that this is known, and that the pod is to stop", |world| {
        is_told(world, |work| work.is_shutting_down && work.pods.iter().all(|pod| pod.stop_within_ms.is_some()))
    });
    let revision = world.control(leader).state().revision;
    world.say(leader, session, heartbeat(2, Some(7_000)));
    world.steps(10);
    assert_eq!(world.control(leader).state().revision, revision, "said twice, it is no news");
    world.say(leader, session, heartbeat(3, None));
    world.run_until("the node goes on", |world| {
        world.control(leader).state().nodes[&NodeName::new("n1")].shutdown.is_none()
    });
}

#[test]
fn a_new_leader_gives_every_node_a_whole_lease() {
    let mut world = World::new(3);
    let old = world.elect();
    let session = world.register(old, "n1", "boot-1");
    world.run_until("the node is there", |world| {
        world.frames(session).iter().any(|frame| matches!(frame, ToAgent::Registered { .. }))
    });
    world.stop(old);
    let new = world.elect();
    let elected_at_ms = world.now_ms();
    world.run_until("the silent node is noticed", |world| {
        world.control(new).state().nodes[&NodeName::new("n1")].unreachable.is_some()
    });
    assert!(elected_at_ms + 2_400 <= world.now_ms());
}

#[test]
fn a_server_that_slept_does_not_blame_the_nodes() {
    let mut world = World::new(1);
    let leader = world.elect();
    let session = world.register(leader, "n1", "boot-1");
    world.run_until("the node is there", |world| {
        world.frames(session).iter().any(|frame| matches!(frame, ToAgent::Registered { .. }))
    });
    world.sleep(60_000);
    world.steps(10);
    world.say(leader, session, heartbeat(1, None));
    world.steps(10);
    assert!(world.control(leader).state().nodes[&NodeName::new("n1")].unreachable.is_none());
}

#[test]
fn a_node_whose_agent_hung_up_at_once_is_noticed() {
    let mut world = World::new(1);
    let leader = world.elect();
    let register = FromAgent::Register { node: "n1".into(), registration: registration("boot-1"), running: Vec::new() };
    let session = 1_000;
    let frame = Input::AgentFrame { session, frame: register };
    let _ = world.step_raw(leader, vec![Input::AgentOpened { session }, frame, Input::AgentClosed { session }]);
    world.run_until("the silent node is noticed", |world| {
        world.control(leader).state().nodes.get(&NodeName::new("n1")).is_some_and(|node| node.unreachable.is_some())
    });
}

#[test]
fn an_agent_of_a_follower_is_sent_to_the_leader() {
    let mut world = World::new(3);
    let leader = world.elect();
    let follower = world.other_than(leader);
    let session = world.open_session(follower);
    assert_eq!(world.frames(session), [ToAgent::Redirect { leader: Some(leader) }]);
}

#[test]
fn a_superseded_session_has_to_register_again() {
    let mut world = World::new(1);
    let leader = world.elect();
    let first = world.register(leader, "n1", "boot-1");
    let second = world.register(leader, "n1", "boot-2");
    world.run_until("the second is told whom it follows", |world| {
        world.frames(second) == [ToAgent::KnownIn { boot_id: "boot-1".into() }]
    });
    assert!(!world.is_closed(first), "it may be late, and mean nothing");
    let registration = Registration { former_boot: "boot-1".into(), ..registration("boot-2") };
    world.say(leader, second, FromAgent::Register { node: "n1".into(), registration, running: Vec::new() });
    world.run_until("the second is registered", |world| {
        world.frames(second).iter().any(|frame| matches!(frame, ToAgent::Registered { .. }))
    });
    assert!(world.is_closed(first) && !world.is_closed(second));
}

#[test]
fn a_server_that_was_away_for_long_gets_a_snapshot() {
    let mut world = World::with(3, |config| {
        config.snapshot_entries = 8;
        config.keep_entries = 2;
    });
    let leader = world.elect();
    let away = world.other_than(leader);
    world.cut_off(away);
    for round in 0..40 {
        let ticket = world.call(leader, request(&format!("r{round}"), apply_set(&format!("set-{round}"), 0)));
        world.run_until("the change is answered", |world| world.has_answer(leader, ticket));
    }
    world.heal();
    world.run_until("it has caught up", |world| world.revisions().windows(2).all(|two| two[0] == two[1]));
    assert!(world.was_restored(away));
    world.assert_equal_states();
    world.restart(away);
    world.run_until("it has read everything again", |world| world.revisions().windows(2).all(|two| two[0] == two[1]));
    world.assert_equal_states();
}

#[test]
fn one_step_makes_one_record_of_many_calls() {
    let mut world = World::new(1);
    let leader = world.elect();
    let inputs = (0..50)
        .map(|n| Input::Call {
            ticket: 1_000 + n,
            request: request(&format!("r{n}"), apply_set(&format!("set-{n}"), 0)),
        })
        .collect();
    let outputs = world.step_raw(leader, inputs);
    let synced = outputs.iter().filter(|output| matches!(output, Output::Persist { must_sync: true, .. })).count();
    let replied = outputs.iter().filter(|output| matches!(output, Output::Replied { result: Ok(_), .. })).count();
    assert_eq!((synced, replied), (1, 50));
}

impl World {
    fn register(&mut self, server: u64, node: &str, boot: &str) -> u64 {
        let session = self.open_session(server);
        let running = Vec::new();
        self.say(server, session, FromAgent::Register { node: node.into(), registration: registration(boot), running });
        session
    }

    fn report_running(&mut self, server: u64, session: u64, pod: &Key, uid: Uid) {
        let incarnation = self.control(server).state().nodes[&NodeName::new("n1")].incarnation;
        let status = PodStatus { phase: Phase::Running, is_ready: true, ..PodStatus::default() };
        let report = PodReport { pod: pod.clone(), uid, status, has_volumes: true, ..PodReport::default() };
        let frame = FromAgent::Report {
            number: 1,
            incarnation,
            pods: vec![report],
            ended: Vec::new(),
            removed_volumes: Vec::new(),
        };
        self.say(server, session, frame);
    }

    fn revisions(&self) -> Vec<Revision> {
        self.servers().map(|server| self.control(server).state().revision).collect()
    }
}
