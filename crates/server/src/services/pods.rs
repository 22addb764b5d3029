//! Pods: looked at and deleted.

use super::change::Change;
use super::selector::Filter;
use super::stream::Replies;
use super::{Api, delete_reply, exec, key_of, logs, port_forward};
use crate::forward::deadline;
use crate::status;
use api::convert::pod_to_wire;
use api::v1::{
    AttachReply, AttachRequest, CopyReply, CopyRequest, DeletePodRequest, DeleteReply, EvictPodRequest, ExecReply,
    ExecRequest, GetRequest, ListPodsReply, ListRequest, LogsReply, LogsRequest, MarkRequest, PodReply,
    PortForwardReply, PortForwardRequest, pods_server,
};
use tonic::{Request, Response, Status, Streaming};

/// The service.
#[derive(Clone, Debug)]
pub(super) struct Pods(pub(super) Api);

#[tonic::async_trait]
impl pods_server::Pods for Pods {
    type AttachStream = Replies<AttachReply>;
    type CopyStream = Replies<CopyReply>;
    type ExecStream = Replies<ExecReply>;
    type LogsStream = Replies<LogsReply>;
    type PortForwardStream = Replies<PortForwardReply>;

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<PodReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let key = key_of(&request.namespace, &request.name)?;
        let state = self.0.read(request.stale, until).await?;
        let pod = state.pods.get(&key).ok_or_else(|| status::not_found("pod", key.name.as_str()))?;
        let object = Some(pod_to_wire(&state, &key, pod));
        Ok(Response::new(PodReply { revision: state.revision.0, object }))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListPodsReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let filter = Filter::new(&request)?;
        let state = self.0.read(request.stale, until).await?;
        let mut shown: Vec<_> = state.pods.iter().filter(|(key, pod)| filter.shows(key, &pod.meta.labels)).collect();
        // By name alone, web-10 would come before web-2.
        shown.sort_by_key(|(key, pod)| (&key.namespace, &pod.set, pod.ordinal));
        let items = shown.into_iter().map(|(key, pod)| pod_to_wire(&state, key, pod)).collect();
        Ok(Response::new(ListPodsReply { revision: state.revision.0, items }))
    }

    async fn delete(&self, request: Request<DeletePodRequest>) -> Result<Response<DeleteReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let key = key_of(&request.namespace, &request.name)?;
        let done = self.0.carry_out(Change::try_from(&request), until).await?;
        // A pod of this name that is not stopping is the next one.
        let is_gone = done.state.pods.get(&key).is_none_or(|pod| pod.deletion.is_none());
        Ok(Response::new(delete_reply(&done, is_gone)))
    }

    async fn evict(&self, request: Request<EvictPodRequest>) -> Result<Response<DeleteReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let key = key_of(&request.namespace, &request.name)?;
        let done = self.0.carry_out(Change::try_from(&request), until).await?;
        let is_gone = done.state.pods.get(&key).is_none_or(|pod| pod.deletion.is_none());
        Ok(Response::new(delete_reply(&done, is_gone)))
    }

    async fn mark(&self, request: Request<MarkRequest>) -> Result<Response<PodReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let key = key_of(&request.namespace, &request.name)?;
        let done = self.0.carry_out(Change::mark_pod(&request), until).await?;
        // It is gone if this took its last finalizer away.
        let object = done.state.pods.get(&key).map(|pod| pod_to_wire(&done.state, &key, pod));
        Ok(Response::new(PodReply { revision: done.revision.0, object }))
    }

    async fn exec(&self, request: Request<Streaming<ExecRequest>>) -> Result<Response<Self::ExecStream>, Status> {
        let (until, requests) = (deadline(&request), request.into_inner());
        Ok(Response::new(exec::exec(&self.0, requests, until).await?))
    }

    async fn attach(&self, request: Request<Streaming<AttachRequest>>) -> Result<Response<Self::AttachStream>, Status> {
        let (until, requests) = (deadline(&request), request.into_inner());
        Ok(Response::new(exec::attach(&self.0, requests, until).await?))
    }

    async fn copy(&self, request: Request<Streaming<CopyRequest>>) -> Result<Response<Self::CopyStream>, Status> {
        let (until, requests) = (deadline(&request), request.into_inner());
        Ok(Response::new(exec::copy(&self.0, requests, until).await?))
    }

    async fn port_forward(
        &self,
        request: Request<Streaming<PortForwardRequest>>,
    ) -> Result<Response<Self::PortForwardStream>, Status> {
        let (until, requests) = (deadline(&request), request.into_inner());
        Ok(Response::new(port_forward::port_forward(&self.0, requests, until).await?))
    }

    async fn logs(&self, request: Request<LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        Ok(Response::new(logs::logs(&self.0, &request, until).await?))
    }
}
