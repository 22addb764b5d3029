//! Volume drivers through the order of a node's calls: stopped between any two steps, overtaken by another node, filled.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up should say so and stop")]
#![allow(clippy::print_stdout, reason = "a test that leaves something out says so")]

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use agent::volume::{DirDriver, LoopDriver, NodeVolumes, Use, VolumeDriver, VolumeError, VolumeStats, release_below};
use domain::id::Uid;

const MIB: u64 = 1 << 20;

/// A driver that does only so many steps; the agent is as good as dead then.
#[derive(Debug)]
struct Dying {
    inner: Arc<dyn VolumeDriver>,
    steps_left: AtomicUsize,
    /// Whether the step at which it dies is still done.
    does_last_step: bool,
}

impl Dying {
    fn step<T>(
        &self,
        handle: &str,
        deed: impl FnOnce(&dyn VolumeDriver) -> Result<T, VolumeError>,
    ) -> Result<T, VolumeError> {
        let dead = || VolumeError::NotAttached { handle: handle.to_owned() };
        match self.steps_left.load(Ordering::Relaxed) {
            0 if self.does_last_step => deed(&*self.inner).and_then(|_| Err(dead())),
            0 => Err(dead()),
            left => {
                self.steps_left.store(left - 1, Ordering::Relaxed);
                deed(&*self.inner)
            }
        }
    }
}

impl VolumeDriver for Dying {
    fn name(&self) -> &'static str {
        self.inner.name()
    }
    fn create(&self, handle: &str, capacity_bytes: u64) -> Result<(), VolumeError> {
        self.step(handle, |inner| inner.create(handle, capacity_bytes))
    }
    fn delete(&self, handle: &str) -> Result<(), VolumeError> {
        self.step(handle, |inner| inner.delete(handle))
    }
    fn controller_publish(&self, handle: &str, fence: u64) -> Result<(), VolumeError> {
        self.step(handle, |inner| inner.controller_publish(handle, fence))
    }
    fn controller_unpublish(&self, handle: &str, fence: u64) -> Result<(), VolumeError> {
        self.step(handle, |inner| inner.controller_unpublish(handle, fence))
    }
    fn controller_expand(&self, handle: &str, capacity_bytes: u64) -> Result<(), VolumeError> {
        self.step(handle, |inner| inner.controller_expand(handle, capacity_bytes))
    }
    fn node_stage(&self, handle: &str, fence: u64, staging: &Path) -> Result<(), VolumeError> {
        self.step(handle, |inner| inner.node_stage(handle, fence, staging))
    }
    fn node_unstage(&self, handle: &str, staging: &Path) -> Result<(), VolumeError> {
        self.step(handle, |inner| inner.node_unstage(handle, staging))
    }
    fn node_publish(&self, handle: &str, staging: &Path, target: &Path) -> Result<(), VolumeError> {
        self.step(handle, |inner| inner.node_publish(handle, staging, target))
    }
    fn node_unpublish(&self, handle: &str, target: &Path) -> Result<(), VolumeError> {
        self.step(handle, |inner| inner.node_unpublish(handle, target))
    }
    fn node_expand(&self, handle: &str, staging: &Path) -> Result<(), VolumeError> {
        self.step(handle, |inner| inner.node_expand(handle, staging))
    }
    fn node_stats(&self, handle: &str, staging: &Path, capacity_bytes: u64) -> Result<VolumeStats, VolumeError> {
        self.inner.node_stats(handle, staging, capacity_bytes)
    }
}

/// A storage root, and nodes that share it.
struct Place {
    dir: tempfile::TempDir,
    driver: Arc<dyn VolumeDriver>,
}

