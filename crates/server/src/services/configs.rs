//! Config maps and secrets.

use super::change::{Change, Deleted};
use super::selector::Filter;
use super::{Api, Done, delete_reply, key_of, key_of_object};
use crate::forward::deadline;
use crate::status;
use api::convert::{config_map_to_wire, secret_to_wire};
use api::v1::{
    ApplyConfigMapRequest, ApplySecretRequest, ConfigMapReply, DeleteReply, DeleteRequest, GetRequest,
    ListConfigMapsReply, ListRequest, ListSecretsReply, SecretReply, configs_server,
};
use domain::State;
use domain::config::{Config, ConfigKind};
use domain::id::Key;
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// The service.
#[derive(Clone, Debug)]
pub(super) struct Configs(pub(super) Api);

fn find<'a>(done: &'a Done, kind: ConfigKind, key: &Key) -> Result<&'a Arc<Config>, Status> {
    let found = done.state.configs.get(&(kind, key.clone()));
    found.ok_or_else(|| status::not_found(kind.word(), key.name.as_str()))
}

fn config_map_reply(done: &Done, key: &Key) -> Result<Response<ConfigMapReply>, Status> {
    let object = Some(config_map_to_wire(&done.state, key, find(done, ConfigKind::ConfigMap, key)?));
    Ok(Response::new(ConfigMapReply { revision: done.revision.0, object }))
}

fn secret_reply(done: &Done, key: &Key) -> Result<Response<SecretReply>, Status> {
    let object = Some(secret_to_wire(&done.state, key, find(done, ConfigKind::Secret, key)?));
    Ok(Response::new(SecretReply { revision: done.revision.0, object }))
}

/// Those of a kind that are asked for.
fn shown<'a>(
    state: &'a State,
    kind: ConfigKind,
    filter: &'a Filter,
) -> impl Iterator<Item = (&'a Key, &'a Arc<Config>)> {
    let of_kind = state.configs.iter().filter(move |((of, _), _)| *of == kind).map(|((_, key), config)| (key, config));
    of_kind.filter(|(key, config)| filter.shows(key, &config.meta.labels))
}

impl Configs {
    async fn delete(&self, kind: ConfigKind, request: Request<DeleteRequest>) -> Result<Response<DeleteReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let key = key_of(&request.namespace, &request.name)?;
        let done = self.0.carry_out(Change::delete(Deleted::Config(kind), &request), until).await?;
        Ok(Response::new(delete_reply(&done, !done.state.configs.contains_key(&(kind, key)))))
    }
}

#[tonic::async_trait]
impl configs_server::Configs for Configs {
    async fn apply_config_map(
        &self,
        request: Request<ApplyConfigMapRequest>,
    ) -> Result<Response<ConfigMapReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let done = self.0.carry_out(Change::try_from(&request), until).await?;
        config_map_reply(&done, &key_of_object(request.object.as_ref().and_then(|object| object.metadata.as_ref()))?)
    }

    async fn get_config_map(&self, request: Request<GetRequest>) -> Result<Response<ConfigMapReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let key = key_of(&request.namespace, &request.name)?;
        config_map_reply(&Done::seen(self.0.read(request.stale, until).await?), &key)
    }

    async fn list_config_maps(&self, request: Request<ListRequest>) -> Result<Response<ListConfigMapsReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let filter = Filter::new(&request)?;
        let state = self.0.read(request.stale, until).await?;
        let shown = shown(&state, ConfigKind::ConfigMap, &filter);
        let items = shown.map(|(key, config)| config_map_to_wire(&state, key, config)).collect();
        Ok(Response::new(ListConfigMapsReply { revision: state.revision.0, items }))
    }

    async fn delete_config_map(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteReply>, Status> {
        self.delete(ConfigKind::ConfigMap, request).await
    }

    async fn apply_secret(&self, request: Request<ApplySecretRequest>) -> Result<Response<SecretReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let done = self.0.carry_out(Change::try_from(&request), until).await?;
        secret_reply(&done, &key_of_object(request.object.as_ref().and_then(|object| object.metadata.as_ref()))?)
    }

    async fn get_secret(&self, request: Request<GetRequest>) -> Result<Response<SecretReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let key = key_of(&request.namespace, &request.name)?;
        secret_reply(&Done::seen(self.0.read(request.stale, until).await?), &key)
    }

    async fn list_secrets(&self, request: Request<ListRequest>) -> Result<Response<ListSecretsReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let filter = Filter::new(&request)?;
        let state = self.0.read(request.stale, until).await?;
        let shown = shown(&state, ConfigKind::Secret, &filter);
        let items = shown.map(|(key, config)| secret_to_wire(&state, key, config)).collect();
        Ok(Response::new(ListSecretsReply { revision: state.revision.0, items }))
    }

    async fn delete_secret(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteReply>, Status> {
        self.delete(ConfigKind::Secret, request).await
    }
}
