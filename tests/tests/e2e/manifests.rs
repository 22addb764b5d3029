//! Manifests as people bring them: three work as in Kubernetes, the broken one is refused.

use crate::harness::{Cluster, Event, eventually, what_happened};
use crate::sets::brought;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

const SET: &str = "sample-statefulset";

fn pod(ordinal: u32) -> String {
    format!("{SET}-{ordinal}")
}

/// The first words of every line whose object has this prefix.
fn rows<'a>(listing: &'a str, prefix: &str) -> Vec<Vec<&'a str>> {
    let rows = listing.lines().filter(|line| line.starts_with(prefix));
    rows.map(|line| line.split_whitespace().collect()).collect()
}

/// Reads the event log as it grows, until a pod is available.
fn follow_until_available(cluster: &Cluster, pod: &str) -> std::thread::JoinHandle<Vec<Event>> {
    let mut child = cluster.command(&["events", "-w", "-o", "json"]).stdout(Stdio::piped()).spawn().expect("it starts");
    let lines = BufReader::new(child.stdout.take().expect("its output is piped")).lines();
    let pod = pod.to_owned();
    std::thread::spawn(move || {
        let mut seen = Vec::new();
        for line in lines {
            seen.push(Event::read(&line.expect("lines are text")));
            if seen.last().is_some_and(|event: &Event| event.what() == ("PodBecameAvailable", &pod)) {
                break;
            }
        }
        child.kill().expect("it can be ended");
        child.wait().expect("it ends");
        seen
    })
}

/// What the pod's web server answers.
fn fetch(address: &str) -> Option<String> {
    let connect = |port: u16| {
        let address = format!("{address}:{port}").parse().expect("a pod has an address");
        TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()
    };
    // Where ports below 1024 are not permitted, 80 becomes 8080.
    let mut stream = connect(80).or_else(|| connect(8080))?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

#[test]
fn the_first_manifest_gives_three_pods_claims_and_volumes_one_after_another() {
    let cluster = Cluster::up();
    let watched = follow_until_available(&cluster, &pod(2));
    let file = cluster.file("web.yaml", brought::WEB);
    assert_eq!(cluster.apply(&file).trim(), "statefulset.apps/sample-statefulset created");
    cluster.wait_ready(&[&pod(0), &pod(1), &pod(2)]);
    assert_eq!(cluster.apply(&file).trim(), "statefulset.apps/sample-statefulset unchanged");
    is_listed_as_in_the_source(&cluster);

    let events = cluster.events();
    let order: Vec<_> = what_happened(&events, &["PodCreated", "PodBecameAvailable"]);
    let names = [pod(0), pod(1), pod(2)];
    let expected: Vec<_> =
        names.iter().flat_map(|name| [("PodCreated", name.as_str()), ("PodBecameAvailable", name)]).collect();
    assert_eq!(order, expected, "each pod is made once the one before is available");
    let followed = watched.join().expect("the watch went well");
    let revisions = |events: &[Event]| events.iter().map(|event| event.revision).collect::<Vec<_>>();
    let upto = followed.len();
    assert_eq!(revisions(&followed), revisions(&events)[..upto], "a watcher sees every event once and in order");
    for kind in ["pods", "pvc", "pv"] {
        let mut objects = cluster.list(kind);
        objects.sort_by_key(|object| object["spec"]["claimRef"]["name"].as_str().map(str::to_owned));
        let made: Vec<_> = objects.iter().map(|object| object["metadata"]["creationTimestamp"].to_string()).collect();
        assert!(made.len() == 3 && made.is_sorted(), "{kind} were made in the order of the ordinals: {made:?}");
    }
    data_survives_the_deletion_of_a_pod(&cluster);
    scaling_adds_the_lowest_and_removes_the_highest(&cluster);
    claims_are_deleted_by_hand(&cluster);
}

fn is_listed_as_in_the_source(cluster: &Cluster) {
    let listing = cluster.ok(&["get", "all,pvc,pv"]);
    let headers: Vec<_> = rows(&listing, "NAME");
    assert_eq!(headers[0], ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]);
    assert_eq!(headers[1], ["NAME", "READY", "AGE"]);
    assert_eq!(headers[2].join(" "), "NAME STATUS VOLUME CAPACITY ACCESS MODES STORAGECLASS AGE");
    assert_eq!(headers[3].join(" "), "NAME CAPACITY ACCESS MODES RECLAIM POLICY STATUS CLAIM STORAGECLASS REASON AGE");
    let pods = rows(&listing, "pod/");
    let claims = rows(&listing, "persistentvolumeclaim/");
    let volumes = rows(&listing, "persistentvolume/");
    assert_eq!((pods.len(), claims.len(), volumes.len(), listing.lines().count()), (3, 3, 3, 17), "{listing}");
    assert_eq!(rows(&listing, "statefulset.apps/")[0][..2], ["statefulset.apps/sample-statefulset", "3/3"]);
    for (ordinal, (pod, claim)) in pods.iter().zip(&claims).enumerate() {
        assert_eq!(pod[..4], [&format!("pod/{SET}-{ordinal}"), "1/1", "Running", "0"]);
        let name = format!("persistentvolumeclaim/www-{SET}-{ordinal}");
        assert_eq!([claim[0], claim[1], claim[3], claim[4], claim[5]], [&name, "Bound", "1Gi", "RWOP", "csi-fs-sc"]);
        let volume = volumes.iter().find(|volume| volume[0].ends_with(&format!("/{}", claim[2])));
        let of_claim = format!("default/www-{SET}-{ordinal}");
        let shown = volume.map(|volume| &volume[1..7]).unwrap_or_default();
        assert_eq!(shown, ["1Gi", "RWOP", "Delete", "Bound", &of_claim, "csi-fs-sc"], "{listing}");
    }
}

