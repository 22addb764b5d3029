//! Claims, volumes and fences (`semantics A10`): given, when, then.

mod story;

use domain::command::{PodReport, VolumeSize};
use domain::driver::{DRIVER_DIR, DRIVER_LOOP};
use domain::id::VolumeName;
use domain::object::Volume;
use domain::spec::{
    AccessModes, ClaimSpec, ClassSpec, Labels, NamedClaim, PodManagement, Reclaim, SetSpec, Template, VolumeSpec,
};
use domain::{Command, Event};
use std::sync::Arc;
use story::{Story, key, labels, set, template};

fn running(replicas: u32) -> Story {
    let mut story = Story::with_nodes(3);
    story.apply("web", set(replicas));
    story.settle();
    story.log.clear();
    story
}

fn once() -> AccessModes {
    AccessModes { read_write_once: true, ..AccessModes::default() }
}

fn claim(story: &mut Story, name: &str, spec: ClaimSpec) {
    story.ask(Command::ApplyClaim {
        claim: key(name),
        labels: Labels::new(),
        spec,
        annotations: Labels::new(),
        finalizers: Vec::new(),
    });
}

fn volume(story: &mut Story, name: &str, spec: VolumeSpec) {
    story.ask(Command::ApplyVolume { volume: name.into(), labels: Labels::new(), spec, annotations: Labels::new() });
}

fn class(story: &mut Story, name: &str, spec: ClassSpec) {
    story.ask(Command::ApplyClass { class: name.into(), spec, labels: Labels::new(), annotations: Labels::new() });
}

#[test]
fn a_claim_without_a_class_gets_the_default_ones_name() {
    // semantics A10-114.
    let story = running(1);
    let record = &story.draft.state().claims[&key("www-web-0")];
    assert_eq!(record.spec.class, Some("standard".into()));
}

#[test]
fn a_claim_made_before_there_was_a_default_class_gets_it_when_there_is_one() {
    let mut story = Story::with_nodes(1);
    story.ask(Command::DeleteClass { class: "standard".into() });
    claim(&mut story, "data", ClaimSpec { access: once(), request_bytes: 1, ..ClaimSpec::default() });
    assert_eq!(story.draft.state().claims[&key("data")].spec.class, None);
    let spec = ClassSpec { provisioner: DRIVER_DIR.into(), is_default: true, ..ClassSpec::default() };
    class(&mut story, "later", spec);
    let record = &story.draft.state().claims[&key("data")];
    assert_eq!(record.spec.class, Some("later".into()));
    assert!(record.volume.is_some());
}

#[test]
fn a_volume_made_again_under_its_name_goes_on_with_higher_fences() {
    let mut story = Story::with_nodes(1);
    let disk = domain::id::VolumeName::new("disk");
    let access = AccessModes { read_write_once_pod: true, ..AccessModes::default() };
    let spec = VolumeSpec {
        capacity_bytes: 1 << 30,
        access,
        class: "standard".into(),
        driver: DRIVER_DIR.into(),
        reclaim: Reclaim::Retain,
        ..VolumeSpec::default()
    };
    volume(&mut story, "disk", spec.clone());
    story.apply("web", set(1));
    story.settle();
    let first = story.draft.state().volumes[&disk].fence;
    story.ask(Command::DeleteSet { set: key("web"), orphan: false });
    story.settle();
    story.ask(Command::DeleteClaim { claim: key("www-web-0") });
    story.ask(Command::DeleteVolume { volume: "disk".into() });
    volume(&mut story, "disk", spec);
    story.apply("web", set(1));
    story.settle();
    let second = story.draft.state().volumes[&disk].fence;
    assert!(first < second, "{first} and then {second}");
}

