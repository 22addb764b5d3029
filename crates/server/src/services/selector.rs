//! Which objects a list shows: by namespace and by labels.

use crate::status;
use api::v1::ListRequest;
use domain::id::{Key, Name};
use domain::spec::Labels;
use tonic::Status;

/// What a list asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Filter {
    namespace: Option<Name>,
    terms: Vec<Term>,
}

/// One condition on an object's labels.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Term {
    Is(Name, Name),
    /// Not this value, or no such label.
    IsNot(Name, Name),
    Has(Name),
    HasNot(Name),
}

impl Filter {
    pub(super) fn new(request: &ListRequest) -> Result<Self, Status> {
        let namespace = (!request.namespace.is_empty()).then(|| Name::new(&request.namespace));
        let terms = request.label_selector.split(',').map(str::trim).filter(|term| !term.is_empty());
        Ok(Self { namespace, terms: terms.map(parse_term).collect::<Result<_, _>>()? })
    }

    pub(super) fn shows(&self, key: &Key, labels: &Labels) -> bool {
        self.namespace.as_ref().is_none_or(|namespace| *namespace == key.namespace) && self.selects(labels)
    }

    /// For objects without a namespace.
    pub(super) fn selects(&self, labels: &Labels) -> bool {
        self.terms.iter().all(|term| match term {
            Term::Is(key, value) => labels.get(key) == Some(value),
            Term::IsNot(key, value) => labels.get(key) != Some(value),
            Term::Has(key) => labels.contains_key(key),
            Term::HasNot(key) => !labels.contains_key(key),
        })
    }
}

fn parse_term(text: &str) -> Result<Term, Status> {
    let refuse = |what: &str| status::invalid("label_selector", &format!("\"{text}\": {what}"));
    let (key, make, value): (_, fn(Name, Name) -> Term, _) = if let Some((key, value)) = text.split_once("!=") {
        (key.trim(), Term::IsNot, value.trim())
    } else if let Some((key, value)) = text.split_once('=') {
        (key.trim(), Term::Is, value.strip_prefix('=').unwrap_or(value).trim())
    } else {
        let key = text.trim_start_matches('!').trim();
        api::name::check_label_key(key).map_err(|error| refuse(&error.to_string()))?;
        return Ok(if text.starts_with('!') { Term::HasNot(key.into()) } else { Term::Has(key.into()) });
    };
    api::name::check_label_key(key).map_err(|error| refuse(&error.to_string()))?;
    api::name::check_label_value(value).map_err(|error| refuse(&error.to_string()))?;
    Ok(make(key.into(), value.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(namespace: &str, label_selector: &str) -> Result<Filter, Status> {
        let (namespace, label_selector) = (namespace.to_owned(), label_selector.to_owned());
        Filter::new(&ListRequest { namespace, label_selector, stale: false })
    }

    #[test]
    fn labels_are_selected_by_equality_and_presence() {
        let labels: Labels = [("app".into(), "web".into()), ("tier".into(), "front".into())].into();
        let table = [
            ("", true),
            ("app=web", true),
            ("app==web, tier=front", true),
            ("app=db", false),
            ("app!=db", true),
            ("zone!=a", true),
            ("app!=web", false),
            ("tier", true),
            ("zone", false),
            ("!zone", true),
            ("app=web,zone", false),
        ];
        for (selector, expected) in table {
            assert_eq!(filter("", selector).unwrap().selects(&labels), expected, "{selector}");
        }
    }

    #[test]
    fn a_namespace_hides_the_others() {
        let key = Key::new("blue", "web");
        assert!(filter("", "").unwrap().shows(&key, &Labels::new()));
        assert!(filter("blue", "").unwrap().shows(&key, &Labels::new()));
        assert!(!filter("default", "").unwrap().shows(&key, &Labels::new()));
    }

    #[test]
    fn what_is_no_selector_is_refused_with_its_field() {
        for selector in ["=web", "app=a b", "!", "a b"] {
            let status = filter("", selector).unwrap_err();
            assert_eq!(status.code(), tonic::Code::InvalidArgument, "{selector}");
            assert!(status.message().starts_with("label_selector: "), "{}", status.message());
        }
    }
}