impl Place {
    fn with_dir() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let driver = Arc::new(DirDriver::new(dir.path().join("storage")));
        Self { dir, driver }
    }

    /// `None`, with the reason printed, where the machine has no loop devices for us.
    fn with_images() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        if let Err(refusal) = LoopDriver::probe(&dir.path().join("probe")) {
            println!("left out: {refusal}");
            return None;
        }
        let driver = Arc::new(LoopDriver::new(dir.path().join("storage")));
        Some(Self { dir, driver })
    }

    fn all() -> Vec<Self> {
        [Some(Self::with_dir()), Self::with_images()].into_iter().flatten().collect()
    }

    fn node(&self, name: &str) -> NodeVolumes {
        self.node_with(name, Arc::clone(&self.driver))
    }

    /// An agent that dies at a step.
    fn dying(&self, name: &str, steps: usize, does_last_step: bool) -> NodeVolumes {
        let (inner, steps_left) = (Arc::clone(&self.driver), AtomicUsize::new(steps));
        self.node_with(name, Arc::new(Dying { inner, steps_left, does_last_step }))
    }

    fn node_with(&self, name: &str, driver: Arc<dyn VolumeDriver>) -> NodeVolumes {
        NodeVolumes::new(self.dir.path().join(name), self.dir.path().join("storage"), vec![driver])
    }

    fn wanted(&self, pod: u64, fence: u64) -> Use {
        let driver = self.driver.name().to_owned();
        Use {
            pod: Uid(pod),
            name: "www".to_owned(),
            driver,
            handle: "pv-1".to_owned(),
            fence,
            capacity_bytes: 16 * MIB,
        }
    }

    /// As an agent does when nothing of a pod is left.
    fn clean(&self, name: &str, pod: u64) {
        self.node(name).detach_all(Uid(pod)).unwrap();
        let dir = agent::layout::pod_dir(&self.dir.path().join(name), Uid(pod));
        agent::files::remove_tree(&dir).unwrap();
    }

    /// Nothing of the volume is on the node, and nothing is mounted anywhere.
    #[track_caller]
    fn assert_detached(&self, name: &str) {
        let here = self.dir.path().to_str().unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(here), "a mount is left: {mounts}");
        // Whoever looks at a device at this very moment, as other tests do, keeps it until he has looked.
        let deadline = Instant::now() + Duration::from_secs(10);
        while !images_below(here).is_empty() && Instant::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(10));
        }
        assert_eq!(images_below(here), [""; 0], "a loop device is left");
        let uses = agent::layout::volume_uses_dir(&self.dir.path().join(name));
        let noted: Vec<PathBuf> =
            fs::read_dir(uses.join(self.driver.name())).into_iter().flatten().flatten().map(|e| e.path()).collect();
        assert_eq!(noted, [""; 0].map(PathBuf::from), "a use is still written down");
        let staged = Path::new("/run/holdfast/volumes").join(here.trim_start_matches('/')).join(name);
        assert!(!staged.exists(), "{} is left", staged.display());
    }
}

/// The files below a directory that are behind loop devices.
fn images_below(here: &str) -> Vec<String> {
    let images = fs::read_dir("/sys/block").unwrap().flatten();
    let files = images.filter_map(|block| fs::read_to_string(block.path().join("loop/backing_file")).ok());
    files.filter(|file| file.contains(here)).collect()
}

impl Drop for Place {
    fn drop(&mut self) {
        // For tests that failed half way.
        let _ = release_below(self.dir.path());
    }
}

#[test]
fn an_agent_that_dies_between_any_two_steps_of_attaching_leaves_nothing_that_the_next_one_cannot_end_or_finish() {
    for place in Place::all() {
        for step in (0..6).flat_map(|step| [(step, false), (step, true)]) {
            let dying = place.dying("n1", step.0, step.1);
            dying.attach(&place.wanted(1, 5)).unwrap_err();
            if step.0 % 2 == 0 {
                // Meanwhile the pod was deleted.
                place.clean("n1", 1);
                place.assert_detached("n1");
            }
            let content = place.node("n1").attach(&place.wanted(1, 5)).unwrap().content;
            fs::write(content.join("file"), "kept").unwrap();
            place.clean("n1", 1);
            place.assert_detached("n1");
            let content = place.node("n1").attach(&place.wanted(2, 5)).unwrap().content;
            assert_eq!(fs::read_to_string(content.join("file")).unwrap(), "kept");
            place.clean("n1", 2);
        }
    }
}

