//! What clients ask to be changed: checked as far as that can be done without the state, then carried out.

use super::{key_of, name_of};
use crate::forward::Forward;
use crate::status;
use api::convert::{FieldError, WantedService, claim_onto, finalizers_of, marks_of, replicas_from_wire, volume_onto};
use domain::config::ConfigKind;
use domain::id::{RequestId, Revision};
use domain::{Command, Draft, Outcome, Rejection, Request, State};
use std::sync::Arc;
use std::time::SystemTime;
use tokio::time::Instant;
use tonic::Status;

/// How often a change that builds on what was read is made anew because somebody else was faster.
const READ_AGAIN_MAX: usize = 16;
const REQUEST_ID_BYTES_MAX: usize = 128;
/// A year: no stop is worth waiting for longer.
const GRACE_SECONDS_MAX: u64 = 365 * 24 * 3_600;
/// The annotation that makes a template another one, as `kubectl rollout restart` writes it.
const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";
const REVISION_MOVED: &str = "RevisionMoved";
const NOT_FOUND: &str = "NotFound";

/// A change.
#[derive(Clone, Debug)]
pub(super) struct Change {
    /// `None`: the client gave no name.
    id: Option<RequestId>,
    expected: Option<Revision>,
    is_dry_run: bool,
    needs: Needs,
    command: Command,
}

/// What has to be read before the command is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Needs {
    Nothing,
    /// The set's present number of replicas: the client named none.
    Replicas,
    /// What the server filled in, which a client sends back without asking for it.
    Known,
    /// The same, and the object's finalizers: the client named none.
    Finalizers,
    /// The whole set: only its template gets a mark, with this time.
    RestartedAt(String),
}

/// A change that was carried out.
#[derive(Clone, Debug)]
pub(super) struct Done {
    /// The revision that it led to.
    pub(super) revision: Revision,
    /// A state that has it.
    pub(super) state: Arc<State>,
    /// Whether anything had to be changed.
    pub(super) changed: bool,
}

impl Done {
    /// Nothing but a look.
    pub(super) fn seen(state: Arc<State>) -> Self {
        Self { revision: state.revision, state, changed: false }
    }
}

impl Change {
    pub(super) fn new(id: &str, expected: Option<u64>, command: Command) -> Result<Self, Status> {
        if REQUEST_ID_BYTES_MAX < id.len() || !id.bytes().all(|b| b.is_ascii_graphic()) {
            let rule = format!("must be at most {REQUEST_ID_BYTES_MAX} visible ASCII characters");
            return Err(status::invalid("request_id", &rule));
        }
        let id = (!id.is_empty()).then(|| RequestId::new(id));
        Ok(Self { id, expected: expected.map(Revision), is_dry_run: false, needs: Needs::Nothing, command })
    }

    /// Carries it out, and waits until it is seen here as well.
    pub(super) async fn carry_out(&self, forward: &Forward, until: Instant) -> Result<Done, Status> {
        if self.is_dry_run {
            let state = forward.read(false, until).await?;
            return self.rehearse(&state);
        }
        let mut attempt_count = 0;
        loop {
            let request = match self.needs {
                Needs::Nothing => self.request(self.command.clone(), self.expected),
                _ => {
                    let state = forward.read(false, until).await?;
                    self.complete(&state)?
                }
            };
            attempt_count += 1;
            match forward.change(request, until).await {
                Ok((reply, state)) => return Ok(Done { revision: reply.revision, state, changed: reply.changed }),
                Err(why) if self.may_read_again(&why) && attempt_count < READ_AGAIN_MAX => {}
                Err(why) => return Err(why),
            }
        }
    }

    /// The request, if nothing has to be read for it first.
    pub(super) fn into_request(self) -> Result<Request, Box<Self>> {
        if self.is_dry_run || self.needs != Needs::Nothing {
            return Err(Box::new(self));
        }
        Ok(Request { actor: "user".into(), id: self.id, expected: self.expected, command: self.command })
    }

    /// Whether it was refused only because what was read for it had changed.
    fn may_read_again(&self, why: &Status) -> bool {
        // Or it was gone by then.
        let is_lost_race = [REVISION_MOVED, NOT_FOUND].contains(&status::reason(why));
        self.needs != Needs::Nothing && self.expected.is_none() && is_lost_race
    }

