//! Verbs that read an object, change it, and give it back: `set`, `label`, `annotate`, `patch`, `edit`. What somebody
//! else changed meanwhile is never lost: then it is read again.

use std::path::{Path, PathBuf};

use api::manifest::{self, Object};
use api::patch::{PatchKind, patch as apply_patch};
use api::v1;
use api::v1::nodes_client::NodesClient;
use api::v1::pods_client::PodsClient;
use serde_json::{Map, Value, json};

use crate::args::{Mark, Patch, PatchType, Set};
use crate::change::chosen;
use crate::connect::{Session, new_request_id};
use crate::error::CliError;
use crate::fetch::{self, ApplyOptions, change};
use crate::print;
use crate::resource::{Resource, Targets};

/// How often a change is tried again that lost a race against another one.
const RACES_MAX: usize = 5;

/// What `label` and `annotate` change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marks {
    Labels,
    Annotations,
}

/// The object that is changed.
#[derive(Clone, Copy, Debug)]
struct Place<'a> {
    session: &'a Session,
    resource: Resource,
    namespace: &'a str,
    name: &'a str,
    request_id: Option<&'a String>,
}

impl Place<'_> {
    /// Changes the object as it is now; says whether that made a difference.
    async fn modify(&self, mut change: impl FnMut(&mut Value) -> Result<(), CliError>) -> Result<bool, CliError> {
        let mut race = 1;
        loop {
            let (_, object) = fetch::get(self.session, self.resource, self.namespace, self.name).await?;
            let before = serde_json::to_value(&object)?;
            let mut after = before.clone();
            change(&mut after)?;
            if after == before {
                return Ok(false);
            }
            match self.put(&object, &before, &after).await {
                Err(error) if error.is_lost_race && race < RACES_MAX => race += 1,
                result => return result.map(|()| true),
            }
        }
    }

    async fn put(&self, object: &Object, before: &Value, after: &Value) -> Result<(), CliError> {
        let version = object.metadata().map_or("", |metadata| &metadata.resource_version);
        let expected_revision = version.parse().ok();
        if matches!(self.resource, Resource::Pod | Resource::Node) {
            return self.put_marks(before, after, expected_revision).await;
        }
        let changed = parse(after)?;
        if (changed.kind(), changed.namespace(), changed.name()) != (object.kind(), object.namespace(), object.name()) {
            return Err(CliError::refused("an object's kind, namespace and name are fixed for ever"));
        }
        let options =
            ApplyOptions { expected_revision, request_id: self.request_id.cloned(), ..ApplyOptions::default() };
        fetch::apply(self.session, changed, &options).await.map(drop)
    }

    /// Of pods and nodes, only these belong to users.
    async fn put_marks(&self, before: &Value, after: &Value, expected_revision: Option<u64>) -> Result<(), CliError> {
        let without_marks = |object: &Value| {
            let mut object = object.clone();
            if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
                metadata.remove("labels");
                metadata.remove("annotations");
                if self.resource == Resource::Pod {
                    metadata.remove("finalizers");
                }
            }
            object
        };
        if without_marks(before) != without_marks(after) {
            let word = self.resource.word();
            let more = if self.resource == Resource::Pod { ", and its finalizers" } else { "" };
            return Err(CliError::refused(format!("only labels and annotations of a {word} can be changed{more}"))
                .hint("change the template of its set"));
        }
        let texts = |field: &str| -> Result<_, CliError> {
            let found = after.pointer(&format!("/metadata/{field}")).cloned().unwrap_or_else(|| json!({}));
            Ok(serde_json::from_value(found)?)
        };
        let request = v1::MarkRequest {
            namespace: self.namespace.to_owned(),
            name: self.name.to_owned(),
            labels: texts("labels")?,
            annotations: texts("annotations")?,
            request_id: chosen(self.request_id)?,
            expected_revision,
            finalizers: Some(v1::Finalizers {
                names: match after.pointer("/metadata/finalizers") {
                    Some(found) => serde_json::from_value(found.clone())?,
                    None => Vec::new(),
                },
            }),
        };
        if self.resource == Resource::Pod {
            change!(self.session, PodsClient.mark(request)).map(drop)
        } else {
            change!(self.session, NodesClient.mark(request)).map(drop)
        }
    }

    fn output_name(&self) -> String {
        format!("{}/{}", self.resource.output_name(), self.name)
    }
}

