//! Patches of objects in JSON: strategic merge, as users of `kubectl apply` expect it for lists, plain merge, and lists
//! of operations. Never knows what an object means.

use serde_json::{Map, Value};

/// How a patch is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PatchKind {
    /// Maps are merged, and so are lists whose elements have a name of their own.
    #[default]
    Strategic,
    /// Maps are merged, lists are replaced (RFC 7386).
    Merge,
    /// A list of operations (RFC 6902).
    Operations,
}

/// A patch that cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// A list of operations is a list.
    #[error("a patch of type json is a list of operations")]
    NotAList,
    /// An operation that there is not.
    #[error("operation {index}: {op:?} is none of add, remove, replace, move, copy and test")]
    UnknownOperation {
        /// Which of the list, from 0.
        index: usize,
        /// What it says.
        op: String,
    },
    /// A place that the object does not have.
    #[error("operation {index}: the object has no {path:?}")]
    NoSuchPlace {
        /// Which of the list, from 0.
        index: usize,
        /// The place.
        path: String,
    },
    /// What is there is something else.
    #[error("operation {index}: what is at {path:?} is not what is expected")]
    TestFailed {
        /// Which of the list, from 0.
        index: usize,
        /// The place.
        path: String,
    },
}

/// What an apply makes of an object: what is written now counts, what was written the last time and is not any more goes,
/// and what others added meanwhile stays.
#[must_use]
pub fn three_way(last: &Value, new: &Value, live: &Value) -> Value {
    let (Value::Object(wanted), Value::Object(there)) = (new, live) else { return new.clone() };
    let nothing = Value::Null;
    let mut merged = there.clone();
    let was_written = |name: &String| last.get(name).is_some();
    merged.retain(|name, _| wanted.contains_key(name) || !was_written(name));
    for (name, value) in wanted {
        let former = last.get(name).unwrap_or(&nothing);
        let value = match (value, there.get(name)) {
            (Value::Array(new), Some(Value::Array(live))) => three_way_list(name, former, new, live),
            (_, Some(live)) => three_way(former, value, live),
            (_, None) => value.clone(),
        };
        merged.insert(name.clone(), value);
    }
    Value::Object(merged)
}

/// Lists whose elements have names are merged by them; others are what is written now.
fn three_way_list(name: &str, last: &Value, new: &[Value], live: &[Value]) -> Value {
    let key_of = |element: &Value| merge_key(name, element).map(|key| (key, element[key].clone()));
    let is_keyed = new.iter().chain(live).all(|element| key_of(element).is_some());
    if !is_keyed {
        return Value::Array(new.to_vec());
    }
    let last = last.as_array().map(Vec::as_slice).unwrap_or_default();
    let find = |list: &[Value], element: &Value| list.iter().find(|other| key_of(other) == key_of(element)).cloned();
    let merged = new.iter().map(|element| match find(live, element) {
        Some(there) => three_way(&find(last, element).unwrap_or_default(), element, &there),
        None => element.clone(),
    });
    let is_others = |element: &&Value| find(new, element).is_none() && find(last, element).is_none();
    Value::Array(merged.chain(live.iter().filter(is_others).cloned()).collect())
}

/// Directives of strategic patches.
const DIRECTIVE: &str = "$patch";

/// Applies a patch.
///
/// # Errors
/// The first operation that cannot be carried out; then `object` is as it was.
pub fn patch(object: &mut Value, patch: &Value, kind: PatchKind) -> Result<(), PatchError> {
    match kind {
        PatchKind::Strategic => merge(object, patch, true),
        PatchKind::Merge => merge(object, patch, false),
        PatchKind::Operations => {
            let mut changed = object.clone();
            operate(&mut changed, patch.as_array().ok_or(PatchError::NotAList)?)?;
            *object = changed;
        }
    }
    Ok(())
}

