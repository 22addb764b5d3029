//! `why` answers for everything that is not as it should be, from a closed list of reasons (`semantics D51`): for each
//! reason a story that ends in it. That no state is without an answer, `invariants` checks.

mod story;

use domain::id::{Name, Ordinal};
use domain::object::{Phase, PodStatus};
use domain::spec::{
    AccessModes, Amount, ClaimSpec, ClassSpec, Labels, PodManagement, SetSpec, Template, UpdateStrategy,
};
use domain::{Command, Event, Reason, explain};
use std::sync::Arc;
use story::{Story, key, labels, node_name, set, template};

/// A story, and the object that has the reason at its end.
type Case = (Story, &'static str, &'static str);

fn running(spec: SetSpec) -> Story {
    let mut story = Story::with_nodes(3);
    story.apply("web", spec);
    story.settle();
    story
}

fn applied(spec: SetSpec) -> Story {
    let mut story = Story::with_nodes(3);
    story.apply("web", spec);
    story
}

fn rolling(partition: u32) -> SetSpec {
    let update = UpdateStrategy::RollingUpdate { partition: Ordinal(partition), max_unavailable: Amount::Count(1) };
    SetSpec { update, ..set(3) }
}

fn with_claim(class: Option<ClassSpec>, claim: ClaimSpec) -> Case {
    let mut story = Story::with_nodes(1);
    let class_name = "special".into();
    if let Some(spec) = class {
        let (labels, annotations) = (Labels::new(), Labels::new());
        story.ask(Command::ApplyClass { class: class_name, spec, labels, annotations });
    }
    let spec = ClaimSpec { class: Some("special".into()), request_bytes: 1 << 20, ..claim };
    let (labels, annotations) = (Labels::new(), Labels::new());
    story.ask(Command::ApplyClaim { claim: key("mine"), labels, spec, annotations, finalizers: Vec::new() });
    (story, "PersistentVolumeClaim", "mine")
}

fn shutting_down(story: &mut Story, node: &str) {
    let incarnation = story.draft.state().nodes[&node_name(node)].incarnation;
    story.ask(Command::NoteShutdown { node: node.into(), incarnation, grace_ms: Some(5_000) });
}

/// The agent says that the pod has ended by itself.
fn ended(story: &mut Story, pod: &str) {
    let record = story.pod(pod).expect("it is there");
    let binding = record.binding.clone().expect("it is placed");
    let status = PodStatus { phase: Phase::Failed, reason: "Evicted".into(), ..PodStatus::default() };
    let report = domain::command::PodReport { pod: key(pod), uid: record.meta.uid, status, ..Default::default() };
    story.ask(Command::Report {
        node: binding.node,
        incarnation: binding.incarnation,
        reports: vec![report],
        ended: Vec::new(),
        removed_volumes: Vec::new(),
    });
}

/// A reason without a story does not compile.
fn case(reason: Reason) -> Case {
    match reason {
        Reason::AsWanted => (running(set(3)), "StatefulSet", "web"),
        Reason::Held
        | Reason::Stopping
        | Reason::NoNodeFits
        | Reason::NotReady
        | Reason::NotAvailableYet
        | Reason::Ended
        | Reason::PodFinalizing => pod_case(reason),
        Reason::WaitsForPod
        | Reason::WaitsForPodToGo
        | Reason::WaitsToMakePod
        | Reason::NameIsTaken
        | Reason::RolloutPaused
        | Reason::RolloutPartitioned
        | Reason::RolloutByHand => set_case(reason),
        Reason::ClaimInUse
        | Reason::VolumeLost
        | Reason::ClassCannotShare
        | Reason::WaitsForConsumer
        | Reason::NoVolumeFits
        | Reason::ClaimFinalizing => claim_case(reason),
        Reason::NodeUnreachable
        | Reason::NodeShuttingDown
        | Reason::NodeShutDown
        | Reason::NodeCordoned
        | Reason::NodeEndsLeftovers => node_case(reason),
    }
}

