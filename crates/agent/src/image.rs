//! The image catalogue: which command of this host takes the place of an image.
//! Never pulls anything, and never starts anything; it only says what to start.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

use crate::ports;

/// The catalogue that is used when the node has none of its own.
const DEFAULT_CATALOGUE: &str = include_str!("../../../cluster-config/images.yaml");

/// Which command runs for which image.
#[derive(Clone, Debug)]
pub struct Catalogue {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    patterns: Vec<String>,
    entrypoints: Vec<String>,
    candidates: Vec<Candidate>,
}

#[derive(Clone, Debug)]
struct Candidate {
    kind: Kind,
    args: Vec<String>,
    appends_args: bool,
    files: BTreeMap<String, String>,
}

#[derive(Clone, Debug)]
enum Kind {
    Host(String),
    Builtin(String),
    HostCommand,
}

/// Why a catalogue cannot be used.
#[derive(Debug, Error)]
pub enum CatalogueError {
    #[error("reading the image catalogue {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("parsing the image catalogue")]
    Parse { source: Box<serde_saphyr::Error> },
    #[error("image catalogue: an entry for {pattern:?} needs exactly one of host, builtin, hostCommand per candidate")]
    Candidate { pattern: String },
    #[error("image catalogue: a file name of {pattern:?} is not a plain name: {name:?}")]
    FileName { pattern: String, name: String },
}

/// No command of this host takes the place of the image.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ImageNotFound {
    #[error(
        "image {image} is not in this node's image catalogue; give the container a command, which then runs on the host"
    )]
    Unknown { image: String },
    #[error("image {image} needs {} on this node", needs.join(" or "))]
    ProgramMissing { image: String, needs: Vec<String> },
}

/// What resolving depends on besides the image.
#[derive(Clone, Debug)]
pub struct Site {
    /// The holdfast binary, for its own workloads.
    pub exe: PathBuf,
    /// A directory of this container, for generated files.
    pub run_dir: PathBuf,
    /// The pod's root: mount paths are mirrored below it.
    pub root: PathBuf,
    pub pod_ip: IpAddr,
    /// Where programs of the host are looked up, as in PATH.
    pub path: String,
}

/// What runs for an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    pub argv: Vec<String>,
    /// For people: what runs in the image's place, so that it can follow "runs".
    pub description: String,
    /// Path and content; to be written before the start.
    pub files: Vec<(PathBuf, String)>,
}

impl Resolved {
    /// Writes the files that the command needs.
    pub fn write_files(&self) -> io::Result<()> {
        for (path, content) in &self.files {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(path, content)?;
        }
        Ok(())
    }
}

impl Catalogue {
    /// The catalogue that comes with the program.
    pub fn builtin() -> Self {
        Self::parse(DEFAULT_CATALOGUE).expect("invariant: the catalogue in the program is valid (tested)")
    }

    /// The catalogue in a file.
    pub fn load(path: &Path) -> Result<Self, CatalogueError> {
        let text = fs::read_to_string(path).map_err(|source| CatalogueError::Read { path: path.to_owned(), source })?;
        Self::parse(&text)
    }

    /// The catalogue in a text.
    pub fn parse(text: &str) -> Result<Self, CatalogueError> {
        let file: CatalogueFile =
            serde_saphyr::from_str(text).map_err(|source| CatalogueError::Parse { source: Box::new(source) })?;
        let entries = file.images.into_iter().map(Entry::try_from).collect::<Result<_, _>>()?;
        Ok(Self { entries })
    }

    /// What runs for `image` with the container's `command` and `args`, both empty when not set.
    pub fn resolve(
        &self,
        image: &str,
        command: &[String],
        args: &[String],
        site: &Site,
    ) -> Result<Resolved, ImageNotFound> {
        let entry = self.entries.iter().find(|entry| entry.matches(image));
        let own: Vec<String> = command.iter().chain(args).cloned().collect();
        let Some(entry) = entry else {
            if command.is_empty() {
                return Err(ImageNotFound::Unknown { image: image.to_owned() });
            }
            return Ok(on_host(own));
        };
        // An entrypoint names the image's own program, and what follows are arguments for that program as it is in the image:
        // only an entry that takes the container's args as they are takes these.
        let calls_entrypoint = own.first().is_some_and(|program| entry.entrypoints.contains(program));
        if !command.is_empty() && !calls_entrypoint {
            return Ok(on_host(own));
        }
        let usable = entry.candidates.iter().find_map(|candidate| {
            let args = match calls_entrypoint {
                true if candidate.appends_args => &own[1..],
                true => &[],
                false => args,
            };
            candidate.resolve(args, site)
        });
        usable.ok_or_else(|| ImageNotFound::ProgramMissing {
            image: image.to_owned(),
            needs: entry.candidates.iter().filter_map(Candidate::needs).collect(),
        })
    }
}