/// Reads a changed object; mistakes in it are told as in a manifest.
fn parse(object: &Value) -> Result<Object, CliError> {
    let documents = manifest::parse("the changed object", &manifest::to_json(object)?).map_err(|errors| {
        let mistakes = errors.iter().map(|error| format!("{}: {}", error.path, error.message));
        CliError::refused(format!("the change is not understood: {}", mistakes.collect::<Vec<_>>().join("; ")))
    })?;
    let document = documents.into_iter().next();
    document.map(|document| document.object).ok_or_else(|| CliError::refused("nothing is left of the object"))
}

/// Changes one thing of a set's containers.
pub(crate) async fn set(
    session: &Session,
    verb: &Set,
    namespace: &str,
    request_id: Option<&String>,
) -> Result<(), CliError> {
    let (Set::Image { target, .. } | Set::Env { target, .. } | Set::Resources { target, .. }) = verb;
    let name = Targets::parse_set(std::slice::from_ref(target))?;
    let place = Place { session, resource: Resource::StatefulSet, namespace, name: &name, request_id };
    let (is_changed, what) = match verb {
        Set::Image { images, .. } => (place.modify(|set| set_images(set, images)).await?, "image"),
        Set::Env { changes, container, .. } => (place.modify(|set| set_env(set, changes, container)).await?, "env"),
        Set::Resources { requests, limits, container, .. } => {
            if requests.is_empty() && limits.is_empty() {
                return Err(CliError::usage("nothing is to be changed: give --requests or --limits"));
            }
            let set_all = |set: &mut Value| {
                set_quantities(set, "requests", requests, container)?;
                set_quantities(set, "limits", limits, container)
            };
            (place.modify(set_all).await?, "resource requirements")
        }
    };
    let word = if is_changed { "updated" } else { "unchanged" };
    print::line(format!("{} {what} {word}", place.output_name()));
    Ok(())
}

/// The containers that a flag means; `*` means all.
fn containers<'a>(set: &'a mut Value, wanted: &str) -> Result<Vec<&'a mut Map<String, Value>>, CliError> {
    let list = set.pointer_mut("/spec/template/spec/containers").and_then(Value::as_array_mut);
    let list = list.ok_or_else(|| CliError::refused("the set has no containers"))?;
    let name = |container: &Value| container["name"].as_str().unwrap_or_default().to_owned();
    let names = list.iter().map(name).collect::<Vec<_>>().join(", ");
    let is_wanted = |container: &&mut Value| wanted == "*" || container["name"] == wanted;
    let found: Vec<_> = list.iter_mut().filter(is_wanted).filter_map(Value::as_object_mut).collect();
    if found.is_empty() {
        return Err(CliError::refused(format!("there is no container {wanted:?}")).hint(format!("it has: {names}")));
    }
    Ok(found)
}

fn set_images(set: &mut Value, images: &[String]) -> Result<(), CliError> {
    for pair in images {
        let Some((wanted, image)) = pair.split_once('=').filter(|(name, image)| !name.is_empty() && !image.is_empty())
        else {
            return Err(CliError::usage(format!("{pair:?} is not CONTAINER=IMAGE")));
        };
        for container in containers(set, wanted)? {
            container.insert("image".to_owned(), json!(image));
        }
    }
    Ok(())
}

fn set_env(set: &mut Value, changes: &[String], wanted: &str) -> Result<(), CliError> {
    for container in containers(set, wanted)? {
        let mut env = container.remove("env").and_then(|env| env.as_array().cloned()).unwrap_or_default();
        for change in changes {
            let (key, value) = parse_mark(change)?;
            let at = env.iter().position(|variable| variable["name"] == key);
            match (at, value) {
                (Some(at), None) => drop(env.remove(at)),
                (None, None) => {}
                (Some(at), Some(value)) => env[at] = json!({"name": key, "value": value}),
                (None, Some(value)) => env.push(json!({"name": key, "value": value})),
            }
        }
        if !env.is_empty() {
            container.insert("env".to_owned(), Value::Array(env));
        }
    }
    Ok(())
}

fn set_quantities(set: &mut Value, part: &str, pairs: &[String], wanted: &str) -> Result<(), CliError> {
    for pair in pairs {
        let Some((name, quantity)) = pair.split_once('=') else {
            return Err(CliError::usage(format!("{pair:?} is not NAME=QUANTITY, such as cpu=250m")));
        };
        for container in containers(set, wanted)? {
            let resources = container.entry("resources").or_insert_with(|| json!({}));
            if quantity != "0" {
                resources[part][name] = json!(quantity);
            } else if let Some(known) = resources.get_mut(part).and_then(Value::as_object_mut) {
                known.remove(name);
            }
        }
    }
    Ok(())
}