fn data_survives_the_deletion_of_a_pod(cluster: &Cluster) {
    let name = pod(1);
    let claim = format!("www-{name}");
    let volume = cluster.field("pvc", &claim, "/spec/volumeName");
    let directory = cluster.volume_of(&claim).expect("the volume is a directory");
    std::fs::write(directory.join("index.html"), "kept through everything").expect("the volume can be written");
    let before = cluster.uid(&name);
    cluster.ok(&["delete", "pod", &name]);
    cluster.wait("the pod is made anew", || cluster.is_replaced(&name, &before));
    assert_eq!(cluster.field("pvc", &claim, "/spec/volumeName"), volume, "it has the same volume");
    let address = cluster.field("pod", &name, "/status/podIP").expect("a ready pod has an address");
    let address = address.as_str().expect("an address is text");
    let served = || fetch(address).is_some_and(|answer| answer.contains("kept through everything"));
    assert!(eventually(Duration::from_secs(20), served), "the web server serves the volume: {:?}", fetch(address));
}

fn scaling_adds_the_lowest_and_removes_the_highest(cluster: &Cluster) {
    let from = cluster.revision();
    let file = cluster.file("web.yaml", &brought::WEB.replace("replicas: 3", "replicas: 5"));
    assert_eq!(cluster.apply(&file).trim(), "statefulset.apps/sample-statefulset configured");
    cluster.wait_ready(&[&pod(3), &pod(4)]);
    cluster.ok(&["scale", "statefulset", SET, "--replicas=2"]);
    cluster.wait("two pods are left", || cluster.list("pods").len() == 2);
    let events = cluster.events_since(from);
    let names = [pod(3), pod(4), pod(4), pod(3), pod(2)];
    let sorts = ["PodCreated", "PodCreated", "PodRemoved", "PodRemoved", "PodRemoved"];
    let expected: Vec<_> = sorts.into_iter().zip(names.iter().map(String::as_str)).collect();
    assert_eq!(what_happened(&events, &["PodCreated", "PodRemoved"]), expected);
    // One at a time: the next is told to stop when the one before is gone.
    let stops = what_happened(&events, &["PodDeletionRequested", "PodRemoved"]);
    assert!(stops.chunks(2).all(|pair| pair[0].1 == pair[1].1), "{stops:?}");
}

fn claims_are_deleted_by_hand(cluster: &Cluster) {
    cluster.ok(&["delete", "statefulset", SET]);
    cluster.wait("the pods are gone", || cluster.list("pods").is_empty());
    let names: Vec<_> = (0..5).map(|ordinal| format!("www-{SET}-{ordinal}")).collect();
    assert_eq!((cluster.list("pvc").len(), cluster.list("pv").len()), (5, 5), "deleting a set deletes no data");
    let directory = cluster.volume_of(&names[1]).expect("the volume is a directory");
    let delete: Vec<&str> = ["delete", "pvc"].into_iter().chain(names.iter().map(String::as_str)).collect();
    cluster.ok(&delete);
    cluster.wait("the volumes follow their claims", || cluster.list("pvc").is_empty() && cluster.list("pv").is_empty());
    assert!(!directory.join("index.html").exists(), "the policy is Delete, so the data is gone");
}

/// The revision that a pod was made from.
fn revision_of(cluster: &Cluster, pod: &str) -> Option<String> {
    let label = cluster.field("pod", pod, "/metadata/labels/controller-revision-hash")?;
    label.as_str().map(str::to_owned)
}

fn target_of(cluster: &Cluster, set: &str) -> String {
    let revision = cluster.field("statefulset", set, "/status/updateRevision").expect("a set has an update revision");
    revision.as_str().expect("a revision is text").to_owned()
}

