//! Servers that join the control plane and leave it, asked for as anything else is.

use crate::world::{Answer, World, apply_set, request};
use control_core::{CallError, Reply};
use domain::command::{Command, Rejection};
use domain::id::ServerId;

fn add(id: u64) -> Command {
    Command::AddServer { server: None, address: format!("10.0.0.{id}:7000").as_str().into() }
}

fn remove(id: u64) -> Command {
    Command::RemoveServer { server: ServerId(id) }
}

/// Asks a server, and waits for its answer.
fn ask(world: &mut World, id: u64, name: &str, command: Command) -> Answer {
    let ticket = world.call(id, request(name, command));
    world.run_until("the call is answered", |world| world.has_answer(id, ticket));
    world.answer(id, ticket)
}

#[track_caller]
fn done(answer: Answer) -> Reply {
    match answer {
        Answer::Replied(Ok(reply)) => reply,
        other => panic!("{other:?}"),
    }
}

/// Adds a server and waits until it votes.
fn grow(world: &mut World, leader: u64, id: u64) {
    done(ask(world, leader, &format!("add-{id}"), add(id)));
    world.join(id);
    world.run_until("it votes", |world| world.control(id).status().voters.contains(&id));
}

/// The state and raft name the same members on each server.
#[track_caller]
fn assert_agreed(world: &mut World, voters: &[u64]) {
    let is_so = |world: &World| world.servers().all(|id| world.control(id).status().voters == voters);
    world.run_until("all servers know the members", is_so);
    for id in world.servers() {
        let servers = &world.control(id).state().servers;
        let voting = servers.iter().filter(|(_, server)| server.is_voter).map(|(id, _)| id.0);
        assert_eq!(voting.collect::<Vec<_>>(), voters, "on {id}");
    }
}

#[test]
fn three_servers_become_five_and_three_again() {
    let mut world = World::new(3);
    let leader = world.elect();
    assert_eq!(world.control(leader).state().founders, [1, 2, 3].map(ServerId));
    grow(&mut world, leader, 4);
    grow(&mut world, leader, 5);
    assert_agreed(&mut world, &[1, 2, 3, 4, 5]);
    let gone = world.other_than(leader);
    world.stop(gone);
    let other = world.other_than(leader);
    world.stop(other);
    done(ask(&mut world, leader, "set", apply_set("web", 0)));
    done(ask(&mut world, leader, "one", remove(gone)));
    done(ask(&mut world, leader, "two", remove(other)));
    let left: Vec<u64> = (1..=5).filter(|id| *id != gone && *id != other).collect();
    assert_agreed(&mut world, &left);
    for id in world.servers().collect::<Vec<_>>() {
        world.restart(id);
    }
    world.elect();
    assert_agreed(&mut world, &left);
    world.steps(20);
    world.assert_equal_states();
}

#[test]
fn a_new_server_gets_a_snapshot_that_knows_it() {
    let mut world = World::with(3, |config| {
        config.snapshot_entries = 10;
        config.keep_entries = 2;
    });
    let leader = world.elect();
    for n in 0..50 {
        done(ask(&mut world, leader, &format!("set-{n}"), apply_set(&format!("set-{n}"), 0)));
    }
    grow(&mut world, leader, 4);
    assert!(world.was_restored(4));
    assert_agreed(&mut world, &[1, 2, 3, 4]);
    world.restart(4);
    world.steps(20);
    world.assert_equal_states();
}

#[test]
fn a_server_that_never_comes_stays_a_learner_and_can_be_removed() {
    let mut world = World::new(3);
    let leader = world.elect();
    let first = done(ask(&mut world, leader, "add", add(4)));
    let again = done(ask(&mut world, leader, "add", add(4)));
    assert_eq!(again.revision, first.revision, "a retry is carried out once");
    world.steps(40);
    let status = world.control(leader).status();
    assert_eq!((status.voters, status.learners, status.lagging), (vec![1, 2, 3], vec![4], vec![4]));
    let taken = ask(&mut world, leader, "same", add(4));
    assert!(matches!(taken, Answer::Replied(Err(CallError::Rejected(Rejection::Invalid { field: "address", .. })))));
    done(ask(&mut world, leader, "remove", remove(4)));
    let reused = Command::AddServer { server: Some(ServerId(4)), address: "10.0.0.9:7000".into() };
    let reused = ask(&mut world, leader, "reuse", reused);
    assert!(matches!(reused, Answer::Replied(Err(CallError::Rejected(Rejection::Invalid { field: "id", .. })))));
    done(ask(&mut world, leader, "next", add(5)));
    assert_eq!(world.control(leader).status().learners, [5]);
}

