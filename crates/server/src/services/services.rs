//! Names for pods.

use super::change::{Change, Deleted};
use super::selector::Filter;
use super::{Api, Done, delete_reply, key_of, key_of_object};
use crate::forward::deadline;
use crate::status;
use api::convert::{endpoints_to_wire, service_to_wire};
use api::v1::{
    ApplyServiceRequest, DeleteReply, DeleteRequest, EndpointsReply, GetRequest, ListEndpointsReply, ListRequest,
    ListServicesReply, ServiceReply, services_server,
};
use domain::id::Key;
use domain::names::NamedService;
use tonic::{Request, Response, Status};

/// The service.
#[derive(Clone, Debug)]
pub(super) struct Services(pub(super) Api);

fn reply(done: &Done, key: &Key) -> Result<Response<ServiceReply>, Status> {
    let service = done.state.services.get(key).ok_or_else(|| status::not_found("service", key.name.as_str()))?;
    let object = Some(service_to_wire(&done.state, key, service));
    Ok(Response::new(ServiceReply { revision: done.revision.0, object }))
}

#[tonic::async_trait]
impl services_server::Services for Services {
    async fn apply(&self, request: Request<ApplyServiceRequest>) -> Result<Response<ServiceReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let done = self.0.carry_out(Change::try_from(&request), until).await?;
        reply(&done, &key_of_object(request.object.as_ref().and_then(|object| object.metadata.as_ref()))?)
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<ServiceReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let key = key_of(&request.namespace, &request.name)?;
        let state = self.0.read(request.stale, until).await?;
        reply(&Done::seen(state), &key)
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListServicesReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let filter = Filter::new(&request)?;
        let state = self.0.read(request.stale, until).await?;
        let shown = state.services.iter().filter(|(key, service)| filter.shows(key, &service.meta.labels));
        let items = shown.map(|(key, service)| service_to_wire(&state, key, service)).collect();
        Ok(Response::new(ListServicesReply { revision: state.revision.0, items }))
    }

    async fn get_endpoints(&self, request: Request<GetRequest>) -> Result<Response<EndpointsReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let key = key_of(&request.namespace, &request.name)?;
        let state = self.0.read(request.stale, until).await?;
        let service = state.services.get(&key).ok_or_else(|| status::not_found("endpoints", key.name.as_str()))?;
        let object = Some(endpoints_to_wire(&state, &key, service, &NamedService::of(&state, &key, service)));
        Ok(Response::new(EndpointsReply { revision: state.revision.0, object }))
    }

    async fn list_endpoints(&self, request: Request<ListRequest>) -> Result<Response<ListEndpointsReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let filter = Filter::new(&request)?;
        let state = self.0.read(request.stale, until).await?;
        let shown = state.services.iter().filter(|(key, service)| filter.shows(key, &service.meta.labels));
        let items = shown
            .map(|(key, service)| endpoints_to_wire(&state, key, service, &NamedService::of(&state, key, service)));
        Ok(Response::new(ListEndpointsReply { revision: state.revision.0, items: items.collect() }))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let key = key_of(&request.namespace, &request.name)?;
        let done = self.0.carry_out(Change::delete(Deleted::Service, &request), until).await?;
        Ok(Response::new(delete_reply(&done, !done.state.services.contains_key(&key))))
    }
}