impl Entry {
    fn matches(&self, image: &str) -> bool {
        let short = repository(image);
        self.patterns.iter().any(|pattern| glob(pattern, image) || glob(pattern, short))
    }
}

impl Candidate {
    fn needs(&self) -> Option<String> {
        match &self.kind {
            Kind::Host(program) => Some(program.clone()),
            Kind::Builtin(_) | Kind::HostCommand => None,
        }
    }

    fn resolve(&self, args: &[String], site: &Site) -> Option<Resolved> {
        let (program, what) = match &self.kind {
            Kind::Host(program) => {
                let path = find_program(program, &site.path)?;
                let what = format!("{} of this host", path.display());
                (vec![path.display().to_string()], what)
            }
            Kind::Builtin(name) => {
                let program = [site.exe.display().to_string(), "workload".to_owned(), name.clone()];
                (program.to_vec(), builtin_name(name))
            }
            Kind::HostCommand if args.is_empty() => {
                let argv: Vec<String> = self.args.clone();
                return (!argv.is_empty()).then(|| on_host(argv));
            }
            Kind::HostCommand => return Some(on_host(args.to_vec())),
        };
        let own = if self.appends_args { args } else { &[] };
        let unused = if own.len() < args.len() { "; the container's args are not used" } else { "" };
        let fixed = self.args.iter().map(|arg| fill(arg, site));
        let argv = program.into_iter().chain(fixed).chain(own.iter().cloned()).collect();
        let files = self.files.iter();
        Some(Resolved {
            argv,
            description: format!("{what}{unused}"),
            files: files.map(|(name, text)| (site.run_dir.join(name), fill(text, site))).collect(),
        })
    }
}

fn on_host(argv: Vec<String>) -> Resolved {
    Resolved { argv, description: "its command on this host".to_owned(), files: Vec::new() }
}

fn builtin_name(name: &str) -> String {
    match name {
        "httpd" => "the built-in file server".to_owned(),
        other => format!("the built-in {other}"),
    }
}

/// The reference without tag, digest and the registry that everybody leaves out.
fn repository(image: &str) -> &str {
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    // A colon before the last slash belongs to the registry's port.
    let name = match name.rsplit_once(':') {
        Some((before, tag)) if !tag.contains('/') => before,
        Some(_) | None => name,
    };
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    name.strip_prefix("library/").unwrap_or(name)
}

/// `*` stands for any number of any characters.
fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text
            .strip_prefix(before)
            .is_some_and(|rest| rest.char_indices().any(|(at, _)| glob(after, &rest[at..])) || glob(after, "")),
    }
}

fn fill(text: &str, site: &Site) -> String {
    let mut filled = text
        .replace("${RUN_DIR}", &site.run_dir.display().to_string())
        // In a sandbox it is `/`; paths are written behind it.
        .replace("${ROOT}", site.root.display().to_string().trim_end_matches('/'))
        .replace("${POD_IP}", &address_text(site.pod_ip));
    const PORT: &str = "${PORT_";
    while let Some(start) = filled.find(PORT) {
        let rest = &filled[start + PORT.len()..];
        let Some((number, _)) = rest.split_once('}') else {
            break;
        };
        let Ok(port) = number.parse() else {
            break;
        };
        let end = start + PORT.len() + number.len() + 1;
        filled.replace_range(start..end, &ports::effective(port).to_string());
    }
    filled
}

