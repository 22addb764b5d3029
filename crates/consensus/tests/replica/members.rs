//! Members that come and go: one step at a time, learners first, with crashes between the steps.

use crate::network::Network;
use bytes::Bytes;
use consensus::{ChangeRefused, Input, MemberChange, Members};

/// Adds a server, lets it catch up, and makes it a voter.
fn add(network: &mut Network, id: u64) {
    let leader = network.elect();
    network.join(id);
    assert!(network.change(leader, MemberChange::AddLearner(id)));
    network.run_until("the learner catches up", |network| network.replica(leader).has_caught_up(id));
    assert!(network.change(leader, MemberChange::Promote(id)));
    network.converge();
}

fn remove(network: &mut Network, id: u64) {
    let leader = network.elect();
    assert!(network.change(leader, MemberChange::Remove(id)));
    network.converge();
}

fn members(network: &Network, id: u64) -> (&[u64], &[u64]) {
    let Members { voters, learners } = network.replica(id).members();
    (voters, learners)
}

#[test]
fn a_new_server_learns_first_and_votes_once_it_has_caught_up() {
    let mut network = Network::new(1, 1_000);
    let leader = network.elect();
    // More than what counts as nearly all.
    (0..200).for_each(|n| network.propose(leader, &[&format!("{n}")]));
    network.converge();
    assert!(network.change(leader, MemberChange::AddLearner(4)));
    network.deliver_all();
    assert_eq!(members(&network, leader), (&[1, 2, 3][..], &[4][..]));
    (0..30).for_each(|_| network.tick());
    assert!(!network.replica(leader).has_caught_up(4), "it has not even begun");
    network.join(4);
    network.run_until("the learner catches up", |network| network.replica(leader).has_caught_up(4));
    assert!(network.change(leader, MemberChange::Promote(4)));
    network.converge();
    assert_eq!(members(&network, 4), (&[1, 2, 3, 4][..], &[][..]));
    assert_eq!(network.payloads(4), network.payloads(leader), "from the first entry on");
}

#[test]
fn a_learner_that_never_catches_up_holds_nobody_up() {
    let mut network = Network::new(2, 100);
    let leader = network.elect();
    assert!(network.change(leader, MemberChange::AddLearner(4)));
    network.deliver_all();
    let follower = leader % 3 + 1;
    network.cut_off(follower);
    network.propose(leader, &["a"]);
    network.deliver_all();
    assert_eq!(network.servers[&leader].state.len(), 2, "two of three voters are enough, whoever learns");
    network.heal();
    network.converge();
    remove(&mut network, 4);
    assert_eq!(members(&network, leader), (&[1, 2, 3][..], &[][..]));
}

#[test]
fn five_members_do_without_two_and_shrink_to_three() {
    let mut network = Network::new(3, 100);
    add(&mut network, 4);
    add(&mut network, 5);
    let leader = network.elect();
    let lost: Vec<u64> = network.ids().into_iter().filter(|id| *id != leader).take(2).collect();
    lost.iter().for_each(|id| network.crash(*id));
    network.propose(leader, &["a"]);
    network.deliver_all();
    assert!(network.payloads(leader).contains(&"a".to_owned()));
    network.removed.extend(&lost);
    lost.iter().for_each(|id| remove(&mut network, *id));
    assert_eq!(network.replica(leader).members().voters.len(), 3);
    let next = *network.replica(leader).members().voters.iter().find(|id| **id != leader).unwrap();
    network.cut_off(next);
    network.propose(leader, &["b"]);
    network.deliver_all();
    assert!(network.payloads(leader).contains(&"b".to_owned()), "two of three");
}

#[test]
fn a_second_change_is_refused_until_the_first_is_applied() {
    let mut network = Network::new(4, 100);
    let leader = network.elect();
    network.converge();
    assert!(network.change(leader, MemberChange::AddLearner(4)));
    assert_eq!(members(&network, leader), (&[1, 2, 3][..], &[][..]), "nothing counts before it is committed");
    let refused = network.replica(leader).check_change(MemberChange::AddLearner(5));
    assert_eq!(refused, Err(ChangeRefused::Pending));
    assert!(!network.change(leader, MemberChange::AddLearner(5)));
    network.converge();
    assert!(network.change(leader, MemberChange::AddLearner(5)));
    network.converge();
    assert_eq!(members(&network, leader), (&[1, 2, 3][..], &[4, 5][..]));
}

#[test]
fn changes_that_make_no_sense_are_refused() {
    let mut network = Network::new(5, 100);
    let leader = network.elect();
    network.converge();
    let follower = leader % 3 + 1;
    let check = |change| network.replica(leader).check_change(change).unwrap_err();
    assert_eq!(check(MemberChange::AddLearner(follower)), ChangeRefused::IsMember);
    assert_eq!(check(MemberChange::Promote(follower)), ChangeRefused::IsNoLearner);
    assert_eq!(check(MemberChange::Promote(9)), ChangeRefused::IsNoLearner);
    assert_eq!(check(MemberChange::Remove(9)), ChangeRefused::IsNoMember);
    assert_eq!(check(MemberChange::Remove(leader)), ChangeRefused::IsLeader);
    let elsewhere = network.replica(follower).check_change(MemberChange::Remove(leader));
    assert_eq!(elsewhere, Err(ChangeRefused::NotLeader));
    let mut alone = Network::with_members(5, 100, 1);
    alone.elect();
    assert_eq!(alone.replica(1).check_change(MemberChange::Remove(1)), Err(ChangeRefused::LastVoter));
}