#[test]
fn a_static_volume_is_found_by_the_name_of_a_class_that_does_not_exist() {
    let mut story = Story::with_nodes(1);
    let shelf = Some("shelves".into());
    let wish = ClaimSpec { access: once(), request_bytes: 1, class: shelf, ..ClaimSpec::default() };
    claim(&mut story, "data", wish);
    assert_eq!(story.draft.state().claims[&key("data")].volume, None, "there is nothing that would make one");
    let other = VolumeSpec { capacity_bytes: 1, access: once(), class: "standard".into(), ..VolumeSpec::default() };
    volume(&mut story, "other", other.clone());
    assert_eq!(story.draft.state().claims[&key("data")].volume, None, "a volume of another class is not meant");
    volume(&mut story, "shelf", VolumeSpec { class: "shelves".into(), ..other });
    assert_eq!(story.draft.state().claims[&key("data")].volume, Some("shelf".into()));
}

#[test]
fn marks_of_claims_volumes_and_classes_are_kept_and_may_change() {
    let mut story = Story::with_nodes(1);
    let spec = ClaimSpec { access: once(), request_bytes: 1, ..ClaimSpec::default() };
    for note in ["first", "second"] {
        let (labels, annotations) = (labels(&[("tier", note)]), labels(&[("note", note)]));
        story.ask(Command::ApplyClaim {
            claim: key("data"),
            labels: labels.clone(),
            spec: spec.clone(),
            annotations: annotations.clone(),
            finalizers: Vec::new(),
        });
        let meta = &story.draft.state().claims[&key("data")].meta;
        assert_eq!((&meta.labels, &meta.annotations), (&labels, &annotations));
        assert_eq!(meta.generation.0, 1, "the spec is the same");
    }
    let mut template = set(1);
    template.claim_templates[0].annotations = labels(&[("note", "template")]);
    story.apply("web", template);
    let meta = &story.draft.state().claims[&key("www-web-0")].meta;
    assert_eq!(meta.annotations, labels(&[("note", "template")]));
}

#[test]
fn another_time_to_be_ready_changes_who_is_available_and_restarts_nobody() {
    // semantics A3-33.
    let mut story = running(2);
    let uids = [story.uid("web-0"), story.uid("web-1")];
    let available = |story: &Story| ["web-0", "web-1"].map(|pod| story.pod(pod).is_some_and(|p| p.is_available));
    assert_eq!(available(&story), [true, true]);
    story.apply("web", SetSpec { min_ready_ms: 3_600_000, ..set(2) });
    assert_eq!(available(&story), [false, false]);
    story.apply("web", set(2));
    story.settle();
    assert_eq!(available(&story), [true, true]);
    assert_eq!([story.uid("web-0"), story.uid("web-1")], uids);
    assert!(!story.log.iter().any(|event| matches!(event, Event::RevisionTargeted { .. })));
}

/// A volume made by hand for the class `local`, which provisions nothing.
fn by_hand(size: u64, access: AccessModes) -> VolumeSpec {
    VolumeSpec {
        capacity_bytes: size,
        access,
        class: "local".into(),
        driver: DRIVER_DIR.into(),
        reclaim: Reclaim::Retain,
        ..VolumeSpec::default()
    }
}

fn local(size: u64) -> ClaimSpec {
    ClaimSpec { access: once(), request_bytes: size, class: Some("local".into()), ..ClaimSpec::default() }
}

fn volume_of(story: &Story, claim: &str) -> Option<String> {
    story.draft.state().claims.get(&key(claim))?.volume.as_ref().map(ToString::to_string)
}

