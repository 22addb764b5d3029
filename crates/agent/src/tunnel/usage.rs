//! How full a volume is, said through a tunnel: measured when somebody asks, and at no other time.

use api::internal::tunnel_frame::Frame;
use api::internal::{TunnelFrame, Usage, UsageWish};
use prost::Message as _;
use tokio::sync::mpsc;
use tonic::Code;

use super::{End, send};
use crate::pods::{Site, with_causes};

/// Measures a volume that is attached here.
pub(crate) async fn usage(site: &Site, wish: UsageWish, outgoing: &mpsc::Sender<TunnelFrame>) -> End {
    let volumes = site.volumes.clone();
    let measure = move || volumes.stats(&wish.driver, &wish.handle, wish.capacity_bytes);
    let failed = |message| End::failed(Code::FailedPrecondition, "NotMeasured", message);
    let stats = match tokio::task::spawn_blocking(measure).await {
        Ok(Ok(stats)) => stats,
        Ok(Err(error)) => return failed(with_causes(&error)),
        Err(error) => return failed(error.to_string()),
    };
    let usage = Usage {
        capacity_bytes: stats.capacity_bytes,
        used_bytes: stats.used_bytes,
        available_bytes: stats.available_bytes,
    };
    send(outgoing, Frame::Data(usage.encode_to_vec().into())).await;
    End::good()
}
