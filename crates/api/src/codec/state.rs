//! A snapshot: the whole state but its indexes, each template once.

use super::wire::{Decoder, Encoder, Field, Texts, Value};
use super::{CodecError, Record};
use domain::State;
use domain::id::{RequestId, Revision};
use domain::spec::Template;
use std::sync::Arc;

/// The field of the templates, which come last: only then is it known which there are.
const TEMPLATE: u32 = 15;

impl Record for State {
    fn encode_fields(&self, out: &mut Encoder) {
        out.begin_templates();
        self.revision.write_field(1, out);
        self.at_ms.write_field(2, out);
        self.cluster.write_field(3, out);
        self.sets.write_field(4, out);
        self.pods.write_field(5, out);
        self.claims.write_field(6, out);
        self.volumes.write_field(7, out);
        self.classes.write_field(8, out);
        self.services.write_field(9, out);
        self.nodes.write_field(10, out);
        self.node_incarnations.write_field(11, out);
        let mut requests: Vec<_> = self.requests.iter().map(|(request, at)| (request.clone(), at)).collect();
        requests.sort_unstable();
        requests.write_field(12, out);
        self.budgets.write_field(13, out);
        self.servers.write_field(16, out);
        self.founders.write_field(17, out);
        self.last_server.write_field(18, out);
        self.configs.write_field(14, out);
        for template in out.end_templates() {
            out.bytes(TEMPLATE, &template);
        }
    }

    fn decode_fields(input: &mut Decoder<'_>) -> Result<Self, CodecError> {
        let texts = Texts::default();
        let templates = templates(input.with_texts(&texts))?;
        let mut state = decode_with_templates(&mut input.with_texts(&texts).with_templates(&templates))?;
        state.reindex();
        Ok(state)
    }
}

/// The templates alone; everything else is passed over in steps of whole objects.
fn templates(mut input: Decoder<'_>) -> Result<Vec<Arc<Template>>, CodecError> {
    let mut templates = Vec::new();
    while let Some((number, wire)) = input.key()? {
        match number {
            TEMPLATE => templates.push(Arc::new(Template::read(wire, &mut input)?)),
            _ => input.skip(number, wire)?,
        }
    }
    Ok(templates)
}

fn decode_with_templates(input: &mut Decoder<'_>) -> Result<State, CodecError> {
    let (mut revision, mut at_ms, mut cluster) = (None, None, None);
    let (mut sets, mut pods, mut claims, mut volumes) = (None, None, None, None);
    let (mut classes, mut services, mut budgets, mut nodes) = (None, None, None, None);
    let (mut servers, mut founders, mut last_server) = (None, None, None);
    let (mut node_incarnations, mut requests, mut configs) = (None, None, None);
    while let Some((number, wire)) = input.key()? {
        match number {
            1 => Field::read_field(&mut revision, wire, input)?,
            2 => Field::read_field(&mut at_ms, wire, input)?,
            3 => Field::read_field(&mut cluster, wire, input)?,
            4 => Field::read_field(&mut sets, wire, input)?,
            5 => Field::read_field(&mut pods, wire, input)?,
            6 => Field::read_field(&mut claims, wire, input)?,
            7 => Field::read_field(&mut volumes, wire, input)?,
            8 => Field::read_field(&mut classes, wire, input)?,
            9 => Field::read_field(&mut services, wire, input)?,
            10 => Field::read_field(&mut nodes, wire, input)?,
            11 => Field::read_field(&mut node_incarnations, wire, input)?,
            12 => Field::read_field(&mut requests, wire, input)?,
            13 => Field::read_field(&mut budgets, wire, input)?,
            16 => Field::read_field(&mut servers, wire, input)?,
            17 => Field::read_field(&mut founders, wire, input)?,
            18 => Field::read_field(&mut last_server, wire, input)?,
            14 => Field::read_field(&mut configs, wire, input)?,
            _ => input.skip(number, wire)?,
        }
    }
    let mut state = State::default();
    state.revision = Field::finish(revision)?;
    state.at_ms = Field::finish(at_ms)?;
    state.cluster = Field::finish(cluster)?;
    state.sets = Field::finish(sets)?;
    state.pods = Field::finish(pods)?;
    state.claims = Field::finish(claims)?;
    state.volumes = Field::finish(volumes)?;
    state.classes = Field::finish(classes)?;
    state.services = Field::finish(services)?;
    state.nodes = Field::finish(nodes)?;
    state.node_incarnations = Field::finish(node_incarnations)?;
    let requests: Vec<(RequestId, Revision)> = Field::finish(requests)?;
    state.requests = requests.into_iter().collect();
    state.budgets = Field::finish(budgets)?;
    state.servers = Field::finish(servers)?;
    state.founders = Field::finish(founders)?;
    state.last_server = Field::finish(last_server)?;
    state.configs = Field::finish(configs)?;
    Ok(state)
}