#[test]
fn volumes_made_by_hand_are_chosen_by_modes_then_size() {
    // semantics A10-115 to 118, 121, E20.
    let mut story = Story::with_nodes(1);
    claim(&mut story, "first", local(1 << 30));
    assert_eq!(volume_of(&story, "first"), None, "there is none yet");
    let many = AccessModes { read_write_many: true, ..once() };
    volume(&mut story, "small", by_hand(1 << 20, once()));
    volume(&mut story, "wrong-class", VolumeSpec { class: "other".into(), ..by_hand(1 << 30, once()) });
    assert_eq!(volume_of(&story, "first"), None);
    volume(&mut story, "many", by_hand(1 << 30, many));
    assert_eq!(volume_of(&story, "first").as_deref(), Some("many"), "it binds by itself when one appears");
    for (name, access) in [("large", once()), ("shared", many)] {
        volume(&mut story, name, by_hand(if name == "large" { 10 << 30 } else { 1 << 30 }, access));
    }
    claim(&mut story, "second", local(1 << 30));
    assert_eq!(volume_of(&story, "second").as_deref(), Some("large"), "the closest modes before the closest size");
    let selector = labels(&[("kind", "ssd")]);
    claim(&mut story, "picky", ClaimSpec { selector: selector.clone(), ..local(1) });
    assert_eq!(volume_of(&story, "picky"), None, "no volume has the label");
    claim(&mut story, "named", ClaimSpec { selector, volume: Some("shared".into()), ..local(1) });
    assert_eq!(volume_of(&story, "named").as_deref(), Some("shared"), "a name goes before labels");
}

#[test]
fn a_volume_kept_for_a_claim_goes_to_it_alone() {
    // semantics A10-119, 120.
    let mut story = Story::with_nodes(1);
    volume(&mut story, "small", by_hand(1 << 30, once()));
    volume(&mut story, "kept", VolumeSpec { claim: Some(key("mine")), ..by_hand(9 << 30, once()) });
    claim(&mut story, "mine", local(1 << 30));
    assert_eq!(volume_of(&story, "mine").as_deref(), Some("kept"), "though a smaller one is free");
    claim(&mut story, "other", ClaimSpec { volume: Some("kept".into()), ..local(1 << 30) });
    assert_eq!(volume_of(&story, "other"), None, "it is bound elsewhere");
}

#[test]
fn a_claim_may_wait_for_its_first_pod() {
    // semantics A10-124 to 126.
    let mut story = Story::with_nodes(2);
    let waiting = ClassSpec {
        provisioner: DRIVER_DIR.into(),
        is_default: true,
        waits_for_consumer: true,
        ..ClassSpec::default()
    };
    class(&mut story, "standard", waiting);
    claim(&mut story, "data", ClaimSpec { access: once(), request_bytes: 1, ..ClaimSpec::default() });
    assert_eq!(volume_of(&story, "data"), None);
    let why = domain::explain(story.draft.state(), "PersistentVolumeClaim", &key("data")).unwrap();
    assert!(why.sentence.contains("waits for a pod"), "{}", why.sentence);
    story.ask(Command::CordonNode { node: "n1".into() });
    story.ask(Command::CordonNode { node: "n2".into() });
    story.apply("web", set(1));
    assert_eq!(volume_of(&story, "www-web-0"), None, "the pod has no node yet");
    story.ask(Command::UncordonNode { node: "n2".into() });
    story.settle();
    assert!(volume_of(&story, "www-web-0").is_some() && story.pod("web-0").unwrap().is_ready());
}

#[test]
fn a_retained_volume_is_released_and_not_bound_again() {
    // semantics A10-128, 129.
    let mut story = Story::with_nodes(1);
    volume(&mut story, "disk", by_hand(1 << 30, once()));
    claim(&mut story, "data", local(1 << 30));
    story.ask(Command::DeleteClaim { claim: key("data") });
    claim(&mut story, "data", local(1 << 30));
    assert_eq!(volume_of(&story, "data"), None, "the name is the same, the claim is another");
    let phase = story.draft.state().volumes[&domain::id::VolumeName::new("disk")].phase;
    assert_eq!(phase, domain::object::VolumePhase::Released);
}

/// Two pods that share one claim, made with these modes.
fn sharing(access: AccessModes) -> Story {
    let mut story = Story::with_nodes(3);
    claim(&mut story, "shared", ClaimSpec { access, request_bytes: 1, ..ClaimSpec::default() });
    let volumes = vec![NamedClaim { volume: "www".into(), claim: "shared".into() }];
    let template = Arc::new(Template { volumes, ..(*template("a")).clone() });
    let spec = SetSpec { template, claim_templates: Vec::new(), policy: PodManagement::Parallel, ..set(2) };
    story.apply("web", spec);
    story.settle();
    story
}