fn pod_case(reason: Reason) -> Case {
    let story = match reason {
        Reason::Held => {
            let mut story = running(set(3));
            let node = story.node_of("web-1");
            story.partition(&node);
            story
        }
        Reason::Stopping => {
            let mut story = running(set(3));
            story.delete_pod("web-1");
            story
        }
        Reason::NoNodeFits => {
            let nowhere = Template { node_selector: labels(&[("disk", "none")]), ..(*template("a")).clone() };
            let policy = PodManagement::Parallel;
            applied(SetSpec { template: Arc::new(nowhere), policy, ..set(3) })
        }
        Reason::NotReady => applied(SetSpec { policy: PodManagement::Parallel, ..set(3) }),
        Reason::NotAvailableYet => running(SetSpec { min_ready_ms: 60_000, policy: PodManagement::Parallel, ..set(3) }),
        Reason::Ended => {
            let mut story = running(set(3));
            story.broken.insert("web-0".to_owned());
            story.settle();
            ended(&mut story, "web-1");
            story
        }
        Reason::PodFinalizing => {
            let kept = Template { finalizers: vec!["example.com/backup".into()], ..(*template("a")).clone() };
            let mut story = running(SetSpec { template: Arc::new(kept), ..set(3) });
            story.delete_pod("web-1");
            story.settle();
            story
        }
        _ => unreachable!("case sends only reasons of pods here"),
    };
    (story, "Pod", "web-1")
}

fn set_case(reason: Reason) -> Case {
    let story = match reason {
        Reason::WaitsForPod => applied(set(3)),
        Reason::WaitsForPodToGo => {
            let mut story = running(set(3));
            story.scale("web", 2);
            story
        }
        Reason::WaitsToMakePod => {
            let mut story = running(set(2));
            // Another pod uses the claim of the pod that is to come.
            let (labels, annotations) = (Labels::new(), Labels::new());
            let spec =
                ClaimSpec { access: AccessModes { read_write_once: true, ..Default::default() }, ..Default::default() };
            story.ask(Command::ApplyClaim {
                claim: key("www-web-2"),
                labels,
                spec,
                annotations,
                finalizers: Vec::new(),
            });
            let volumes = vec![domain::spec::NamedClaim { volume: "data".into(), claim: "www-web-2".into() }];
            let labels = story::labels(&[("app", "other")]);
            let other = Template { volumes, labels: labels.clone(), ..(*template("a")).clone() };
            let other = SetSpec { template: Arc::new(other), selector: labels, claim_templates: Vec::new(), ..set(1) };
            story.apply("other", other);
            story.settle();
            story.ask(Command::DeleteClaim { claim: key("www-web-2") });
            story.scale("web", 3);
            story.settle();
            story
        }
        Reason::NameIsTaken => {
            let mut story = running(set(3));
            let (labels, annotations) = (labels(&[("app", "mine")]), Labels::new());
            story.ask(Command::MarkPod { pod: key("web-1"), labels, annotations, finalizers: Vec::new() });
            story.settle();
            story
        }
        Reason::RolloutPaused => {
            let mut story = running(set(3));
            story.ask(Command::PauseRollout { set: key("web"), is_paused: true });
            story.apply("web", SetSpec { template: template("b"), is_paused: true, ..set(3) });
            story.settle();
            story
        }
        Reason::RolloutPartitioned => {
            let mut story = running(rolling(2));
            story.apply("web", SetSpec { template: template("b"), ..rolling(2) });
            story.settle();
            story
        }
        Reason::RolloutByHand => {
            let by_hand = SetSpec { update: UpdateStrategy::OnDelete, ..set(3) };
            let mut story = running(by_hand.clone());
            story.apply("web", SetSpec { template: template("b"), ..by_hand });
            story.settle();
            story
        }
        _ => unreachable!("case sends only reasons of sets here"),
    };
    (story, "StatefulSet", "web")
}