#[test]
fn a_leader_hands_over_before_it_is_removed() {
    let mut network = Network::new(6, 100);
    let old = network.elect();
    network.converge();
    let heir = network.replica(old).best_heir().unwrap();
    network.input(old, Input::TransferLeader(heir));
    let refused = network.replica(old).check_change(MemberChange::AddLearner(4));
    assert_eq!(refused, Err(ChangeRefused::Transferring));
    network.run_until("handover", |network| network.leader() == Some(heir));
    remove(&mut network, old);
    assert_eq!(network.leader(), Some(heir));
    assert!(!network.replica(heir).members().contains(old));
}

#[test]
fn a_removed_member_that_comes_back_disturbs_nobody() {
    let mut network = Network::new(7, 100);
    let leader = network.elect();
    let gone = leader % 3 + 1;
    network.converge();
    network.cut_off(gone);
    network.removed.insert(gone);
    remove(&mut network, gone);
    let term = network.replica(leader).term();
    (0..60).for_each(|_| network.tick());
    network.heal();
    network.restart(gone);
    (0..100).for_each(|_| network.tick());
    network.propose(leader, &["a"]);
    network.converge();
    assert_eq!((network.leader(), network.replica(leader).term()), (Some(leader), term));
    assert!(network.replica(gone).members().contains(gone), "nobody sends it anything any more");
}

#[test]
fn a_new_server_waits_for_a_snapshot_that_knows_it() {
    let mut network = Network::new(8, 0);
    let leader = network.elect();
    network.propose(leader, &["a", "b"]);
    network.converge();
    network.snapshot(leader);
    assert!(network.change(leader, MemberChange::AddLearner(4)));
    network.join(4);
    (0..40).for_each(|_| network.tick());
    assert_eq!(network.servers[&4].applied, 0, "the beginning of the log is gone, and the snapshot knows it not");
    assert!(!network.replica(leader).is_snapshot_of_members());
    network.snapshot(leader);
    assert!(network.replica(leader).is_snapshot_of_members());
    network.converge();
    assert_eq!(network.servers[&4].installed.len(), 1);
    assert_eq!(members(&network, 4), (&[1, 2, 3][..], &[4][..]), "the snapshot brought the members along");
    network.restart(4);
    assert_eq!(members(&network, 4), (&[1, 2, 3][..], &[4][..]));
}

#[test]
fn the_members_are_found_again_from_the_log_and_from_snapshots() {
    let mut network = Network::new(9, 100);
    add(&mut network, 4);
    network.ids().into_iter().for_each(|id| network.restart(id));
    network.elect();
    network.converge();
    assert_eq!(members(&network, 2), (&[1, 2, 3, 4][..], &[][..]), "from the log");
    network.snapshot(2);
    let leader = network.elect();
    assert!(network.change(leader, MemberChange::AddLearner(5)));
    network.join(5);
    network.converge();
    network.restart(2);
    network.converge();
    assert_eq!(members(&network, 2), (&[1, 2, 3, 4][..], &[5][..]), "from a snapshot and the log after it");
}

#[test]
fn a_leader_whose_removal_was_proposed_before_it_led_steps_down() {
    let mut network = Network::new(10, 100);
    let old = network.elect();
    network.converge();
    let heir = old % 3 + 1;
    let other = 6 - old - heir;
    // The heir alone gets the entry, and nobody hears that it did.
    network.cut_off(other);
    assert!(network.change(old, MemberChange::Remove(heir)));
    network.deliver_one();
    network.crash(old);
    network.heal();
    network.run_until("the heir leads or is gone", |network| network.removed.contains(&heir));
    assert!(!network.replica(heir).is_leader(), "it has no vote any more");
    network.start(old);
    let leader = network.elect();
    assert_ne!(leader, heir);
    network.propose(leader, &["a"]);
    network.converge();
}

#[test]
fn the_last_of_two_can_go_on_alone_once_the_other_has_heard_of_its_removal() {
    const OUTPUTS_MAX: u64 = 30;
    let mut heard_count = 0;
    for seed in 0..10 {
        for outputs in 0..OUTPUTS_MAX {
            let mut network = Network::with_members(seed, 100, 2);
            let leader = network.elect();
            let gone = 3 - leader;
            network.converge();
            network.servers.get_mut(&leader).unwrap().crash_after = Some(outputs);
            network.change(leader, MemberChange::Remove(gone));
            network.deliver_all();
            network.tick();
            if network.servers[&leader].replica.is_some() {
                network.crash(leader);
            }
            network.start(leader);
            if network.removed.contains(&gone) {
                heard_count += 1;
                network.crash(gone);
                assert_eq!(network.elect(), leader);
                network.propose(leader, &["alone"]);
                network.converge();
            }
        }
    }
    assert!(100 < heard_count, "the removal was committed {heard_count} times only");
}