#[test]
fn an_agent_that_dies_between_any_two_steps_of_detaching_leaves_the_rest_to_the_next_one() {
    for place in Place::all() {
        for step in (0..3).flat_map(|step| [(step, false), (step, true)]) {
            place.node("n1").attach(&place.wanted(1, 5)).unwrap();
            place.dying("n1", step.0, step.1).detach_all(Uid(1)).unwrap_err();
            place.clean("n1", 1);
            place.assert_detached("n1");
        }
        // Even the pod's directory may be gone: what is written down still says what to do.
        place.node("n1").attach(&place.wanted(1, 5)).unwrap();
        agent::files::remove_tree(&agent::layout::pod_dir(&place.dir.path().join("n1"), Uid(1))).unwrap();
        place.node("n1").detach_forgotten().unwrap();
        place.assert_detached("n1");
    }
}

#[test]
fn an_agent_that_dies_between_any_two_steps_of_growing_leaves_a_volume_that_the_next_one_lets_grow() {
    for place in Place::all() {
        let driver = place.driver.name();
        let larger = |pod| Use { capacity_bytes: 32 * MIB, ..place.wanted(pod, 5) };
        for (count, step) in (0..2).flat_map(|step| [(step, false), (step, true)]).enumerate() {
            let content = place.node("n1").attach(&place.wanted(1, 5)).unwrap().content;
            fs::write(content.join("file"), "kept").unwrap();
            // No error where the kernel puts off what the last step was to do.
            let _ = place.dying("n1", step.0, step.1).expand(driver, "pv-1", 32 * MIB);
            if count % 2 == 0 {
                // Meanwhile the pod was deleted.
                place.clean("n1", 1);
                place.assert_detached("n1");
            }
            // The next agent does what was assigned, and where the kernel lets no mounted file system grow, it grows when
            // it is mounted again.
            place.node("n1").expand(driver, "pv-1", 32 * MIB).unwrap();
            place.clean("n1", 1);
            let node = place.node("n1");
            let content = node.attach(&larger(2)).unwrap().content;
            let capacity_bytes = node.stats(driver, "pv-1", 32 * MIB).unwrap().capacity_bytes;
            assert!(28 * MIB < capacity_bytes, "{capacity_bytes} bytes after {step:?}");
            assert_eq!(fs::read_to_string(content.join("file")).unwrap(), "kept");
            place.clean("n1", 2);
            place.assert_detached("n1");
            node.delete(driver, "pv-1").unwrap();
        }
    }
}

#[test]
fn an_agent_that_dies_while_it_deletes_a_volume_leaves_the_rest_to_the_next_one() {
    for place in Place::all() {
        for does_last_step in [false, true] {
            place.node("n1").attach(&place.wanted(1, 5)).unwrap();
            place.clean("n1", 1);
            let driver = place.driver.name();
            place.dying("n1", 0, does_last_step).delete(driver, "pv-1").unwrap_err();
            place.node("n1").delete(driver, "pv-1").unwrap();
            let left = fs::read_dir(place.dir.path().join("storage")).unwrap().count();
            assert_eq!(left, 0, "nothing is left of the storage");
            place.assert_detached("n1");
        }
    }
}

#[test]
fn pods_of_one_node_share_a_volume_and_the_last_one_takes_it_off() {
    for place in Place::all() {
        let node = place.node("n1");
        let [first, second] = [1, 2].map(|pod| node.attach(&place.wanted(pod, 5)).unwrap().content);
        fs::write(first.join("file"), "shared").unwrap();
        place.clean("n1", 1);
        assert_eq!(fs::read_to_string(second.join("file")).unwrap(), "shared");
        place.clean("n1", 2);
        place.assert_detached("n1");
        node.delete(place.driver.name(), "pv-1").unwrap();
        node.delete(place.driver.name(), "pv-1").unwrap();
        assert!(!place.dir.path().join("storage/pv-1").exists());
    }
}

