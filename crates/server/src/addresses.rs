//! Where each server of the group is reached, by what this server was told and by what the state says.
//! Never connects anywhere.

use crate::ServerConfig;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The handle: cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    known: Arc<Mutex<Known>>,
}

#[derive(Debug)]
struct Known {
    /// Told at the start; they go before what the state says.
    told: BTreeMap<u64, String>,
    /// Ways of this server alone, which go before everything else: looked at again whenever the servers change.
    routes_file: Option<PathBuf>,
    routes: BTreeMap<u64, String>,
    /// The servers by the state, or those known at the start until there is one.
    servers: BTreeMap<u64, String>,
}

impl Addresses {
    pub(crate) fn new(config: &ServerConfig) -> Self {
        // A server that joins was told of some that the group did not begin with; one of them may lead.
        let first = config.founders.iter().chain(config.peers.keys());
        let servers = first.map(|id| (*id, String::new())).collect();
        let known =
            Known { told: config.peers.clone(), routes_file: config.routes.clone(), routes: BTreeMap::new(), servers };
        let addresses = Self { known: Arc::new(Mutex::new(known)) };
        addresses.lock().read_routes();
        addresses
    }

    /// The servers are these from now on. An empty map says that no state names them yet.
    pub(crate) fn follow(&self, servers: BTreeMap<u64, String>) {
        let mut known = self.lock();
        if !servers.is_empty() {
            known.servers = servers;
        }
        known.read_routes();
    }

    /// The numbers of all servers.
    pub(crate) fn servers(&self) -> Vec<u64> {
        self.lock().servers.keys().copied().collect()
    }

    /// Where this server reaches another one, if that is known.
    pub(crate) fn of(&self, id: u64) -> Option<String> {
        let known = self.lock();
        let named = known.servers.get(&id).filter(|address| !address.is_empty());
        known.routes.get(&id).or_else(|| known.told.get(&id)).or(named).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn read_routes(&mut self) {
        let Some(path) = &self.routes_file else { return };
        let read = std::fs::read_to_string(path).map_err(|error| error.to_string());
        match read.and_then(|text| api::routes::from_text(&text)) {
            Ok(routes) => self.routes = routes,
            Err(error) => tracing::warn!(path = %path.display(), %error, "the routes cannot be read"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail where it stands")]
mod tests {
    use super::*;

    #[test]
    fn a_route_goes_before_what_was_told_and_that_before_the_state() {
        let directory = tempfile::tempdir().unwrap();
        let routes = directory.path().join("routes");
        std::fs::write(&routes, "1=route:1\n").unwrap();
        let told = [(1, "told:1".to_owned()), (2, "told:2".to_owned())].into();
        let listen = ([127, 0, 0, 1], 0).into();
        let config = ServerConfig {
            routes: Some(routes.clone()),
            ..ServerConfig::new(1, listen, directory.path().to_owned(), told, "test")
        };
        let addresses = Addresses::new(&config);
        assert_eq!(addresses.servers(), [1, 2]);
        std::fs::write(&routes, "1=route:1\n3=route:3\n").unwrap();
        addresses.follow((1..=4).map(|id| (id, format!("state:{id}"))).collect());
        let all = addresses.servers().into_iter().filter_map(|id| addresses.of(id));
        assert_eq!(all.collect::<Vec<_>>(), ["route:1", "told:2", "route:3", "state:4"]);
        assert_eq!(addresses.of(5), None);
    }
}