/// `KEY=VALUE`, or `KEY-` to remove it.
fn parse_mark(text: &str) -> Result<(&str, Option<&str>), CliError> {
    match (text.split_once('='), text.strip_suffix('-')) {
        (Some((key, value)), _) if !key.is_empty() => Ok((key, Some(value))),
        (None, Some(key)) if !key.is_empty() => Ok((key, None)),
        _ => Err(CliError::usage(format!("{text:?} is neither KEY=VALUE nor KEY-"))),
    }
}

/// Changes labels or annotations of an object.
pub(crate) async fn mark(
    session: &Session,
    args: &Mark,
    marks: Marks,
    namespace: &str,
    request_id: Option<&String>,
) -> Result<(), CliError> {
    let is_change = |word: &String| word.contains('=') || word.ends_with('-');
    let split = args.words.iter().position(is_change).unwrap_or(args.words.len());
    let (target, changes) = args.words.split_at(split);
    if changes.is_empty() {
        return Err(CliError::usage("nothing is to be changed: give KEY=VALUE or KEY-"));
    }
    let changes = changes.iter().map(|change| parse_mark(change)).collect::<Result<Vec<_>, _>>()?;
    let (resource, name) = Targets::parse_one(target)?;
    let place = Place { session, resource, namespace, name: &name, request_id };
    let (field, done) = match marks {
        Marks::Labels => ("labels", "labeled"),
        Marks::Annotations => ("annotations", "annotated"),
    };
    let is_changed = place.modify(|object| set_marks(object, field, &changes, args.overwrite)).await?;
    let done = match (is_changed, marks) {
        (true, Marks::Labels) if changes.iter().all(|(_, value)| value.is_none()) => "unlabeled",
        (true, _) => done,
        (false, Marks::Labels) => "not labeled",
        (false, Marks::Annotations) => "not annotated",
    };
    print::line(format!("{} {done}", place.output_name()));
    Ok(())
}

fn set_marks(
    object: &mut Value,
    field: &str,
    changes: &[(&str, Option<&str>)],
    may_overwrite: bool,
) -> Result<(), CliError> {
    let metadata = object["metadata"].as_object_mut();
    let metadata = metadata.ok_or_else(|| CliError::refused("the object has no metadata"))?;
    let mut marks = metadata.remove(field).and_then(|marks| marks.as_object().cloned()).unwrap_or_default();
    for (key, value) in changes {
        let Some(value) = value else {
            marks.remove(*key);
            continue;
        };
        let known = marks.get(*key).and_then(Value::as_str);
        if let Some(known) = known.filter(|known| known != value && !may_overwrite) {
            return Err(CliError::refused(format!("{key:?} has the value {known:?} already"))
                .hint("give --overwrite to change it"));
        }
        marks.insert((*key).to_owned(), json!(value));
    }
    if !marks.is_empty() {
        metadata.insert(field.to_owned(), Value::Object(marks));
    }
    Ok(())
}

/// Changes fields of an object.
pub(crate) async fn patch(
    session: &Session,
    args: &Patch,
    namespace: &str,
    request_id: Option<&String>,
) -> Result<(), CliError> {
    let (resource, name) = Targets::parse_one(&args.target)?;
    let text = match &args.patch_file {
        None => args.patch.clone(),
        Some(file) => std::fs::read_to_string(file)
            .map_err(|error| CliError::refused(format!("cannot read {}: {error}", file.display())))?,
    };
    let change: Value = serde_saphyr::from_str(&text)
        .map_err(|error| CliError::usage(format!("the patch is neither JSON nor YAML: {error}")))?;
    let kind = match args.kind {
        PatchType::Strategic => PatchKind::Strategic,
        PatchType::Merge => PatchKind::Merge,
        PatchType::Json => PatchKind::Operations,
    };
    let place = Place { session, resource, namespace, name: &name, request_id };
    let apply =
        |object: &mut Value| apply_patch(object, &change, kind).map_err(|error| CliError::refused(error.to_string()));
    let word = if place.modify(apply).await? { "patched" } else { "patched (no change)" };
    print::line(format!("{} {word}", place.output_name()));
    Ok(())
}

