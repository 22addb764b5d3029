//! Claims, volumes, classes and attachments.

use super::change::{Change, Deleted};
use super::selector::Filter;
use super::{Api, Done, delete_reply, key_of, key_of_object, name_of};
use crate::forward::deadline;
use crate::status;
use crate::tunnels::Piece;
use api::convert::{attachments_to_wire, claim_to_wire, class_to_wire, volume_to_wire};
use api::internal::tunnel_request::What;
use api::internal::{TunnelRequest, Usage, UsageWish};
use api::v1::{
    ApplyClaimRequest, ApplyClassRequest, ApplyVolumeRequest, AttachmentReply, ClaimReply, ClaimUsageReply, ClassReply,
    DeleteReply, DeleteRequest, GetRequest, ListAttachmentsReply, ListClaimsReply, ListClassesReply, ListRequest,
    ListVolumesReply, VolumeReply, storage_server,
};
use domain::State;
use domain::id::{ClassName, Key, VolumeName};
use domain::spec::Labels;
use prost::Message as _;
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status};

/// The service.
#[derive(Clone, Debug)]
pub(super) struct Storage(pub(super) Api);

fn claim_reply(done: &Done, key: &Key) -> Result<Response<ClaimReply>, Status> {
    let claim = done.state.claims.get(key);
    let claim = claim.ok_or_else(|| status::not_found("persistentvolumeclaim", key.name.as_str()))?;
    let object = Some(claim_to_wire(&done.state, key, claim));
    Ok(Response::new(ClaimReply { revision: done.revision.0, object }))
}

fn volume_reply(done: &Done, name: &VolumeName) -> Result<Response<VolumeReply>, Status> {
    let volume = done.state.volumes.get(name);
    let volume = volume.ok_or_else(|| status::not_found("persistentvolume", name.as_str()))?;
    let object = Some(volume_to_wire(&done.state, name, volume));
    Ok(Response::new(VolumeReply { revision: done.revision.0, object }))
}

fn class_reply(done: &Done, name: &ClassName) -> Result<Response<ClassReply>, Status> {
    let class = done.state.classes.get(name).ok_or_else(|| status::not_found("storageclass", name.as_str()))?;
    let object = Some(class_to_wire(&done.state, name, class));
    Ok(Response::new(ClassReply { revision: done.revision.0, object }))
}