fn merge(target: &mut Value, patch: &Value, is_strategic: bool) {
    let Value::Object(fields) = patch else {
        target.clone_from(patch);
        return;
    };
    if is_strategic && directive(patch) == Some("replace") {
        *target = Value::Object(without_directive(fields));
        return;
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (name, value) in fields.iter().filter(|(name, _)| !is_strategic || !name.starts_with('$')) {
        let is_deleted = value.is_null() || is_strategic && directive(value) == Some("delete");
        match (target.get_mut(name), value) {
            _ if is_deleted => drop(target.remove(name)),
            (Some(Value::Array(list)), Value::Array(changes)) if is_strategic => merge_list(list, changes, name),
            (Some(known), _) => merge(known, value, is_strategic),
            (None, _) => {
                let mut made = Value::Null;
                merge(&mut made, &without_deletions(value), is_strategic);
                target.insert(name.clone(), made);
            }
        }
    }
}

fn directive(value: &Value) -> Option<&str> {
    value.get(DIRECTIVE).and_then(Value::as_str)
}

fn without_directive(fields: &Map<String, Value>) -> Map<String, Value> {
    fields.iter().filter(|(name, _)| *name != DIRECTIVE).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// What is new has nothing that could be deleted from it.
fn without_deletions(value: &Value) -> Value {
    match value {
        Value::Array(items) => {
            let kept = items.iter().filter(|item| directive(item).is_none());
            Value::Array(kept.map(without_deletions).collect())
        }
        other => other.clone(),
    }
}

/// The field that names an element of a list.
fn merge_key(list: &str, element: &Value) -> Option<&'static str> {
    let key = match list {
        "containers" | "initContainers" | "env" | "volumes" => "name",
        "volumeMounts" => "mountPath",
        "ports" if element.get("containerPort").is_some() => "containerPort",
        "ports" => "port",
        "conditions" => "type",
        "ownerReferences" => "uid",
        _ => return None,
    };
    element.get(key).is_some().then_some(key)
}

fn merge_list(list: &mut Vec<Value>, changes: &[Value], name: &str) {
    let is_replaced = changes.iter().any(|change| directive(change) == Some("replace"));
    let is_keyed = changes.iter().filter(|c| directive(c) != Some("replace")).all(|c| merge_key(name, c).is_some());
    // A set of words, as Kubernetes has it: an addition takes nothing away.
    if name == "finalizers" && !is_replaced {
        list.extend(changes.iter().filter(|change| !list.contains(change)).cloned().collect::<Vec<_>>());
        return;
    }
    if is_replaced || !is_keyed {
        *list = changes.iter().filter(|change| directive(change).is_none()).cloned().collect();
        return;
    }
    for change in changes {
        let key = merge_key(name, change).unwrap_or_default();
        let at = list.iter().position(|element| element.get(key) == change.get(key));
        match (at, directive(change)) {
            (Some(at), Some("delete")) => drop(list.remove(at)),
            (None, Some("delete")) => {}
            (Some(at), _) => merge(&mut list[at], change, true),
            (None, _) => list.push(change.clone()),
        }
    }
}

fn operate(object: &mut Value, operations: &[Value]) -> Result<(), PatchError> {
    for (index, operation) in operations.iter().enumerate() {
        let text = |field: &str| operation.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (op, path, from) = (text("op"), text("path"), text("from"));
        let value = operation.get("value").cloned().unwrap_or_default();
        let missing = |path: &str| PatchError::NoSuchPlace { index, path: path.to_owned() };
        match op.as_str() {
            "add" => add(object, &path, value).ok_or_else(|| missing(&path))?,
            "remove" => drop(remove(object, &path).ok_or_else(|| missing(&path))?),
            "replace" => *object.pointer_mut(&path).ok_or_else(|| missing(&path))? = value,
            "move" => {
                let moved = remove(object, &from).ok_or_else(|| missing(&from))?;
                add(object, &path, moved).ok_or_else(|| missing(&path))?;
            }
            "copy" => {
                let copied = object.pointer(&from).cloned().ok_or_else(|| missing(&from))?;
                add(object, &path, copied).ok_or_else(|| missing(&path))?;
            }
            "test" if object.pointer(&path) == Some(&value) => {}
            "test" => return Err(PatchError::TestFailed { index, path }),
            _ => return Err(PatchError::UnknownOperation { index, op }),
        }
    }
    Ok(())
}

/// The container of a place, and its name or number there.
fn parent<'a>(object: &'a mut Value, path: &str) -> Option<(&'a mut Value, String)> {
    let (parent, last) = path.rsplit_once('/')?;
    Some((object.pointer_mut(parent)?, last.replace("~1", "/").replace("~0", "~")))
}

fn add(object: &mut Value, path: &str, value: Value) -> Option<()> {
    match parent(object, path)? {
        (Value::Object(fields), name) => {
            fields.insert(name, value);
        }
        (Value::Array(items), name) if name == "-" => items.push(value),
        (Value::Array(items), name) => {
            let at = name.parse().ok().filter(|at| *at <= items.len())?;
            items.insert(at, value);
        }
        _ => return None,
    }
    Some(())
}