    fn request(&self, command: Command, expected: Option<Revision>) -> Request {
        Request { actor: "user".into(), id: self.id.clone(), expected, command }
    }

    /// The whole command, as of `state`; it is refused if what it builds on was changed in between.
    fn complete(&self, state: &State) -> Result<Request, Status> {
        let mut command = self.command.clone();
        // A request that was carried out before is answered from memory, whatever became of its object.
        if self.id.as_ref().is_some_and(|id| state.requests.contains(id)) {
            return Ok(self.request(command, self.expected));
        }
        let mut seen = None;
        match (&self.needs, &mut command) {
            (Needs::RestartedAt(at), Command::ApplySet { set, labels, annotations, spec }) => {
                let known = state.sets.get(set).ok_or_else(|| status::not_found("statefulset", set.name.as_str()))?;
                if known.spec.is_paused {
                    let rejection = Rejection::RolloutIsPaused { name: set.name.to_string() };
                    return Err(status::rejected(&rejection));
                }
                seen = Some(known.meta.modified);
                labels.clone_from(&known.meta.labels);
                annotations.clone_from(&known.meta.annotations);
                spec.clone_from(&known.spec);
                let template = Arc::make_mut(&mut spec.template);
                template.annotations.insert(RESTARTED_AT.into(), at.as_str().into());
                template.hash = api::codec::template_hash(template);
            }
            (Needs::Replicas, Command::ApplySet { set, spec, .. }) => {
                let known = state.sets.get(set);
                seen = Some(known.map_or(Revision(0), |known| known.meta.modified));
                spec.replicas = known.map_or(spec.replicas, |known| known.spec.replicas);
            }
            (Needs::Known | Needs::Finalizers, Command::ApplyClaim { claim, spec, finalizers, .. }) => {
                if let Some(known) = state.claims.get(claim) {
                    *spec = claim_onto(known, spec.clone());
                    if self.needs == Needs::Finalizers {
                        seen = Some(known.meta.modified);
                        finalizers.clone_from(&known.finalizers);
                    }
                }
            }
            (Needs::Finalizers, Command::MarkPod { pod, finalizers, .. }) => {
                if let Some(known) = state.pods.get(pod) {
                    seen = Some(known.meta.modified);
                    finalizers.clone_from(&known.finalizers);
                }
            }
            (Needs::Known, Command::ApplyVolume { volume, spec, .. }) => {
                if let Some(known) = state.volumes.get(volume) {
                    *spec = volume_onto(known, spec.clone());
                }
            }
            _ => {}
        }
        Ok(self.request(command, self.expected.or(seen)))
    }

    /// Decides it on a copy of the state: nothing is changed, and everything is refused that would be.
    fn rehearse(&self, state: &State) -> Result<Done, Status> {
        let mut draft = Draft::new(state.clone());
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let at_ms = state.at_ms.max(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX));
        let outcome = draft.submit(&self.complete(state)?, at_ms).map_err(|rejection| status::rejected(&rejection))?;
        let changed = !matches!(outcome, Outcome::Unchanged(_));
        Ok(Done { revision: state.revision, state: Arc::new(draft.state().clone()), changed })
    }
}

fn refused(error: &FieldError) -> Status {
    status::invalid(&error.path, &error.rule)
}

/// The object of an apply, which must be there.
fn given<T>(object: Option<&T>) -> Result<&T, Status> {
    object.ok_or_else(|| status::invalid("object", "must be given"))
}

impl TryFrom<&api::v1::ApplyStatefulSetRequest> for Change {
    type Error = Status;

    fn try_from(request: &api::v1::ApplyStatefulSetRequest) -> Result<Self, Status> {
        let object = given(request.object.as_ref())?;
        let (set, labels, annotations, spec) = api::convert::set_from_wire(object).map_err(|error| refused(&error))?;
        let names_replicas = object.spec.as_ref().is_some_and(|spec| spec.replicas.is_some());
        let command = Command::ApplySet { set, labels, annotations, spec };
        let change = Self::new(&request.request_id, request.expected_revision, command)?;
        let needs = if names_replicas { Needs::Nothing } else { Needs::Replicas };
        Ok(Self { is_dry_run: request.dry_run, needs, ..change })
    }
}