#[tonic::async_trait]
impl storage_server::Storage for Storage {
    async fn apply_claim(&self, request: Request<ApplyClaimRequest>) -> Result<Response<ClaimReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let done = self.0.carry_out(Change::try_from(&request), until).await?;
        let key = key_of_object(request.object.as_ref().and_then(|object| object.metadata.as_ref()))?;
        // It is gone if this took its last finalizer away.
        let object = done.state.claims.get(&key).map(|claim| claim_to_wire(&done.state, &key, claim));
        Ok(Response::new(ClaimReply { revision: done.revision.0, object }))
    }

    async fn get_claim(&self, request: Request<GetRequest>) -> Result<Response<ClaimReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let key = key_of(&request.namespace, &request.name)?;
        let state = self.0.read(request.stale, until).await?;
        claim_reply(&Done::seen(state), &key)
    }

    async fn list_claims(&self, request: Request<ListRequest>) -> Result<Response<ListClaimsReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let filter = Filter::new(&request)?;
        let state = self.0.read(request.stale, until).await?;
        let shown = state.claims.iter().filter(|(key, claim)| filter.shows(key, &claim.meta.labels));
        let items = shown.map(|(key, claim)| claim_to_wire(&state, key, claim)).collect();
        Ok(Response::new(ListClaimsReply { revision: state.revision.0, items }))
    }

    async fn delete_claim(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let key = key_of(&request.namespace, &request.name)?;
        let done = self.0.carry_out(Change::delete(Deleted::Claim, &request), until).await?;
        let is_gone = done.state.claims.get(&key).is_none_or(|claim| claim.deleting_at_ms.is_none());
        Ok(Response::new(delete_reply(&done, is_gone)))
    }

    async fn apply_volume(&self, request: Request<ApplyVolumeRequest>) -> Result<Response<VolumeReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let done = self.0.carry_out(Change::try_from(&request), until).await?;
        let key = key_of_object(request.object.as_ref().and_then(|object| object.metadata.as_ref()))?;
        volume_reply(&done, &key.name.as_str().into())
    }

    async fn get_volume(&self, request: Request<GetRequest>) -> Result<Response<VolumeReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let name = name_of(&request.name)?.into();
        let state = self.0.read(request.stale, until).await?;
        volume_reply(&Done::seen(state), &name)
    }

    async fn list_volumes(&self, request: Request<ListRequest>) -> Result<Response<ListVolumesReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let filter = Filter::new(&request)?;
        let state = self.0.read(request.stale, until).await?;
        let shown = state.volumes.iter().filter(|(_, volume)| filter.selects(&volume.meta.labels));
        let items = shown.map(|(name, volume)| volume_to_wire(&state, name, volume)).collect();
        Ok(Response::new(ListVolumesReply { revision: state.revision.0, items }))
    }

    async fn delete_volume(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let name = VolumeName::new(name_of(&request.name)?);
        let done = self.0.carry_out(Change::delete(Deleted::Volume, &request), until).await?;
        Ok(Response::new(delete_reply(&done, !done.state.volumes.contains_key(&name))))
    }

    async fn apply_class(&self, request: Request<ApplyClassRequest>) -> Result<Response<ClassReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let done = self.0.carry_out(Change::try_from(&request), until).await?;
        let key = key_of_object(request.object.as_ref().and_then(|object| object.metadata.as_ref()))?;
        class_reply(&done, &key.name.as_str().into())
    }

    async fn get_class(&self, request: Request<GetRequest>) -> Result<Response<ClassReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let name = name_of(&request.name)?.into();
        let state = self.0.read(request.stale, until).await?;
        class_reply(&Done::seen(state), &name)
    }

    async fn list_classes(&self, request: Request<ListRequest>) -> Result<Response<ListClassesReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let filter = Filter::new(&request)?;
        let state = self.0.read(request.stale, until).await?;
        let shown = state.classes.iter().filter(|(_, class)| filter.selects(&class.meta.labels));
        let items = shown.map(|(name, class)| class_to_wire(&state, name, class)).collect();
        Ok(Response::new(ListClassesReply { revision: state.revision.0, items }))
    }

    async fn delete_class(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let name = ClassName::new(name_of(&request.name)?);
        let done = self.0.carry_out(Change::delete(Deleted::Class, &request), until).await?;
        Ok(Response::new(delete_reply(&done, !done.state.classes.contains_key(&name))))
    }

    async fn get_attachment(&self, request: Request<GetRequest>) -> Result<Response<AttachmentReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let name = name_of(&request.name)?;
        let state = self.0.read(request.stale, until).await?;
        let is_meant = |item: &api::v1::VolumeAttachment| item.metadata.as_ref().is_some_and(|m| m.name == name);
        let object = attachments_to_wire(&state).into_iter().find(is_meant);
        let object = Some(object.ok_or_else(|| status::not_found("volumeattachment", name))?);
        Ok(Response::new(AttachmentReply { revision: state.revision.0, object }))
    }

    async fn list_attachments(&self, request: Request<ListRequest>) -> Result<Response<ListAttachmentsReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let filter = Filter::new(&request)?;
        let state = self.0.read(request.stale, until).await?;
        // Attachments have no labels of their own.
        let items = if filter.selects(&Labels::new()) { attachments_to_wire(&state) } else { Vec::new() };
        Ok(Response::new(ListAttachmentsReply { revision: state.revision.0, items }))
    }

    async fn get_claim_usage(&self, request: Request<GetRequest>) -> Result<Response<ClaimUsageReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let key = key_of(&request.namespace, &request.name)?;
        let state = self.0.read(request.stale, until).await?;
        usage(&self.0, &state, &key, until).await.map(Response::new)
    }
}

/// Asks a node that has the volume how full it is: nobody else knows.
async fn usage(api: &Api, state: &State, key: &Key, until: Instant) -> Result<ClaimUsageReply, Status> {
    let claim = state.claims.get(key);
    let claim = claim.ok_or_else(|| status::not_found("persistentvolumeclaim", key.name.as_str()))?;
    let volume = claim.volume.as_ref().and_then(|name| state.volumes.get(name));
    let attached = volume.and_then(|volume| {
        let (node, _) = volume.attachments.iter().find(|(_, attachment)| attachment.is_attached)?;
        Some((volume, node))
    });
    let Some((volume, node)) = attached else {
        let text = format!("the volume of claim {} is attached to no node", key.name);
        return Err(status::status(Code::FailedPrecondition, "NotAttached", text, &[]));
    };
    let wish = UsageWish {
        driver: volume.spec.driver.to_string(),
        handle: volume.spec.handle.to_string(),
        capacity_bytes: volume.spec.capacity_bytes,
    };
    let (node, what) = (node.to_string(), Some(What::Usage(wish)));
    let request = TunnelRequest { node: node.clone(), what, ..TunnelRequest::default() };
    let mut tunnel = api.tunnels.open(request, until).await?;
    let late = |_| Status::deadline_exceeded(format!("node {node} has not measured the volume in time"));
    let mut said = Usage::default();
    loop {
        match tokio::time::timeout_at(until, tunnel.next()).await.map_err(late)?? {
            Piece::Data(data) => {
                said = Usage::decode(data).map_err(|error| Status::internal(format!("what the node says: {error}")))?;
            }
            Piece::Errors(_) | Piece::DataEnd => {}
            Piece::End { .. } => break,
        }
    }
    let Usage { capacity_bytes, used_bytes, available_bytes } = said;
    Ok(ClaimUsageReply { node, capacity_bytes, used_bytes, available_bytes })
}