/// The ordinals whose pods have the set's newest template.
fn updated(cluster: &Cluster, set: &str, replicas: u32) -> Vec<u32> {
    let target = Some(target_of(cluster, set));
    (0..replicas).filter(|ordinal| revision_of(cluster, &format!("{set}-{ordinal}")) == target).collect()
}

#[test]
fn the_update_strategies_behave_as_in_kubernetes() {
    let cluster = Cluster::up();
    on_delete_leaves_pods_until_they_are_made_anew(&cluster);
    a_partition_updates_from_the_highest_down_to_itself(&cluster);
    corrected_the_third_manifest_starts_its_pods_at_the_same_time(&cluster);
}

fn on_delete_leaves_pods_until_they_are_made_anew(cluster: &Cluster) {
    let set = "sample-statefulset-ondelete";
    let names: Vec<_> = (0..3).map(|ordinal| format!("{set}-{ordinal}")).collect();
    cluster.apply(&cluster.file("ondelete.yaml", brought::ONDELETE));
    names.iter().for_each(|name| cluster.wait_ready(&[name]));
    let from = cluster.revision();
    cluster.ok(&["set", "image", &format!("sts/{set}"), "nginx-container=nginx:1.17"]);
    assert_eq!(updated(cluster, set, 3), [] as [u32; 0]);
    let before = cluster.uid(&names[1]);
    cluster.ok(&["delete", "pod", &names[1]]);
    cluster.wait("the deleted pod is back", || cluster.is_replaced(&names[1], &before));
    assert_eq!(updated(cluster, set, 3), [1], "only the pod that was made anew has the new template");
    let image = cluster.field("pod", &names[1], "/spec/containers/0/image");
    assert_eq!(image.as_ref().and_then(|image| image.as_str()), Some("nginx:1.17"));
    let events = cluster.events_since(from);
    assert_eq!(what_happened(&events, &["PodRemoved"]), [("PodRemoved", names[1].as_str())]);
    cluster.ok(&["delete", "statefulset", set]);
}

fn a_partition_updates_from_the_highest_down_to_itself(cluster: &Cluster) {
    let set = "sample-statefulset-rollingupdate";
    let name = |ordinal: u32| format!("{set}-{ordinal}");
    let manifest = brought::ROLLINGUPDATE.replace("nginx:1.16", "nginx:1.17");
    cluster.apply(&cluster.file("rollingupdate.yaml", brought::ROLLINGUPDATE));
    cluster.wait_ready(&[&name(4)]);
    let from = cluster.revision();
    cluster.apply(&cluster.file("rollingupdate.yaml", &manifest));
    cluster.wait("the pods from the partition up are updated", || {
        updated(cluster, set, 5) == [3, 4] && cluster.is_ready(&name(3)) && cluster.is_ready(&name(4))
    });
    is_updated_one_at_a_time(&cluster.events_since(from), &[name(4), name(3)]);
    let from = cluster.revision();
    cluster.apply(&cluster.file("rollingupdate.yaml", &manifest.replace("partition: 3", "partition: 1")));
    cluster.wait("two more are updated", || {
        updated(cluster, set, 5) == [1, 2, 3, 4] && cluster.is_ready(&name(1)) && cluster.is_ready(&name(2))
    });
    is_updated_one_at_a_time(&cluster.events_since(from), &[name(2), name(1)]);
    cluster.ok(&["delete", "statefulset", set]);
}

/// Each pod is stopped, made anew and available before the next is touched, and no other is.
#[track_caller]
fn is_updated_one_at_a_time(events: &[Event], names: &[String]) {
    let steps = ["PodDeletionRequested", "PodRemoved", "PodCreated", "PodBecameAvailable"];
    let expected: Vec<_> = names.iter().flat_map(|name| steps.map(|step| (step, name.as_str()))).collect();
    assert_eq!(what_happened(events, &steps), expected);
}

fn corrected_the_third_manifest_starts_its_pods_at_the_same_time(cluster: &Cluster) {
    let corrected = brought::PARALLEL.replace("spec\n", "spec:\n").replace("naem", "name");
    let corrected = corrected.replace("kind: statefulset", "kind: StatefulSet");
    let from = cluster.revision();
    cluster.apply(&cluster.file("parallel.yaml", &corrected));
    let names: Vec<_> = (0..3).map(|ordinal| format!("sample-statefulset-parallel-{ordinal}")).collect();
    names.iter().for_each(|name| cluster.wait_ready(&[name]));
    let events = cluster.events_since(from);
    let mine: Vec<_> = events.into_iter().filter(|event| names.contains(&event.name)).collect();
    let order = what_happened(&mine, &["PodCreated", "PodReported"]);
    let expected: Vec<_> = names.iter().map(|name| ("PodCreated", name.as_str())).collect();
    assert_eq!(order[..3], expected, "all are made before the first is heard of");
}