/// Changes an object in an editor, again and again until it is accepted or left as it is.
pub(crate) async fn edit(session: &Session, target: &[String], namespace: &str) -> Result<(), CliError> {
    let (resource, name) = Targets::parse_one(target)?;
    let (_, object) = fetch::get(session, resource, namespace, &name).await?;
    let place = Place { session, resource, namespace, name: &name, request_id: None };
    let before = serde_json::to_value(&object)?;
    let shown = manifest::to_yaml(&object)?;
    let mut text = format!("# Save and leave to change the object; leave it as it is to change nothing.\n{shown}");
    let path = std::env::temp_dir().join(format!("holdfast-edit-{}.yaml", new_request_id()?));
    loop {
        let edited = edit_text(&path, &text)?;
        if edited == text || edited.trim().is_empty() {
            print::line("edit cancelled, no changes made");
            return Ok(());
        }
        let result = match serde_saphyr::from_str::<Value>(&edited) {
            Ok(after) if after == before => Ok(()),
            Ok(after) => place.put(&object, &before, &after).await,
            Err(error) => Err(CliError::refused(format!("that is no YAML: {error}"))),
        };
        match result {
            Ok(()) => {
                print::line(format!("{} edited", place.output_name()));
                return Ok(());
            }
            Err(error) if error.is_lost_race => return Err(error),
            Err(error) => {
                let body: String = edited.lines().skip_while(|line| line.starts_with('#')).map(line_of).collect();
                let reason = error.message.lines().map(|line| format!("# {line}\n")).collect::<String>();
                text = format!("{reason}{body}");
            }
        }
    }
}

fn line_of(line: &str) -> String {
    format!("{line}\n")
}

/// What a person makes of a text in the editor of their choice.
fn edit_text(path: &Path, text: &str) -> Result<String, CliError> {
    let failed = |error| CliError::refused(format!("cannot edit {}: {error}", path.display()));
    let editor = ["KUBE_EDITOR", "VISUAL", "EDITOR"].iter().find_map(|name| std::env::var(name).ok());
    let editor = editor.filter(|editor| !editor.is_empty()).unwrap_or_else(|| "vi".to_owned());
    std::fs::write(path, text).map_err(failed)?;
    let script = format!("{editor} \"$1\"");
    let status = std::process::Command::new("sh").args(["-c", &script, "sh"]).arg(PathBuf::from(path)).status();
    let edited = std::fs::read_to_string(path).map_err(failed)?;
    std::fs::remove_file(path).map_err(failed)?;
    if status.map_err(failed)?.success() {
        Ok(edited)
    } else {
        Err(CliError::refused(format!("{editor:?} failed")).hint("set EDITOR to the editor of your choice"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Value {
        json!({"metadata": {"labels": {"app": "web"}}, "spec": {"template": {"spec": {"containers": [
            {"name": "a", "image": "x", "env": [{"name": "K", "value": "1"}]}, {"name": "b", "image": "x"}]}}}})
    }

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn images_variables_and_resources_are_set_by_container() {
        let mut set = sample();
        set_images(&mut set, &words("a=y")).unwrap();
        set_env(&mut set, &words("K=2 L=3"), "a").unwrap();
        set_env(&mut set, &words("K-"), "*").unwrap();
        set_quantities(&mut set, "limits", &words("cpu=1 memory=64Mi"), "b").unwrap();
        set_quantities(&mut set, "limits", &words("cpu=0"), "b").unwrap();
        let expected = json!([
            {"name": "a", "image": "y", "env": [{"name": "L", "value": "3"}]},
            {"name": "b", "image": "x", "resources": {"limits": {"memory": "64Mi"}}}]);
        assert_eq!(set.pointer("/spec/template/spec/containers"), Some(&expected));
        let error = set_images(&mut set, &words("c=y")).unwrap_err();
        assert_eq!(error.hint.as_deref(), Some("it has: a, b"));
    }

    #[test]
    fn marks_are_not_overwritten_by_accident() {
        let mut set = sample();
        let change = |set: &mut Value, text: &str, may_overwrite| {
            set_marks(set, "labels", &[parse_mark(text).unwrap()], may_overwrite)
        };
        assert!(change(&mut set, "app=db", false).is_err());
        let mut set = sample();
        change(&mut set, "app=db", true).unwrap();
        change(&mut set, "tier=front", false).unwrap();
        assert_eq!(set["metadata"]["labels"], json!({"app": "db", "tier": "front"}));
        change(&mut set, "app-", false).unwrap();
        assert_eq!(set["metadata"]["labels"], json!({"tier": "front"}));
        assert!(parse_mark("nothing").is_err());
    }
}
