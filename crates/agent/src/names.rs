//! What names stand for, as the server of the session tells it; kept when the session is over, however long that lasts.
//! Never decides what a name stands for.

use std::time::Duration;

use api::internal::NamesRequest;
use api::internal::agents_client::AgentsClient;
use domain::Names;
use domain::names::NamesUpdate;
use tokio::sync::watch;
use tonic::Status;
use tonic::transport::Channel;

/// A server that does not tell is asked again after this time.
const PAUSE: Duration = Duration::from_secs(1);
/// A service with a hundred thousand pods fits.
const FRAME_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What is known of names, and whether anybody tells more.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) names: watch::Receiver<Names>,
    /// Whether a server tells what changes. While nobody does, the last that was told counts.
    pub(crate) is_told: watch::Receiver<bool>,
}

/// Where what is heard goes.
#[derive(Clone, Debug)]
pub(crate) struct Ear {
    names: watch::Sender<Names>,
    is_told: watch::Sender<bool>,
}

/// Nothing is known at first.
pub(crate) fn nothing_yet() -> (Ear, Known) {
    let (names, known_names) = watch::channel(Names::default());
    let (is_told, known_is_told) = watch::channel(false);
    (Ear { names, is_told }, Known { names: known_names, is_told: known_is_told })
}

impl Ear {
    /// Listens for as long as it is polled.
    pub(crate) async fn listen(&self, channel: Channel) {
        // However this ends: with the call or with the session.
        let _told = Told(&self.is_told);
        loop {
            match self.hear(channel.clone()).await {
                Ok(()) => tracing::debug!("names: the server tells no more"),
                Err(status) => tracing::debug!(%status, "names: the server does not tell"),
            }
            self.is_told.send_replace(false);
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn hear(&self, channel: Channel) -> Result<(), Status> {
        let mut client = AgentsClient::new(channel).max_decoding_message_size(FRAME_BYTES_MAX);
        let mut frames = client.names(NamesRequest {}).await?.into_inner();
        let mut next = Names::default();
        while let Some(frame) = frames.message().await? {
            let update: NamesUpdate =
                api::codec::decode(&frame.update).map_err(|error| Status::internal(error.to_string()))?;
            if next.update(update) {
                self.names.send_replace(next.clone());
                self.is_told.send_replace(true);
            }
        }
        Ok(())
    }
}

/// Says at its end that nobody tells any more.
struct Told<'a>(&'a watch::Sender<bool>);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}