/// As programs want it before a colon and a port.
fn address_text(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

fn find_program(program: &str, path: &str) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok();
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(is_program);
    }
    // Servers are often kept where a user's PATH does not lead.
    let dirs = path.split(':').filter(|dir| !dir.is_empty()).chain(["/usr/sbin", "/usr/local/sbin", "/sbin"]);
    dirs.map(|dir| Path::new(dir).join(program)).find(is_program)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CatalogueFile {
    images: Vec<EntryFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryFile {
    #[serde(rename = "match")]
    patterns: Vec<String>,
    #[serde(default)]
    entrypoints: Vec<String>,
    run: Vec<CandidateFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct CandidateFile {
    host: Option<String>,
    builtin: Option<String>,
    #[serde(default)]
    host_command: bool,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    append_args: bool,
    #[serde(default)]
    files: BTreeMap<String, String>,
}

impl TryFrom<EntryFile> for Entry {
    type Error = CatalogueError;

    fn try_from(file: EntryFile) -> Result<Self, CatalogueError> {
        let pattern = || file.patterns.join(", ");
        let mut candidates = Vec::new();
        for run in file.run {
            let kind = match (run.host, run.builtin, run.host_command) {
                (Some(program), None, false) => Kind::Host(program),
                (None, Some(name), false) => Kind::Builtin(name),
                (None, None, true) => Kind::HostCommand,
                _ => return Err(CatalogueError::Candidate { pattern: pattern() }),
            };
            if let Some(name) = run.files.keys().find(|name| name.contains('/') || name.starts_with('.')) {
                return Err(CatalogueError::FileName { pattern: pattern(), name: name.clone() });
            }
            let (args, appends_args, files) = (run.args, run.append_args, run.files);
            candidates.push(Candidate { kind, args, appends_args, files });
        }
        Ok(Self { patterns: file.patterns, entrypoints: file.entrypoints, candidates })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn site(dir: &Path) -> Site {
        Site {
            exe: "/opt/holdfast".into(),
            run_dir: dir.join("run"),
            root: dir.join("root"),
            pod_ip: "127.64.0.3".parse().unwrap(),
            path: dir.display().to_string(),
        }
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn references_lose_what_everybody_leaves_out() {
        assert_eq!(repository("docker.io/library/nginx:1.27@sha256:0a"), "nginx");
        assert_eq!(repository("localhost:5000/nginx"), "localhost:5000/nginx");
        assert!(glob("*/nginx-slim*", "registry.k8s.io/nginx-slim:0.24"));
        assert!(glob("ng*", "ng") && !glob("nginx", "nginx-ingress"));
    }

    #[test]
    fn the_first_usable_candidate_runs() {
        let dir = tempfile::tempdir().unwrap();
        let catalogue = Catalogue::parse(
            "images: [{match: [web], run: [{host: our-httpd, args: ['${PORT_8081}'], appendArgs: true}, {builtin: httpd}]}]",
        )
        .unwrap();
        let args = words(&["-v"]);
        let before = catalogue.resolve("web:1", &[], &args, &site(dir.path())).unwrap();
        assert_eq!(before.argv, ["/opt/holdfast", "workload", "httpd"]);
        assert!(before.description.ends_with("args are not used"), "{}", before.description);
        let program = dir.path().join("our-httpd");
        fs::write(&program, "").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let after = catalogue.resolve("web:1", &[], &args, &site(dir.path())).unwrap();
        assert_eq!(after.argv, [program.to_str().unwrap(), "8081", "-v"]);
    }

    #[test]
    fn nginx_gets_a_config_of_the_pods_own() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("nginx");
        fs::write(&program, "").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let command = words(&["nginx", "-g", "daemon off;"]);
        let image = "registry.k8s.io/nginx-slim:0.24";
        let resolved = Catalogue::builtin().resolve(image, &command, &[], &site(dir.path())).unwrap();
        assert_eq!(resolved.argv[0], program.to_str().unwrap());
        resolved.write_files().unwrap();
        let config = fs::read_to_string(dir.path().join("run/nginx.conf")).unwrap();
        assert!(config.contains(&format!("listen 127.64.0.3:{};", ports::effective(80))));
        assert!(!config.contains("${"), "{config}");
    }

    #[test]
    fn commands_run_on_the_host_and_unknown_images_without_one_do_not_run() {
        let dir = tempfile::tempdir().unwrap();
        let (catalogue, site) = (Catalogue::builtin(), site(dir.path()));
        let sleep = words(&["sleep", "9"]);
        for image in ["busybox:1.36", "quay.io/acme/tool", "nginx"] {
            assert_eq!(catalogue.resolve(image, &sleep, &[], &site).unwrap().argv, sleep);
        }
        assert_eq!(catalogue.resolve("alpine", &[], &sleep, &site).unwrap().argv, sleep);
        assert_eq!(catalogue.resolve("alpine", &[], &[], &site).unwrap().argv, ["sh"]);
        let unknown = catalogue.resolve("quay.io/acme/tool", &[], &sleep, &site).unwrap_err();
        assert!(unknown.to_string().contains("give the container a command"));
        let parsed = Catalogue::parse("images: [{match: [x], run: [{host: no-such-program}]}]").unwrap();
        let missing = parsed.resolve("x", &[], &[], &site).unwrap_err();
        assert_eq!(missing.to_string(), "image x needs no-such-program on this node");
    }

    #[test]
    fn what_follows_an_entrypoint_goes_to_a_program_that_takes_the_containers_args() {
        let dir = tempfile::tempdir().unwrap();
        let text = "images: [{match: [x], entrypoints: [x], run: [{builtin: httpd, args: [y], appendArgs: true}]}, \
                    {match: [z], entrypoints: [z], run: [{builtin: pause}]}]";
        let (catalogue, site) = (Catalogue::parse(text).unwrap(), site(dir.path()));
        let resolve = |image: &str| catalogue.resolve(image, &words(&[image, "-a"]), &words(&["-b"]), &site).unwrap();
        assert_eq!(resolve("x").argv, ["/opt/holdfast", "workload", "httpd", "y", "-a", "-b"]);
        assert_eq!(resolve("z").argv, ["/opt/holdfast", "workload", "pause"]);
    }

    #[test]
    fn a_candidate_is_one_thing() {
        let text = "images: [{match: [x], run: [{host: a, builtin: b}]}]";
        assert!(matches!(Catalogue::parse(text), Err(CatalogueError::Candidate { .. })));
    }
}