fn claim_case(reason: Reason) -> Case {
    let once = AccessModes { read_write_once: true, ..AccessModes::default() };
    let by = |provisioner: &str| ClassSpec { provisioner: provisioner.into(), ..ClassSpec::default() };
    match reason {
        Reason::ClaimInUse => {
            let mut story = running(set(1));
            story.ask(Command::DeleteClaim { claim: key("www-web-0") });
            (story, "PersistentVolumeClaim", "www-web-0")
        }
        // No command leads there: a bound volume's deletion is refused. A log may say so all the same.
        Reason::VolumeLost => {
            let mut story = running(set(1));
            let mut state = story.draft.state().clone();
            state.apply(&Event::ClaimLost { claim: key("www-web-0") });
            story.draft = domain::Draft::new(state);
            (story, "PersistentVolumeClaim", "www-web-0")
        }
        Reason::ClassCannotShare => {
            let many = AccessModes { read_write_many: true, ..AccessModes::default() };
            with_claim(Some(by(domain::driver::DRIVER_LOOP)), ClaimSpec { access: many, ..ClaimSpec::default() })
        }
        Reason::WaitsForConsumer => {
            let waits = ClassSpec { waits_for_consumer: true, ..by(domain::driver::DRIVER_DIR) };
            with_claim(Some(waits), ClaimSpec { access: once, ..ClaimSpec::default() })
        }
        Reason::NoVolumeFits => with_claim(None, ClaimSpec { access: once, ..ClaimSpec::default() }),
        Reason::ClaimFinalizing => {
            let (mut story, kind, name) = claim_case(Reason::NoVolumeFits);
            let spec = story.draft.state().claims[&key(name)].spec.clone();
            let (labels, annotations) = (Labels::new(), Labels::new());
            let finalizers = vec!["example.com/backup".into()];
            story.ask(Command::ApplyClaim { claim: key(name), labels, spec, annotations, finalizers });
            story.ask(Command::DeleteClaim { claim: key(name) });
            (story, kind, name)
        }
        _ => unreachable!("case sends only reasons of claims here"),
    }
}

fn node_case(reason: Reason) -> Case {
    let mut story = running(set(3));
    match reason {
        Reason::NodeUnreachable => story.partition("n1"),
        Reason::NodeShuttingDown => shutting_down(&mut story, "n1"),
        Reason::NodeShutDown => {
            shutting_down(&mut story, "n1");
            story.settle();
            story.partition("n1");
        }
        Reason::NodeCordoned => drop(story.ask(Command::CordonNode { node: "n1".into() })),
        Reason::NodeEndsLeftovers => {
            story.register("n1", "boot-1", &[domain::id::Uid(999_999)]).expect("the same boot is welcome");
        }
        _ => unreachable!("case sends only reasons of nodes here"),
    }
    (story, "Node", "n1")
}

#[test]
fn every_reason_has_a_story_that_ends_in_it() {
    for reason in Reason::ALL {
        let (story, kind, name) = case(*reason);
        let found = explain(story.draft.state(), kind, &key(name)).expect("the object is there");
        assert_eq!(found.reason, *reason, "{kind} {name}: {}", found.sentence);
        assert!(found.sentence.contains(name), "the sentence names what it is about: {}", found.sentence);
    }
}

#[test]
fn a_pod_that_is_owed_is_explained_by_its_set() {
    let (story, ..) = set_case(Reason::WaitsToMakePod);
    let found = explain(story.draft.state(), "Pod", &key("web-2")).expect("it is wanted");
    assert_eq!(found.reason, Reason::WaitsToMakePod);
    assert_eq!(found.blocking.as_deref(), Some("persistentvolumeclaim/www-web-2"));
    assert!(explain(story.draft.state(), "Pod", &key("web-9")).is_none(), "nobody wants this one");
}

#[test]
fn what_a_set_waits_for_is_its_lowest_pod_that_is_not_available() {
    let mut story = running(set(3));
    story.broken.extend(["web-1".to_owned(), "web-2".to_owned()]);
    story.settle();
    let found = explain(story.draft.state(), "StatefulSet", &key("web")).expect("it is there");
    assert_eq!((found.reason, found.blocking.as_deref()), (Reason::WaitsForPod, Some("pod/web-1")));
    let words: std::collections::BTreeSet<Name> = Reason::ALL.iter().map(|reason| reason.word().into()).collect();
    assert_eq!(words.len(), Reason::ALL.len(), "no two reasons have one word");
}