#[test]
fn a_claim_for_one_pod_is_used_by_one() {
    // semantics D32.
    let story = sharing(AccessModes { read_write_once_pod: true, ..AccessModes::default() });
    assert!(story.pod("web-0").unwrap().is_ready());
    let second = story.pod("web-1").unwrap();
    let reasons = &second.unplaced.as_ref().expect("it has no node").reasons;
    assert!(
        second.binding.is_none() && reasons.keys().all(|r| r.as_str().contains("in use by pod web-0")),
        "{reasons:?}"
    );
}

#[test]
fn nodes_that_share_a_volume_have_it_under_one_fence_until_none_has_it() {
    let mut story = sharing(AccessModes { read_write_many: true, ..AccessModes::default() });
    let shared = |story: &Story| {
        let volume = story.draft.state().volumes.values().next().expect("the claim has a volume").clone();
        let fences: Vec<_> = volume.attachments.values().map(|attachment| attachment.fence).collect();
        (volume.fence, fences)
    };
    let scale = |story: &mut Story, replicas| {
        story.ask(Command::ScaleSet { set: key("web"), replicas, current: None, force_unready: true });
        story.settle();
    };
    let (first, fences) = shared(&story);
    assert_eq!(fences, [first; 2], "who joins takes it from nobody");
    scale(&mut story, 0);
    assert_eq!(shared(&story), (first, vec![]));
    scale(&mut story, 3);
    let (second, fences) = shared(&story);
    assert!(first < second, "who begins anew has a higher one");
    assert_eq!(fences, [second; 3]);
}

#[test]
fn pods_that_share_a_volume_for_one_node_come_to_that_node() {
    // semantics D33.
    let story = sharing(once());
    assert_eq!(story.node_of("web-0"), story.node_of("web-1"));
    assert!(story.draft.state().volumes.values().all(|volume| volume.attachments.len() == 1));
}

#[test]
fn a_shared_volume_is_let_go_of_when_its_pods_end_together() {
    // Both are gone by the same report: neither may count on the other to free the volume.
    let mut story = sharing(once());
    story.scale("web", 0);
    story.settle();
    assert_eq!(story.names(), [] as [&str; 0]);
    assert!(story.draft.state().volumes.values().all(|volume| volume.attachments.is_empty()));
}

/// What a node says of itself when it has the driver of images, or not.
fn announce(story: &mut Story, node: &str, said: &str) {
    let registration = domain::event::Registration {
        boot_id: "boot-1".into(),
        machine_id: format!("machine-{node}").as_str().into(),
        capacity: domain::spec::Resources { cpu_milli: 4_000, memory_bytes: 1 << 33 },
        pods_max: 110,
        info: labels(&[("feature/volumes-loop", said)]),
        ..domain::event::Registration::default()
    };
    story.ask(Command::RegisterNode { node: node.into(), registration, running: Vec::new() });
}

#[test]
fn a_pod_goes_only_where_the_driver_of_its_volumes_is() {
    let mut story = Story::with_nodes(2);
    let images = ClassSpec { provisioner: DRIVER_LOOP.into(), is_default: true, ..ClassSpec::default() };
    class(&mut story, "standard", images);
    announce(&mut story, "n1", "off: only root can mount an image");
    story.apply("web", set(1));
    story.settle();
    let why = domain::explain(story.draft.state(), "Pod", &key("web-0")).unwrap();
    for part in ["1 node has no volume driver loop.holdfast.dev (off: only root", "1 node has no volume driver"] {
        assert!(why.sentence.contains(part), "{}", why.sentence);
    }
    announce(&mut story, "n2", "on");
    story.settle();
    let pod = story.pod("web-0").unwrap();
    assert!(pod.is_ready() && pod.binding.as_ref().is_some_and(|binding| binding.node.as_str() == "n2"));

    // Nor is the storage removed by a node that cannot.
    story.ask(Command::DeleteSet { set: key("web"), orphan: false });
    story.settle();
    story.ask(Command::DeleteClaim { claim: key("www-web-0") });
    let removals = |node: &str| domain::assignment(story.draft.state(), &node.into()).unwrap().removals.len();
    assert_eq!((removals("n1"), removals("n2")), (0, 1));
}

