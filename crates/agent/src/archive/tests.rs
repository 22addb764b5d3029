use super::*;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use tar::{Builder, EntryType, Header};

fn copy(source: &Path, target: &Path, onto: Onto) -> Vec<String> {
    let (mut stream, mut notes) = (Vec::new(), Vec::new());
    pack(source, &mut stream, &mut |text| notes.push(text.to_owned())).unwrap();
    unpack(stream.as_slice(), target, onto, &mut |text| notes.push(text.to_owned())).unwrap();
    notes
}

#[test]
fn a_tree_comes_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    fs::create_dir_all(source.join("deep/er")).unwrap();
    let long = format!("deep/er/{}", "long ".repeat(45));
    fs::write(source.join(&long), "x".repeat(100_000)).unwrap();
    fs::write(source.join("run"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(source.join("run"), fs::Permissions::from_mode(0o4751)).unwrap();
    symlink("../../run", source.join("deep/er/link")).unwrap();
    fs::set_permissions(source.join("deep"), fs::Permissions::from_mode(0o555)).unwrap();
    fs::File::open(source.join("run")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    symlink("../../outside", source.join("out")).unwrap();
    symlink("/etc/passwd", source.join("absolute")).unwrap();
    let target = dir.path().join("new/target");
    let notes = copy(&source, &target, Onto::Inside);
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(notes.iter().all(|note| note.contains("leads out of what is copied")), "{notes:?}");
    assert_eq!(fs::read_link(target.join("deep/er/link")).unwrap(), Path::new("../../run"));
    assert_eq!(fs::read(target.join(&long)).unwrap().len(), 100_000);
    let metadata = fs::metadata(target.join("run")).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.mtime()), (0o751, 0));
    assert_eq!(fs::metadata(target.join("deep")).unwrap().mode() & 0o777, 0o555);
    assert!(target.join("out").symlink_metadata().is_err() && target.join("absolute").symlink_metadata().is_err());
}

#[test]
fn where_a_copy_goes_depends_on_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir_all(path("tree")).unwrap();
    fs::write(path("tree/leaf"), "leaf").unwrap();
    fs::create_dir_all(path("there")).unwrap();
    copy(&path("tree"), &path("there"), Onto::Inside);
    assert!(path("there/tree/leaf").exists());
    copy(&path("tree"), &path("there"), Onto::Merged);
    assert!(path("there/leaf").exists());
    copy(&path("tree/leaf"), &path("there/tree"), Onto::Merged);
    copy(&path("tree/leaf"), &path("other"), Onto::Merged);
    assert_eq!(fs::read_to_string(path("other")).unwrap(), "leaf");
    // Not through the link that is there, but in its place.
    symlink(path("tree/leaf"), path("link")).unwrap();
    fs::write(path("newer"), "newer").unwrap();
    copy(&path("newer"), &path("link"), Onto::Inside);
    assert_eq!(fs::read_to_string(path("link")).unwrap(), "newer");
    assert_eq!(fs::read_to_string(path("tree/leaf")).unwrap(), "leaf");
}

/// A stream that `pack` would not make.
fn forged(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
    let mut stream = Builder::new(Vec::new());
    for (path, kind, content) in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o777);
        let name = &mut header.as_old_mut().name;
        name[..path.len()].copy_from_slice(path.as_bytes());
        let is_link = matches!(kind, EntryType::Symlink | EntryType::Link);
        if is_link {
            header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
        }
        let content = if is_link { "" } else { content };
        header.set_size(content.len() as u64);
        header.set_cksum();
        stream.append(&header, content.as_bytes()).unwrap();
    }
    stream.into_inner().unwrap()
}

#[test]
fn no_stream_leads_out_of_the_target() {
    let (dir, file, link) = (EntryType::Directory, EntryType::Regular, EntryType::Symlink);
    let streams: [&[(&str, EntryType, &str)]; 6] = [
        &[("a", dir, ""), ("a/../../evil", file, "x")],
        &[("/evil", file, "x"), ("../evil", file, "x")],
        &[("a", dir, ""), ("a/out", link, "../../.."), ("a/out/evil", file, "x")],
        &[("a", dir, ""), ("a/b", link, "."), ("a/b/evil", file, "x")],
        &[("a", dir, ""), ("a/b", EntryType::Link, "/etc/passwd"), ("a/pipe", EntryType::Fifo, "")],
        &[("a", link, "/tmp"), ("a/evil", file, "x")],
    ];
    for entries in streams {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let mut notes = Vec::new();
        let done = unpack(forged(entries).as_slice(), &inner.join("a"), Onto::Inside, &mut |text| {
            notes.push(text.to_owned());
        });
        assert!(done.is_err() || !notes.is_empty(), "{entries:?} is believed");
        let outside: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(outside, ["inner"], "{entries:?}");
        for evil in [inner.join("evil"), inner.join("a/evil"), "/evil".into(), "/tmp/evil".into()] {
            let is_harmless = evil.starts_with(inner.join("a")) && !inner.join("a").is_symlink();
            assert!(!evil.exists() || is_harmless, "{entries:?} made {}", evil.display());
        }
    }
}

#[test]
fn a_stream_that_breaks_off_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "x".repeat(10_000)).unwrap();
    let mut stream = Vec::new();
    pack(&dir.path().join("file"), &mut stream, &mut |_| {}).unwrap();
    for length in [0, 512, 5_000] {
        let done = unpack(&stream[..length], &dir.path().join("copy"), Onto::Inside, &mut |_| {});
        assert!(done.is_err(), "{length}");
    }
}
