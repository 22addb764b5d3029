//! Probes, both ways, with Kubernetes' defaults.

use super::check::{At, FieldError};
use super::set::number;
use crate::v1;
use domain::spec::{Port, Probe, ProbeAction};

const PERIOD_SECONDS_DEFAULT: i32 = 10;
const TIMEOUT_SECONDS_DEFAULT: i32 = 1;
const SUCCESSES_DEFAULT: i32 = 1;
const FAILURES_DEFAULT: i32 = 3;

pub(super) fn probe_from_wire(
    wire: Option<&v1::Probe>,
    ports: &[Port],
    at: At<'_>,
) -> Result<Option<Probe>, FieldError> {
    let Some(wire) = wire else { return Ok(None) };
    let or_default = |given: i32, default: i32| if given == 0 { default } else { given };
    let seconds = |name, given: i32| at.to(name).seconds(given.into());
    let period = or_default(wire.period_seconds, PERIOD_SECONDS_DEFAULT);
    let timeout = or_default(wire.timeout_seconds, TIMEOUT_SECONDS_DEFAULT);
    let successes = or_default(wire.success_threshold, SUCCESSES_DEFAULT);
    let failures = or_default(wire.failure_threshold, FAILURES_DEFAULT);
    Ok(Some(Probe {
        action: action_from_wire(wire, ports, at)?,
        initial_delay_ms: seconds("initialDelaySeconds", wire.initial_delay_seconds)?,
        period_ms: seconds("periodSeconds", period)?,
        timeout_ms: seconds("timeoutSeconds", timeout)?,
        success_threshold: at.to("successThreshold").count(successes)?,
        failure_threshold: at.to("failureThreshold").count(failures)?,
    }))
}

fn action_from_wire(wire: &v1::Probe, ports: &[Port], at: At<'_>) -> Result<ProbeAction, FieldError> {
    match (&wire.exec, &wire.http_get, &wire.tcp_socket) {
        (Some(exec), None, None) if exec.command.is_empty() => Err(at.to("exec").to("command").refuse("is required")),
        (Some(exec), None, None) => Ok(ProbeAction::Exec(exec.command.clone())),
        (None, Some(get), None) => {
            let at = at.to("httpGet");
            at.to("scheme").word(&get.scheme, &[("HTTP", ())])?;
            let path = if get.path.is_empty() { "/" } else { &get.path };
            let port = port_from_wire(&get.port, ports, at.to("port"))?;
            Ok(ProbeAction::HttpGet { path: path.to_owned(), port, host: String::new() })
        }
        (None, None, Some(socket)) => {
            let at = at.to("tcpSocket");
            Ok(ProbeAction::TcpSocket { port: port_from_wire(&socket.port, ports, at.to("port"))? })
        }
        _ => Err(at.refuse("must have one of exec, httpGet and tcpSocket")),
    }
}

/// A port's number, or what the container's port of that name is.
fn port_from_wire(wire: &str, ports: &[Port], at: At<'_>) -> Result<u32, FieldError> {
    if let Ok(number) = at.not_empty(wire)?.parse() {
        return at.port(number);
    }
    let named = ports.iter().find(|port| port.name.as_str() == wire);
    named.map(|port| port.port).ok_or_else(|| at.refuse(format_args!("the container has no port {wire:?}")))
}

pub(super) fn probe_to_wire(probe: &Probe) -> v1::Probe {
    let seconds = |ms: u64| i32::try_from(ms / 1000).unwrap_or(i32::MAX);
    let mut wire = v1::Probe {
        initial_delay_seconds: seconds(probe.initial_delay_ms),
        timeout_seconds: seconds(probe.timeout_ms),
        period_seconds: seconds(probe.period_ms),
        success_threshold: number(probe.success_threshold),
        failure_threshold: number(probe.failure_threshold),
        ..v1::Probe::default()
    };
    match &probe.action {
        ProbeAction::Exec(command) => wire.exec = Some(v1::ExecAction { command: command.clone() }),
        ProbeAction::HttpGet { path, port, host: _ } => {
            wire.http_get =
                Some(v1::HttpGetAction { path: path.clone(), port: port.to_string(), scheme: "HTTP".to_owned() });
        }
        ProbeAction::TcpSocket { port } => wire.tcp_socket = Some(v1::TcpSocketAction { port: port.to_string() }),
    }
    wire
}