impl TryFrom<&api::v1::ScaleStatefulSetRequest> for Change {
    type Error = Status;

    fn try_from(request: &api::v1::ScaleStatefulSetRequest) -> Result<Self, Status> {
        let count = |field, value| replicas_from_wire(value, field).map_err(|error| refused(&error));
        let set = key_of(&request.namespace, &request.name)?;
        let replicas = count("replicas", request.replicas)?;
        let current = request.current_replicas.map(|current| count("current_replicas", current)).transpose()?;
        let force_unready = request.force_unready;
        let command = Command::ScaleSet { set, replicas, current, force_unready };
        Self::new(&request.request_id, request.expected_revision, command)
    }
}

impl TryFrom<&api::v1::DeleteStatefulSetRequest> for Change {
    type Error = Status;

    fn try_from(request: &api::v1::DeleteStatefulSetRequest) -> Result<Self, Status> {
        let set = key_of(&request.namespace, &request.name)?;
        let command = Command::DeleteSet { set, orphan: request.orphan };
        Self::new(&request.request_id, request.expected_revision, command)
    }
}

impl TryFrom<&api::v1::DeletePodRequest> for Change {
    type Error = Status;

    fn try_from(request: &api::v1::DeletePodRequest) -> Result<Self, Status> {
        let command = Command::DeletePod {
            pod: key_of(&request.namespace, &request.name)?,
            grace_ms: request.grace_period_seconds.map(grace_ms).transpose()?,
            force: request.force,
            uid: (!request.uid.is_empty()).then(|| request.uid.as_str().into()),
        };
        Self::new(&request.request_id, request.expected_revision, command)
    }
}

impl TryFrom<&api::v1::EvictPodRequest> for Change {
    type Error = Status;

    fn try_from(request: &api::v1::EvictPodRequest) -> Result<Self, Status> {
        let command = Command::EvictPod {
            pod: key_of(&request.namespace, &request.name)?,
            grace_ms: request.grace_period_seconds.map(grace_ms).transpose()?,
            uid: (!request.uid.is_empty()).then(|| request.uid.as_str().into()),
        };
        Self::new(&request.request_id, request.expected_revision, command)
    }
}

impl TryFrom<&api::v1::RolloutUndoRequest> for Change {
    type Error = Status;

    fn try_from(request: &api::v1::RolloutUndoRequest) -> Result<Self, Status> {
        let set = key_of(&request.namespace, &request.name)?;
        let number =
            u64::try_from(request.to_revision).map_err(|_| status::invalid("to_revision", "must not be negative"))?;
        let command = Command::UndoRollout { set, to: (number != 0).then_some(number) };
        Self::new(&request.request_id, request.expected_revision, command)
    }
}

impl TryFrom<&api::v1::ApplyBudgetRequest> for Change {
    type Error = Status;

    fn try_from(request: &api::v1::ApplyBudgetRequest) -> Result<Self, Status> {
        let object = given(request.object.as_ref())?;
        let (budget, labels, annotations, spec) =
            api::convert::budget_from_wire(object).map_err(|error| refused(&error))?;
        let command = Command::ApplyBudget { budget, labels, annotations, spec };
        let change = Self::new(&request.request_id, request.expected_revision, command)?;
        Ok(Self { is_dry_run: request.dry_run, ..change })
    }
}

impl TryFrom<&api::v1::ApplyConfigMapRequest> for Change {
    type Error = Status;

    fn try_from(request: &api::v1::ApplyConfigMapRequest) -> Result<Self, Status> {
        let object = given(request.object.as_ref())?;
        let (config, labels, annotations, spec) =
            api::convert::config_map_from_wire(object).map_err(|error| refused(&error))?;
        let spec = Arc::new(spec);
        let command = Command::ApplyConfig { kind: ConfigKind::ConfigMap, config, labels, annotations, spec };
        let change = Self::new(&request.request_id, request.expected_revision, command)?;
        Ok(Self { is_dry_run: request.dry_run, ..change })
    }
}

impl TryFrom<&api::v1::ApplySecretRequest> for Change {
    type Error = Status;