#[test]
fn a_leader_that_is_to_be_removed_hands_over_first_and_ends() {
    let mut world = World::new(3);
    let leader = world.elect();
    let Answer::NotLeader { leader: Some(heir) } = ask(&mut world, leader, "remove", remove(leader)) else {
        panic!("it does not remove itself");
    };
    let is_leader = |world: &World| world.control(heir).status().leader == Some(heir);
    world.run_until("the heir leads", is_leader);
    world.run_until("the heir has begun", |world| !world.control(heir).status().matched.is_empty());
    done(ask(&mut world, heir, "remove", remove(leader)));
    world.run_until("the removed one knows", |world| world.knows_that_it_is_removed(leader));
    world.stop(leader);
    let left: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    assert_agreed(&mut world, &left);
    world.start(leader);
    world.steps(2);
    assert!(world.knows_that_it_is_removed(leader), "it also knows when it starts again");
}

#[test]
fn a_removal_that_meets_its_own_handover_is_not_refused() {
    let mut world = World::new(3);
    let leader = world.elect();
    let Answer::NotLeader { leader: Some(heir) } = ask(&mut world, leader, "remove", remove(leader)) else {
        panic!("it does not remove itself");
    };
    // The handover lasts, and the leader leads on.
    world.stop(heir);
    let again = ask(&mut world, leader, "remove", remove(leader));
    assert!(matches!(again, Answer::NotLeader { .. }), "it is to be asked again: {again:?}");
}

#[test]
fn a_removal_that_would_leave_no_quorum_is_refused() {
    let mut world = World::new(3);
    let leader = world.elect();
    let dead = world.other_than(leader);
    let alive = 6 - leader - dead;
    world.stop(dead);
    // Until the leader notices that it is silent.
    world.run_until("it is missed", |world| !world.control(leader).status().reachable.contains(&dead));
    let refused = ask(&mut world, leader, "wrong", remove(alive));
    let expected = Rejection::WouldLoseQuorum { server: ServerId(alive), remaining: 2, alive: 1, needed: 2 };
    assert_eq!(refused, Answer::Replied(Err(CallError::Rejected(expected))));
    done(ask(&mut world, leader, "right", remove(dead)));
    assert_agreed(&mut world, &[leader.min(alive), leader.max(alive)]);
}

#[test]
fn a_second_change_is_refused_while_the_first_is_under_way() {
    let mut world = World::new(3);
    let leader = world.elect();
    let (one, two) = world.call_both(leader, request("one", add(4)), request("two", add(5)));
    world.run_until("both are answered", |world| world.has_answer(leader, one) && world.has_answer(leader, two));
    done(world.answer(leader, one));
    assert_eq!(world.answer(leader, two), Answer::Replied(Err(CallError::Rejected(Rejection::ServersChanging))));
    done(ask(&mut world, leader, "three", add(5)));
}

#[test]
fn leadership_is_handed_to_whom_it_is_asked_for() {
    let mut world = World::new(3);
    let leader = world.elect();
    let heir = world.other_than(leader);
    let ticket = world.transfer(leader, Some(heir));
    world.run_until("it is answered", |world| world.has_answer(leader, ticket));
    done(world.answer(leader, ticket));
    assert_eq!(world.control(leader).status().leader, Some(heir));
    let elsewhere = world.transfer(leader, None);
    assert_eq!(world.answer(leader, elsewhere), Answer::NotLeader { leader: Some(heir) });
    world.elect();
    let stranger = world.transfer(heir, Some(9));
    let not_found = Rejection::NotFound { kind: "voting server", name: "s9".to_owned() };
    assert_eq!(world.answer(heir, stranger), Answer::Replied(Err(CallError::Rejected(not_found))));
    world.stop(leader);
    let to_nobody = world.transfer(heir, Some(leader));
    world.run_until("it is given up", |world| world.has_answer(heir, to_nobody));
    assert_eq!(world.answer(heir, to_nobody), Answer::Replied(Err(CallError::NotTakenOver)));
}
