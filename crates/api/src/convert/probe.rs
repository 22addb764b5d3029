//! Probes, both ways, with Kubernetes' defaults.

use super::check::{At, FieldError};
use super::set::number;
use crate::v1;
use domain::spec::{Hook, Port, Probe, ProbeAction};

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
    let grace_at = at.to("terminationGracePeriodSeconds");
    let grace = wire.termination_grace_period_seconds;
    Ok(Some(Probe {
        action: action_from_wire(wire, ports, at)?,
        initial_delay_ms: seconds("initialDelaySeconds", wire.initial_delay_seconds)?,
        period_ms: seconds("periodSeconds", period)?,
        timeout_ms: seconds("timeoutSeconds", timeout)?,
        success_threshold: at.to("successThreshold").count(successes)?,
        failure_threshold: at.to("failureThreshold").count(failures)?,
        grace_ms: grace.map(|seconds| grace_at.seconds(seconds)).transpose()?,
    }))
}

fn action_from_wire(wire: &v1::Probe, ports: &[Port], at: At<'_>) -> Result<ProbeAction, FieldError> {
    match (&wire.exec, &wire.http_get, &wire.tcp_socket, &wire.grpc) {
        (Some(exec), None, None, None) => Ok(ProbeAction::Exec(command_from_wire(exec, at.to("exec"))?)),
        (None, Some(get), None, None) => {
            let (path, port) = page_from_wire(get, ports, at.to("httpGet"))?;
            Ok(ProbeAction::HttpGet { path, port, host: String::new() })
        }
        (None, None, None, Some(grpc)) => {
            let at = at.to("grpc");
            Ok(ProbeAction::Grpc { port: at.to("port").port(grpc.port)?, service: grpc.service.clone() })
        }
        (None, None, Some(socket), None) => {
            let at = at.to("tcpSocket");
            Ok(ProbeAction::TcpSocket { port: port_from_wire(&socket.port, ports, at.to("port"))? })
        }
        _ => Err(at.refuse("must have one of exec, httpGet, tcpSocket and grpc")),
    }
}

fn command_from_wire(wire: &v1::ExecAction, at: At<'_>) -> Result<Vec<String>, FieldError> {
    if wire.command.is_empty() { Err(at.to("command").refuse("is required")) } else { Ok(wire.command.clone()) }
}

fn page_from_wire(wire: &v1::HttpGetAction, ports: &[Port], at: At<'_>) -> Result<(String, u32), FieldError> {
    at.to("scheme").word(&wire.scheme, &[("HTTP", ())])?;
    let path = if wire.path.is_empty() { "/" } else { &wire.path };
    Ok((path.to_owned(), port_from_wire(&wire.port, ports, at.to("port"))?))
}

/// Reads what is done at a turn of a container's life.
pub(super) fn hook_from_wire(
    wire: Option<&v1::LifecycleHandler>,
    ports: &[Port],
    at: At<'_>,
) -> Result<Option<Hook>, FieldError> {
    let Some(wire) = wire else { return Ok(None) };
    let hook = match (&wire.exec, &wire.http_get, &wire.sleep) {
        (Some(exec), None, None) => Hook::Exec(command_from_wire(exec, at.to("exec"))?),
        (None, Some(get), None) => {
            let (path, port) = page_from_wire(get, ports, at.to("httpGet"))?;
            Hook::HttpGet { path, port, host: String::new() }
        }
        (None, None, Some(sleep)) => Hook::Sleep { ms: at.to("sleep").to("seconds").seconds(sleep.seconds)? },
        _ => return Err(at.refuse("must have one of exec, httpGet and sleep")),
    };
    Ok(Some(hook))
}

pub(super) fn hook_to_wire(hook: &Hook) -> v1::LifecycleHandler {
    let mut wire = v1::LifecycleHandler::default();
    match hook {
        Hook::Exec(command) => wire.exec = Some(v1::ExecAction { command: command.clone() }),
        Hook::HttpGet { path, port, host: _ } => {
            let (path, port) = (path.clone(), port.to_string());
            wire.http_get = Some(v1::HttpGetAction { path, port, scheme: "HTTP".to_owned() });
        }
        Hook::Sleep { ms } => {
            let seconds = i64::try_from(ms / 1000).unwrap_or(i64::MAX);
            wire.sleep = Some(v1::SleepAction { seconds });
        }
    }
    wire
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
        termination_grace_period_seconds: probe.grace_ms.map(|ms| i64::try_from(ms / 1000).unwrap_or(i64::MAX)),
        ..v1::Probe::default()
    };
    match &probe.action {
        ProbeAction::Exec(command) => wire.exec = Some(v1::ExecAction { command: command.clone() }),
        ProbeAction::HttpGet { path, port, host: _ } => {
            wire.http_get =
                Some(v1::HttpGetAction { path: path.clone(), port: port.to_string(), scheme: "HTTP".to_owned() });
        }
        ProbeAction::Grpc { port, service } => {
            wire.grpc = Some(v1::GrpcAction { port: number(*port), service: service.clone() });
        }
        ProbeAction::TcpSocket { port } => wire.tcp_socket = Some(v1::TcpSocketAction { port: port.to_string() }),
    }
    wire
}