fn remove(object: &mut Value, path: &str) -> Option<Value> {
    match parent(object, path)? {
        (Value::Object(fields), name) => fields.remove(&name),
        (Value::Array(items), name) => {
            let at = name.parse().ok().filter(|at| *at < items.len())?;
            Some(items.remove(at))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn assert_patched(kind: PatchKind, object: &Value, change: &Value, expected: &Value) {
        let mut patched = object.clone();
        patch(&mut patched, change, kind).unwrap();
        assert_eq!(&patched, expected, "{change}");
    }

    #[test]
    fn finalizers_are_a_set_of_words_that_null_empties() {
        let object = json!({"metadata": {"finalizers": ["a.b/one"]}});
        let both = json!({"metadata": {"finalizers": ["a.b/one", "a.b/two"]}});
        let change = json!({"metadata": {"finalizers": ["a.b/two"]}});
        assert_patched(PatchKind::Strategic, &object, &change, &both);
        assert_patched(PatchKind::Merge, &object, &change, &change);
        let none = json!({"metadata": {"finalizers": null}});
        assert_patched(PatchKind::Strategic, &both, &none, &json!({"metadata": {}}));
    }

    #[test]
    fn maps_are_merged_and_null_deletes() {
        let object = json!({"a": {"b": 1, "c": 2}, "l": [1, 2]});
        let change = json!({"a": {"b": null, "d": 3}, "l": [9]});
        for kind in [PatchKind::Merge, PatchKind::Strategic] {
            assert_patched(kind, &object, &change, &json!({"a": {"c": 2, "d": 3}, "l": [9]}));
        }
    }

    #[test]
    fn lists_whose_elements_have_names_are_merged_by_them() {
        let object =
            json!({"containers": [{"name": "a", "image": "x", "ports": [{"containerPort": 80}]}, {"name": "b"}]});
        let table = [
            (
                json!({"containers": [{"name": "a", "image": "y"}]}),
                json!({"containers": [{"name": "a", "image": "y", "ports": [{"containerPort": 80}]}, {"name": "b"}]}),
            ),
            (
                json!({"containers": [{"name": "b", "$patch": "delete"}, {"name": "c"}]}),
                json!({"containers": [{"name": "a", "image": "x", "ports": [{"containerPort": 80}]}, {"name": "c"}]}),
            ),
            (json!({"containers": [{"name": "z"}, {"$patch": "replace"}]}), json!({"containers": [{"name": "z"}]})),
            (
                json!({"containers": [{"name": "a", "ports": [{"containerPort": 81}]}]}),
                json!({"containers": [
                    {"name": "a", "image": "x", "ports": [{"containerPort": 80}, {"containerPort": 81}]}, {"name": "b"}]}),
            ),
        ];
        for (change, expected) in table {
            assert_patched(PatchKind::Strategic, &object, &change, &expected);
        }
        let change = json!({"containers": [{"name": "z"}]});
        assert_patched(PatchKind::Merge, &object, &change, &change);
    }

    #[test]
    fn an_apply_keeps_what_others_added_and_drops_what_is_not_written_any_more() {
        let last =
            json!({"labels": {"a": "1", "b": "1"}, "containers": [{"name": "x", "args": ["-v"]}, {"name": "old"}]});
        let new = json!({"labels": {"a": "2"}, "containers": [{"name": "x", "image": "i"}], "list": [3]});
        let live = json!({"labels": {"a": "1", "b": "1", "c": "1"}, "paused": true, "list": [1, 2],
            "containers": [{"name": "side"}, {"name": "x", "args": ["-v"], "env": [{"name": "E"}]}, {"name": "old"}]});
        let expected = json!({"labels": {"a": "2", "c": "1"}, "paused": true, "list": [3],
            "containers": [{"name": "x", "image": "i", "env": [{"name": "E"}]}, {"name": "side"}]});
        assert_eq!(three_way(&last, &new, &live), expected);
    }

    #[test]
    fn operations_are_carried_out_together_or_not_at_all() {
        let object = json!({"spec": {"replicas": 3, "list": ["a", "b"]}});
        let change = json!([
            {"op": "test", "path": "/spec/replicas", "value": 3},
            {"op": "replace", "path": "/spec/replicas", "value": 5},
            {"op": "add", "path": "/spec/list/1", "value": "x"},
            {"op": "add", "path": "/spec/list/-", "value": "y"},
            {"op": "remove", "path": "/spec/list/0"},
            {"op": "copy", "from": "/spec/replicas", "path": "/spec/a~1b"},
            {"op": "move", "from": "/spec/replicas", "path": "/n"},
        ]);
        let expected = json!({"spec": {"list": ["x", "b", "y"], "a/b": 5}, "n": 5});
        assert_patched(PatchKind::Operations, &object, &change, &expected);
        let mut untouched = object.clone();
        let failing = json!([{"op": "remove", "path": "/spec/replicas"}, {"op": "remove", "path": "/nowhere"}]);
        let error = patch(&mut untouched, &failing, PatchKind::Operations).unwrap_err();
        assert_eq!((error.to_string().as_str(), untouched), ("operation 1: the object has no \"/nowhere\"", object));
    }
}
