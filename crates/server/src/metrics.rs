//! What monitoring reads: Prometheus text at `/metrics`, on the port that everything else is served on.
//! Counts and measures, never decides. Nothing has a label for a pod or a set, so that its size stays the same.

use crate::core::{Core, Latest};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use domain::State;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::time::Duration;

/// Where the text is found.
pub(crate) const PATH: &str = "/metrics";

const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is counted while it happens; everything else is read from the state when it is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    /// From the arrival of a change at this server, while it led, to its answer.
    commit_seconds: Histogram,
    /// One sync of the journal.
    sync_seconds: Histogram,
    /// Changes that were refused by a rule.
    refused: Counter,
    /// Questions about names.
    dns: Arc<dns::Counters>,
}

impl Default for Metrics {
    fn default() -> Self {
        // From 50 µs to 1.6 s.
        let histogram = || Histogram::new(exponential_buckets(0.000_05, 2.0, 16));
        Self {
            commit_seconds: histogram(),
            sync_seconds: histogram(),
            refused: Counter::default(),
            dns: Arc::default(),
        }
    }
}

impl Metrics {
    pub(crate) fn note_commit(&self, took: Duration) {
        self.commit_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn note_sync(&self, took: Duration) {
        self.sync_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn note_refusal(&self) {
        self.refused.inc();
    }

    /// Where questions about names are counted.
    pub(crate) const fn dns(&self) -> &Arc<dns::Counters> {
        &self.dns
    }

    fn register_dns(&self, registry: &mut Registry) {
        let counts = self.dns.counts();
        let counters = [
            ("dns_answered", "Questions about names answered with records of the cluster", counts.answered),
            ("dns_absent", "Questions answered that the cluster has no such name or record", counts.absent),
            ("dns_forwarded", "Questions answered by a resolver of the host", counts.forwarded),
            ("dns_failed", "Questions that nobody answered, or that were not understood", counts.failed),
        ];
        for (name, help, count) in counters {
            registry.register(name, help, ConstCounter::new(count));
        }
    }

    fn text(&self, latest: &Latest) -> Result<String, std::fmt::Error> {
        let mut registry = Registry::with_prefix("holdfast");
        let (commit, sync) = (self.commit_seconds.clone(), self.sync_seconds.clone());
        registry.register("commit_seconds", "From the arrival of a change at the leader to its answer", commit);
        registry.register("journal_sync_seconds", "One sync of the journal", sync);
        registry.register("refused_changes", "Changes that were refused by a rule", self.refused.clone());
        let status = &latest.status;
        let skipped = ConstCounter::new(status.skipped_batches);
        registry.register("skipped_batches", "Log entries that did nothing because their base had passed", skipped);
        self.register_dns(&mut registry);
        let is_leader = status.leader == Some(status.id);
        let state = &latest.state;
        let gauges: [(&str, &str, u64); 11] = [
            ("raft_term", "The term that this server is in", status.term),
            ("raft_is_leader", "1 while this server leads", u64::from(is_leader)),
            ("raft_applied_index", "The last log entry applied here", status.applied),
            ("state_revision", "The revision of the state here", state.revision.0),
            ("sets", "Sets", state.sets.len() as u64),
            ("pods", "Pods", state.pods.len() as u64),
            ("ready_pods", "Pods that are Ready", ready_pods(state)),
            ("held_pods", "Pods held on unreachable nodes", state.held().count() as u64),
            ("volumes", "Volumes", state.volumes.len() as u64),
            ("nodes", "Nodes", state.nodes.len() as u64),
            ("unreachable_nodes", "Nodes that are not heard", unreachable_nodes(state)),
        ];
        for (name, help, value) in gauges {
            registry.register(name, help, ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)));
        }
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }
}

fn ready_pods(state: &State) -> u64 {
    state.pods.values().filter(|pod| pod.is_ready()).count() as u64
}

fn unreachable_nodes(state: &State) -> u64 {
    state.nodes.values().filter(|node| node.unreachable.is_some()).count() as u64
}

/// Answers a scrape.
pub(crate) async fn answer(core: Core) -> Response {
    let latest = Latest { state: core.state(), status: core.status() };
    match core.metrics().text(&latest) {
        Ok(text) => ([(CONTENT_TYPE, TEXT)], text).into_response(),
        Err(error) => (axum::http::StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