    fn try_from(request: &api::v1::ApplySecretRequest) -> Result<Self, Status> {
        let object = given(request.object.as_ref())?;
        let (config, labels, annotations, spec) =
            api::convert::secret_from_wire(object).map_err(|error| refused(&error))?;
        let spec = Arc::new(spec);
        let command = Command::ApplyConfig { kind: ConfigKind::Secret, config, labels, annotations, spec };
        let change = Self::new(&request.request_id, request.expected_revision, command)?;
        Ok(Self { is_dry_run: request.dry_run, ..change })
    }
}

fn grace_ms(seconds: i64) -> Result<u64, Status> {
    let seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds <= GRACE_SECONDS_MAX);
    let rule = format!("must be from 0 to {GRACE_SECONDS_MAX}");
    Ok(1_000 * seconds.ok_or_else(|| status::invalid("grace_period_seconds", &rule))?)
}

impl TryFrom<&api::v1::ApplyClaimRequest> for Change {
    type Error = Status;

    fn try_from(request: &api::v1::ApplyClaimRequest) -> Result<Self, Status> {
        let object = given(request.object.as_ref())?;
        let (claim, labels, annotations, spec, mut finalizers) =
            api::convert::claim_from_wire(object).map_err(|error| refused(&error))?;
        let needs = if request.finalizers.is_none() && finalizers.is_empty() {
            Needs::Finalizers
        } else if spec.volume.is_some() {
            Needs::Known
        } else {
            Needs::Nothing
        };
        if let Some(wanted) = &request.finalizers {
            finalizers = finalizers_of(&wanted.names).map_err(|error| refused(&error))?;
        }
        let command = Command::ApplyClaim { claim, labels, spec, annotations, finalizers };
        let change = Self::new(&request.request_id, request.expected_revision, command)?;
        Ok(Self { is_dry_run: request.dry_run, needs, ..change })
    }
}

impl TryFrom<&api::v1::ApplyVolumeRequest> for Change {
    type Error = Status;

    fn try_from(request: &api::v1::ApplyVolumeRequest) -> Result<Self, Status> {
        let object = given(request.object.as_ref())?;
        let (volume, labels, annotations, spec) =
            api::convert::volume_from_wire(object).map_err(|error| refused(&error))?;
        let command = Command::ApplyVolume { volume, labels, spec, annotations };
        let change = Self::new(&request.request_id, request.expected_revision, command)?;
        Ok(Self { is_dry_run: request.dry_run, needs: Needs::Known, ..change })
    }
}

impl TryFrom<&api::v1::ApplyClassRequest> for Change {
    type Error = Status;

    fn try_from(request: &api::v1::ApplyClassRequest) -> Result<Self, Status> {
        let object = given(request.object.as_ref())?;
        let (class, labels, annotations, spec) =
            api::convert::class_from_wire(object).map_err(|error| refused(&error))?;
        let command = Command::ApplyClass { class, spec, labels, annotations };
        let change = Self::new(&request.request_id, request.expected_revision, command)?;
        Ok(Self { is_dry_run: request.dry_run, ..change })
    }
}

impl TryFrom<&api::v1::ApplyServiceRequest> for Change {
    type Error = Status;

    fn try_from(request: &api::v1::ApplyServiceRequest) -> Result<Self, Status> {
        let object = given(request.object.as_ref())?;
        let WantedService { key: service, labels, annotations, spec, address } =
            api::convert::service_from_wire(object).map_err(|error| refused(&error))?;
        let command = Command::ApplyService { service, labels, annotations, spec, address };
        let change = Self::new(&request.request_id, request.expected_revision, command)?;
        Ok(Self { is_dry_run: request.dry_run, ..change })
    }
}

/// Deletions whose requests look the same.
#[derive(Clone, Copy, Debug)]
pub(super) enum Deleted {
    Claim,
    Volume,
    Class,
    Service,
    Budget,
    Config(ConfigKind),
}