#[test]
fn a_file_system_of_one_kernel_is_not_made_for_several_nodes() {
    let mut story = Story::with_nodes(1);
    for (name, waits_for_consumer) in [("now", false), ("later", true)] {
        let images = ClassSpec { provisioner: DRIVER_LOOP.into(), waits_for_consumer, ..ClassSpec::default() };
        class(&mut story, name, images);
        let access = AccessModes { read_write_many: true, ..AccessModes::default() };
        let wish = ClaimSpec { access, class: Some(name.into()), request_bytes: 1, ..ClaimSpec::default() };
        claim(&mut story, name, wish);
        assert_eq!(volume_of(&story, name), None);
        let why = domain::explain(story.draft.state(), "PersistentVolumeClaim", &key(name)).unwrap();
        assert!(why.sentence.contains("gives a volume to one node at a time"), "{}", why.sentence);
    }
}

#[test]
fn a_file_system_has_grown_when_its_node_says_so_of_the_last_size_that_was_asked_for() {
    let mut story = Story::with_nodes(1);
    let images =
        ClassSpec { provisioner: DRIVER_LOOP.into(), is_default: true, may_expand: true, ..ClassSpec::default() };
    class(&mut story, "standard", images);
    announce(&mut story, "n1", "on");
    story.apply("web", set(1));
    story.settle();
    let ask = |story: &mut Story, size_bytes: u64| {
        let mut larger = set(1);
        larger.claim_templates[0].spec.request_bytes = size_bytes;
        story.apply("web", larger);
        story.settle();
    };
    let say = |story: &mut Story, size_bytes: u64| {
        let pod = story.pod("web-0").expect("it is there").clone();
        let size = VolumeSize { volume: only_volume(story).0, size_bytes };
        let report = PodReport {
            pod: key("web-0"),
            uid: pod.meta.uid,
            status: pod.status.clone(),
            has_volumes: true,
            grown: vec![size],
            ..PodReport::default()
        };
        let node = story.draft.state().nodes.values().next().expect("there is one").incarnation;
        story.ask(Command::Report {
            node: "n1".into(),
            incarnation: node,
            reports: vec![report],
            ended: Vec::new(),
            removed_volumes: Vec::new(),
        });
    };
    let is_growing = |story: &Story| {
        let assigned = domain::assignment(story.draft.state(), &"n1".into()).expect("it has work");
        let (_, volume) = only_volume(story);
        assert_eq!(assigned.pods[0].volumes[0].is_growing, volume.growth.is_some(), "its node is told");
        volume.growth.as_ref().map(|growth| growth.from_bytes)
    };
    let first = only_volume(&story).1.spec.capacity_bytes;
    assert_eq!(is_growing(&story), None);
    ask(&mut story, first * 2);
    assert_eq!(is_growing(&story), Some(first));
    ask(&mut story, first * 3);
    say(&mut story, first * 2);
    assert_eq!(is_growing(&story), Some(first), "that was said of the size before");
    say(&mut story, first * 3);
    assert_eq!(is_growing(&story), None);
    let count = story.log.iter().filter(|event| matches!(event, Event::VolumeGrown { .. })).count();
    say(&mut story, first * 3);
    assert_eq!((count, is_growing(&story)), (1, None), "once is enough");
}

fn only_volume(story: &Story) -> (VolumeName, Arc<Volume>) {
    let (name, volume) = story.draft.state().volumes.iter().next().expect("there is one");
    (name.clone(), Arc::clone(volume))
}