#[test]
fn a_leader_that_commits_its_own_removal_stays_until_the_last_of_two_knows_it() {
    let mut stayed_count = 0;
    for seed in 0..20 {
        let mut network = Network::with_members(seed, 100, 2);
        let old = network.elect();
        let heir = 3 - old;
        network.converge();
        assert!(network.change(old, MemberChange::Remove(heir)));
        // The heir gets the entry, and the leader never hears that it did.
        network.deliver_one();
        network.crash(old);
        network.start(old);
        network.run_closely_until("the removal is committed", |network| network.removed.contains(&heir));
        // The one that stays hears nothing of that.
        network.cut_off(old);
        network.deliver_all();
        network.heal();
        network.restart(old);
        // Whoever knows of a removal refuses what the removed one says, which tells it as much.
        let may_go =
            |network: &Network| network.replica(heir).is_let_go() || !network.replica(old).members().contains(heir);
        while !may_go(&network) {
            stayed_count += 1;
            assert!(stayed_count < 1_000, "seed {seed}: it would never end");
            network.input(heir, Input::Leave);
            network.tick();
        }
        network.crash(heir);
        network.restart(old);
        assert_eq!(network.elect(), old, "seed {seed}");
        network.propose(old, &["alone"]);
        network.converge();
    }
    assert!(0 < stayed_count, "whoever was removed never led");
}

/// Members come and go under loss, doubling, partitions and crashes between any two outputs.
fn run_chaos(seed: u64) -> Network {
    const ROUNDS: usize = 300;
    const SERVERS_MAX: usize = 5;
    let mut network = Network::new(seed, seed % 5);
    network.disorder = seed % 3 * 6;
    network.saves_members = true;
    let mut next_id = 4;
    for round in 0..ROUNDS {
        let ids = network.ids();
        let id = ids[network.random.below(ids.len() as u64) as usize];
        let leader = network.leader().unwrap_or(id);
        match network.random.below(100) {
            0..6 => {
                let outputs = network.random.below(8);
                network.servers.get_mut(&id).unwrap().crash_after = Some(outputs);
            }
            6..9 => network.cut_off(id),
            9..20 => network.heal(),
            20..25 => network.snapshot(id),
            25..28 => network.input(id, Input::TransferLeader(id % 3 + 1)),
            28..50 if network.servers[&leader].replica.is_some() => {
                let Members { voters, learners } = network.replica(leader).members().clone();
                let count = voters.len() + learners.len();
                let ready = learners.iter().find(|learner| network.replica(leader).has_caught_up(**learner));
                let change = match ready {
                    Some(learner) => MemberChange::Promote(*learner),
                    None if count < SERVERS_MAX => MemberChange::AddLearner(next_id),
                    None => MemberChange::Remove(voters[network.random.below(voters.len() as u64) as usize]),
                };
                if network.change(leader, change) && change == MemberChange::AddLearner(next_id) {
                    network.join(next_id);
                    next_id += 1;
                }
            }
            _ => network.input(leader, Input::Propose(vec![Bytes::from(format!("{round}"))])),
        }
        network.tick();
        for id in network.ids() {
            if network.servers[&id].replica.is_none() && network.random.percent(25) {
                network.start(id);
            }
        }
    }
    network
}

/// Ends all faults, and waits until the present members agree.
fn settle(network: &mut Network) {
    network.disorder = 0;
    network.heal();
    for id in network.ids() {
        let server = network.servers.get_mut(&id).unwrap();
        server.crash_after = None;
        if server.replica.is_none() {
            network.start(id);
        }
    }
    (0..60).for_each(|_| network.tick());
    let leader = network.elect();
    // A learner whose addition was proposed and then lost with its leader never was a member.
    let members = network.replica(leader).members().clone();
    let strangers: Vec<u64> = network.ids().into_iter().filter(|id| !members.contains(*id)).collect();
    network.removed.extend(strangers);
    network.propose(leader, &["last"]);
    network.converge();
    assert_eq!(network.payloads(leader).last().unwrap(), "last");
}

#[test]
fn members_come_and_go_in_chaos() {
    let (mut added, mut removed, mut installed) = (0, 0, 0);
    for seed in 0..40 {
        let mut network = run_chaos(seed);
        settle(&mut network);
        let leader = network.leader().unwrap();
        added += network.replica(leader).members().voters.iter().filter(|id| 3 < **id).count();
        removed += network.removed.iter().filter(|id| **id <= 3).count();
        installed += network.servers.values().map(|server| server.installed.len()).sum::<usize>();
    }
    // The runs must have gone through what they are about.
    assert!(60 < added && 20 < removed && 40 < installed, "{added} {removed} {installed}");
}