impl Change {
    pub(super) fn delete(kind: Deleted, request: &api::v1::DeleteRequest) -> Result<Self, Status> {
        let name = name_of(&request.name)?;
        let command = match kind {
            Deleted::Claim => Command::DeleteClaim { claim: key_of(&request.namespace, name)? },
            Deleted::Volume => Command::DeleteVolume { volume: name.into() },
            Deleted::Class => Command::DeleteClass { class: name.into() },
            Deleted::Service => Command::DeleteService { service: key_of(&request.namespace, name)? },
            Deleted::Budget => Command::DeleteBudget { budget: key_of(&request.namespace, name)? },
            Deleted::Config(kind) => Command::DeleteConfig { kind, config: key_of(&request.namespace, name)? },
        };
        Self::new(&request.request_id, request.expected_revision, command)
    }

    pub(super) fn pause(request: &api::v1::RolloutRequest, is_paused: bool) -> Result<Self, Status> {
        let command = Command::PauseRollout { set: key_of(&request.namespace, &request.name)?, is_paused };
        Self::new(&request.request_id, request.expected_revision, command)
    }

    /// A mark on the template makes it another one: every pod is made anew.
    pub(super) fn restart(request: &api::v1::RolloutRequest) -> Result<Self, Status> {
        let set = key_of(&request.namespace, &request.name)?;
        let (labels, annotations, spec) = Default::default();
        let command = Command::ApplySet { set, labels, annotations, spec };
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let at = api::time::format_ms(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX));
        let change = Self::new(&request.request_id, request.expected_revision, command)?;
        Ok(Self { needs: Needs::RestartedAt(at), ..change })
    }

    pub(super) fn mark_pod(request: &api::v1::MarkRequest) -> Result<Self, Status> {
        let pod = key_of(&request.namespace, &request.name)?;
        let (labels, annotations) = marks_of(&request.labels, &request.annotations).map_err(|error| refused(&error))?;
        let (needs, names) = match &request.finalizers {
            None => (Needs::Finalizers, &[][..]),
            Some(wanted) => (Needs::Nothing, &wanted.names[..]),
        };
        let finalizers = finalizers_of(names).map_err(|error| refused(&error))?;
        let command = Command::MarkPod { pod, labels, annotations, finalizers };
        let change = Self::new(&request.request_id, request.expected_revision, command)?;
        Ok(Self { needs, ..change })
    }

    pub(super) fn mark_node(request: &api::v1::MarkRequest) -> Result<Self, Status> {
        let node = name_of(&request.name)?.into();
        let (labels, annotations) = marks_of(&request.labels, &request.annotations).map_err(|error| refused(&error))?;
        if request.finalizers.as_ref().is_some_and(|finalizers| !finalizers.names.is_empty()) {
            return Err(status::invalid("finalizers", "are for pods, pod templates and claims"));
        }
        let command = Command::MarkNode { node, labels, annotations };
        Self::new(&request.request_id, request.expected_revision, command)
    }

    pub(super) fn cordon(request: &api::v1::NodeRequest) -> Result<Self, Status> {
        let command = Command::CordonNode { node: name_of(&request.name)?.into() };
        Self::new(&request.request_id, request.expected_revision, command)
    }

    pub(super) fn uncordon(request: &api::v1::NodeRequest) -> Result<Self, Status> {
        let command = Command::UncordonNode { node: name_of(&request.name)?.into() };
        Self::new(&request.request_id, request.expected_revision, command)
    }

    pub(super) fn remove_node(request: &api::v1::NodeRequest) -> Result<Self, Status> {
        let command = Command::RemoveNode { node: name_of(&request.name)?.into() };
        Self::new(&request.request_id, request.expected_revision, command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::v1::{
        self, ApplyClaimRequest, ApplyStatefulSetRequest, DeletePodRequest, Finalizers, MarkRequest,
        ScaleStatefulSetRequest,
    };
    use domain::id::Key;
    use domain::object::Set;
    use std::sync::Arc;
    use tonic::Code;

    #[test]
    fn replicas_that_are_not_named_stay_as_they_are() {
        let set = Key::new("default", "web");
        let (labels, annotations) = Default::default();
        let spec = domain::spec::SetSpec { replicas: 1, ..Default::default() };
        let command = Command::ApplySet { set: set.clone(), labels, annotations, spec };
        let change = Change { needs: Needs::Replicas, ..Change::new("r1", None, command).unwrap() };
        let mut state = State::default();
        let replicas = |state: &State| match change.complete(state).unwrap() {
            Request { command: Command::ApplySet { spec, .. }, expected, .. } => (spec.replicas, expected),
            other => panic!("{other:?}"),
        };
        assert_eq!(replicas(&state), (1, Some(Revision(0))));
        let mut known = Set::default();
        (known.spec.replicas, known.meta.modified) = (5, Revision(4));
        state.sets.insert(set, Arc::new(known));
        assert_eq!(replicas(&state), (5, Some(Revision(4))));
    }

    #[test]
    fn finalizers_that_are_not_named_stay_as_they_are() {
        let (known, backup) = (Revision(4), "example.com/backup");
        let mut state = State::default();
        let mut pod = domain::object::Pod { finalizers: vec![backup.into()], ..Default::default() };
        pod.meta.modified = known;
        state.pods.insert(Key::new("default", "web-0"), Arc::new(pod));
        let mut claim = domain::object::Claim { finalizers: vec![backup.into()], ..Default::default() };
        claim.meta.modified = known;
        state.claims.insert(Key::new("default", "www"), Arc::new(claim));

        let outcome = |change: Result<Change, Status>| match change.unwrap().complete(&state).unwrap() {
            Request { command: Command::MarkPod { finalizers, .. }, expected, .. }
            | Request { command: Command::ApplyClaim { finalizers, .. }, expected, .. } => (finalizers, expected),
            other => panic!("{other:?}"),
        };
        let named = |names: &[&str]| Some(Finalizers { names: names.iter().map(|name| (*name).to_owned()).collect() });
        let mark = |finalizers| {
            let request = MarkRequest { name: "web-0".to_owned(), finalizers, ..Default::default() };
            outcome(Change::mark_pod(&request))
        };
        let apply = |finalizers, in_object: &[&str]| {
            let finalizers_of_object = in_object.iter().map(|name| (*name).to_owned()).collect();
            let metadata =
                v1::ObjectMeta { name: "www".to_owned(), finalizers: finalizers_of_object, ..Default::default() };
            let requests = [("storage".to_owned(), "1Gi".to_owned())].into();
            let spec = v1::PersistentVolumeClaimSpec {
                access_modes: vec!["ReadWriteOnce".to_owned()],
                resources: Some(v1::ResourceRequirements { requests, ..Default::default() }),
                ..Default::default()
            };
            let object = v1::PersistentVolumeClaim { metadata: Some(metadata), spec: Some(spec), ..Default::default() };
            let object = Some(object);
            outcome(Change::try_from(&ApplyClaimRequest { object, finalizers, ..Default::default() }))
        };
        let (stay, go) = ((vec![backup.into()], Some(known)), (Vec::new(), None));
        assert_eq!((mark(None), apply(None, &[])), (stay.clone(), stay), "of who does not know of them");
        assert_eq!((mark(named(&[])), apply(named(&[]), &[backup])), (go.clone(), go), "of who takes them away");
        let more = (vec!["example.com/more".into()], None);
        assert_eq!(mark(named(&["example.com/more"])), more);
        assert_eq!(apply(None, &["example.com/more"]), more);
    }

    #[test]
    fn what_breaks_a_rule_is_refused_with_its_field() {
        let scale = ScaleStatefulSetRequest { name: "web".to_owned(), replicas: -1, ..Default::default() };
        let grace = DeletePodRequest { name: "web-0".to_owned(), grace_period_seconds: Some(-1), ..Default::default() };
        let id = DeletePodRequest { name: "web-0".to_owned(), request_id: "a b".to_owned(), ..Default::default() };
        let table = [
            ("object", Change::try_from(&ApplyStatefulSetRequest::default())),
            ("name", Change::try_from(&DeletePodRequest::default())),
            ("replicas", Change::try_from(&scale)),
            ("grace_period_seconds", Change::try_from(&grace)),
            ("request_id", Change::try_from(&id)),
        ];
        for (field, change) in table {
            let why = change.unwrap_err();
            assert_eq!(why.code(), Code::InvalidArgument, "{field}");
            assert!(why.message().starts_with(field), "{field}: {}", why.message());
        }
    }
}