#[test]
fn a_full_image_is_full_for_its_own_pods_only_and_can_grow() {
    let Some(place) = Place::with_images() else { return };
    let node = place.node("n1");
    let content = node.attach(&place.wanted(1, 5)).unwrap().content;
    let stats = || node.stats(place.driver.name(), "pv-1", 0).unwrap();
    let before = stats();
    assert!((12 * MIB..=16 * MIB).contains(&before.capacity_bytes), "{before:?}");
    let mut file = File::create(content.join("big")).unwrap();
    let fill = |file: &mut File| loop {
        if let Err(error) = file.write_all(&[7; 1 << 16]) {
            return error;
        }
    };
    assert_eq!(fill(&mut file).kind(), io::ErrorKind::StorageFull);
    assert!(stats().available_bytes < 1 << 16, "{:?}", stats());
    fs::write(place.dir.path().join("elsewhere"), [7; 1 << 16]).unwrap();
    // The kernel lets it grow while it is mounted, or refuses even root; then it grows when it is mounted again.
    node.expand(place.driver.name(), "pv-1", 32 * MIB).unwrap();
    node.expand(place.driver.name(), "pv-1", 32 * MIB).unwrap();
    if stats().capacity_bytes == before.capacity_bytes {
        println!("left out: growing while it is mounted, which this machine's kernel refuses");
        drop(file);
        place.clean("n1", 1);
        node.attach(&Use { capacity_bytes: 32 * MIB, ..place.wanted(2, 5) }).unwrap();
        file = File::options().append(true).open(content.join("big")).unwrap();
    }
    assert!(28 * MIB < stats().capacity_bytes, "{:?}", stats());
    file.write_all(&[7; 1 << 20]).unwrap();
    drop(file);
    place.clean("n1", 1);
    place.clean("n1", 2);
    place.assert_detached("n1");
}

#[test]
fn a_writer_that_was_left_behind_is_cut_off_before_another_node_has_the_image() {
    let Some(place) = Place::with_images() else { return };
    let (old, new) = (place.node("n1"), place.node("n2"));
    let left_behind = old.attach(&place.wanted(1, 5)).unwrap().content;
    let mut file = File::create(left_behind.join("log")).unwrap();
    file.write_all(b"acknowledged\n").unwrap();
    file.sync_all().unwrap();

    let content = new.attach(&place.wanted(2, 6)).unwrap().content;
    assert_eq!(fs::read_to_string(content.join("log")).unwrap(), "acknowledged\n");
    let late = file.write_all(b"late\n").and_then(|()| file.sync_all()).unwrap_err();
    assert!(matches!(late.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::Other), "{late:?}");
    assert!(fs::write(left_behind.join("more"), "late").is_err());
    let stale = old.attach(&place.wanted(1, 5)).unwrap_err();
    assert!(matches!(stale, VolumeError::StaleFence { offered: 5, highest_seen: 6, .. }), "{stale}");
    fs::write(content.join("log"), "the new one's\n").unwrap();

    // The old node comes back and ends what it has; the new one goes on.
    drop(file);
    place.clean("n1", 1);
    assert_eq!(fs::read_to_string(content.join("log")).unwrap(), "the new one's\n");
    fs::write(content.join("more"), "still writable").unwrap();
    place.clean("n2", 2);
    place.assert_detached("n1");
    place.assert_detached("n2");
}

#[test]
fn a_node_that_was_relieved_of_a_volume_can_have_it_again() {
    let Some(place) = Place::with_images() else { return };
    place.node("n1").attach(&place.wanted(1, 5)).unwrap();
    place.node("n2").attach(&place.wanted(2, 6)).unwrap();
    place.clean("n2", 2);
    let content = place.node("n1").attach(&place.wanted(3, 7)).unwrap().content;
    fs::write(content.join("file"), "writable").unwrap();
    place.clean("n1", 1);
    assert_eq!(fs::read_to_string(content.join("file")).unwrap(), "writable");
    place.clean("n1", 3);
    place.assert_detached("n1");
}
